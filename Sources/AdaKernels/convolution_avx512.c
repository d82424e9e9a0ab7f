// The AVX-512 depthwise convolution: 16 channels of a few neighbouring outputs at a time, whose taps read the same inputs.
#include "avx512.h"

#if AK_X86

// Outputs of a row whose taps all meet the input are computed this many at a time.
#define AK_RUN 4

// 16 channels (or as many as `lanes` has) of `run` neighbouring outputs. `in` is the input under tap (r0, s0) of the first of them.
AK_AVX512_INLINE void outputs(float *out, size_t ldo, const float *in, size_t row_stride, size_t ldx, const float *weight, size_t ldw,
                              const float *bias, __mmask16 lanes, const int run, const int kernel, const int stride, int32_t r0,
                              int32_t r1, const int s0, const int s1) {
    __m512 sums[AK_RUN];
    const __m512 start = _mm512_maskz_loadu_ps(lanes, bias);
#pragma unroll
    for (int i = 0; i < run; i++) sums[i] = start;
    for (int32_t r = r0; r < r1; r++, in += row_stride) {
        const float *taps = weight + (size_t)(r * kernel) * ldw;
        for (int s = s0; s < s1; s++) {
            const __m512 tap = _mm512_maskz_loadu_ps(lanes, taps + (size_t)s * ldw);
#pragma unroll
            for (int i = 0; i < run; i++)
                sums[i] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, in + (size_t)(i * stride + s - s0) * ldx), tap, sums[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < run; i++) _mm512_mask_storeu_ps(out + (size_t)i * ldo, lanes, ak_relu6_512(sums[i]));
}

// All channels of `run` outputs from output column x on.
AK_AVX512_INLINE void columns(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                              const ak_depthwise *shape, int32_t row, int32_t x, const int run, const int kernel, const int stride,
                              int32_t r0, int32_t r1, const int s0, const int s1) {
    const int32_t column = x * stride - shape->left;
    const size_t row_stride = (size_t)shape->width * ldx;
    // If no tap is inside the input there is no address.
    const float *first = r0 < r1 && s0 < s1 ? in + (size_t)(row + r0) * row_stride + (size_t)(column + s0) * ldx : in;
    for (int32_t c = 0; c < shape->channels; c += 16) {
        const int32_t left = shape->channels - c;
        const __mmask16 lanes = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        outputs(out + (size_t)x * ldo + c, ldo, first + c, row_stride, ldx, weight + c, ldw, bias + c, lanes, run, kernel, stride, r0, r1, s0, s1);
    }
}

AK_AVX512_INLINE void convolve(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                               const ak_depthwise *shape, int32_t first, int32_t rows, const int kernel, const int stride) {
    for (int32_t y = first; y < first + rows; y++) {
        const int32_t row = y * stride - shape->top;
        float *out_row = out + (size_t)y * (size_t)shape->out_width * ldo;
        int32_t r0, r1, x = 0;
        ak_taps(row, kernel, shape->height, &r0, &r1);
        while (x < shape->out_width) {
            int32_t s0, s1, last0, last1;
            ak_taps(x * stride - shape->left, kernel, shape->width, &s0, &s1);
            ak_taps((x + AK_RUN - 1) * stride - shape->left, kernel, shape->width, &last0, &last1);
            if (x + AK_RUN <= shape->out_width && s0 == 0 && last1 == kernel) {
                columns(out_row, ldo, in, ldx, weight, ldw, bias, shape, row, x, AK_RUN, kernel, stride, r0, r1, 0, kernel);
                x += AK_RUN;
            } else {
                columns(out_row, ldo, in, ldx, weight, ldw, bias, shape, row, x, 1, kernel, stride, r0, r1, s0, s1);
                x += 1;
            }
        }
    }
}

AK_AVX512 void ak_avx512_depthwise_relu6(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw,
                                         const float *bias, const ak_depthwise *shape, int32_t first, int32_t rows) {
    // One copy for each common size, so that its loops have constant bounds.
    switch (shape->kernel * 10 + shape->stride) {
        case 31: convolve(out, ldo, in, ldx, weight, ldw, bias, shape, first, rows, 3, 1); break;
        case 32: convolve(out, ldo, in, ldx, weight, ldw, bias, shape, first, rows, 3, 2); break;
        case 51: convolve(out, ldo, in, ldx, weight, ldw, bias, shape, first, rows, 5, 1); break;
        case 52: convolve(out, ldo, in, ldx, weight, ldw, bias, shape, first, rows, 5, 2); break;
        default: convolve(out, ldo, in, ldx, weight, ldw, bias, shape, first, rows, shape->kernel, shape->stride); break;
    }
}
#endif
