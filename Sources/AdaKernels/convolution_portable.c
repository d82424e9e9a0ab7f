// The depthwise convolution in plain C.
#include "internal.h"

void ak_portable_depthwise_relu6(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                                 const ak_depthwise *shape, int32_t first, int32_t rows) {
    for (int32_t y = first; y < first + rows; y++) {
        const int32_t row = y * shape->stride - shape->top;
        int32_t r0, r1;
        ak_taps(row, shape->kernel, shape->height, &r0, &r1);
        for (int32_t x = 0; x < shape->out_width; x++) {
            const int32_t column = x * shape->stride - shape->left;
            int32_t s0, s1;
            ak_taps(column, shape->kernel, shape->width, &s0, &s1);
            float *sum = out + ((size_t)y * (size_t)shape->out_width + (size_t)x) * ldo;
            for (int32_t c = 0; c < shape->channels; c++) sum[c] = bias[c];
            for (int32_t r = r0; r < r1; r++) {
                for (int32_t s = s0; s < s1; s++) {
                    const float *values = in + ((size_t)(row + r) * (size_t)shape->width + (size_t)(column + s)) * ldx;
                    const float *taps = weight + (size_t)(r * shape->kernel + s) * ldw;
                    for (int32_t c = 0; c < shape->channels; c++) sum[c] += values[c] * taps[c];
                }
            }
            for (int32_t c = 0; c < shape->channels; c++) sum[c] = ak_relu6(sum[c]);
        }
    }
}
