// AVX2 norms, activations, rotary positions and conversions of activations, and the table of AVX2 kernels.
#include "avx2.h"

#if AK_X86
#include <math.h>

// ------------------------------------------------------------------------------------------------------ activations of matmul

static AK_AVX2 void quantize_q8(int8_t *out, size_t ldo, float *scales, int32_t *sums, const float *src, size_t ld, int32_t tokens,
                                int32_t blocks) {
    const __m256 below_half = _mm256_set1_ps(0x1.fffffep-2f), sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t b = 0; b < blocks; b++) {
            const float *x = src + (size_t)t * ld + (size_t)b * AK_BLOCK;
            const size_t at = (size_t)t * (ldo / AK_BLOCK) + (size_t)b;
            __m256 values[4], largest = _mm256_setzero_ps();
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[i] = _mm256_loadu_ps(x + 8 * i);
                // If a value is NaN the result is the second operand, the previous maximum.
                largest = _mm256_max_ps(_mm256_andnot_ps(sign, values[i]), largest);
            }
            const float scale = ak_max256(largest) / 127.0f;
            const __m256 inverse = _mm256_set1_ps(ak_inverse_scale(scale));
            __m256i quants[4], sum = _mm256_setzero_si256();
#pragma unroll
            for (int i = 0; i < 4; i++) {
                // Half away from zero: the largest float below 1/2, with the value's sign, then the fraction is cut off.
                const __m256 scaled = _mm256_mul_ps(values[i], inverse);
                const __m256 nudge = _mm256_or_ps(below_half, _mm256_and_ps(scaled, sign));
                const __m256 finite = _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q);
                quants[i] = _mm256_cvttps_epi32(_mm256_and_ps(finite, _mm256_add_ps(scaled, nudge)));
                sum = _mm256_add_epi32(sum, quants[i]);
            }
            // Packing works within 128-bit halves; the permutation puts the groups of four back in order.
            const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(quants[0], quants[1]), _mm256_packs_epi32(quants[2], quants[3]));
            _mm256_storeu_si256((__m256i *)(out + at * AK_BLOCK), _mm256_permutevar8x32_epi32(packed, order));
            const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
            scales[at] = ak_half_holds(scale) ? _cvtsh_ss(_cvtss_sh(scale, _MM_FROUND_TO_NEAREST_INT)) : scale;
            sums[at] = -128 * _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
        }
    }
}

AK_AVX2 void ak_avx2_quantize_i16(int16_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t b = 0; b < blocks; b++) {
            const float *x = src + (size_t)t * ld + (size_t)b * AK_BLOCK;
            const size_t at = (size_t)t * (ldo / AK_BLOCK) + (size_t)b;
            __m256 values[4], largest = _mm256_setzero_ps();
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[i] = _mm256_loadu_ps(x + 8 * i);
                // If a value is NaN the result is the second operand, the previous maximum.
                largest = _mm256_max_ps(_mm256_andnot_ps(sign, values[i]), largest);
            }
            scales[at] = ak_max256(largest) / AK_WIDE_MAX;
            const __m256 inverse = _mm256_set1_ps(ak_inverse_scale(scales[at]));
            __m256i quants[4];
#pragma unroll
            for (int i = 0; i < 4; i++) quants[i] = ak_wide_values256(_mm256_mul_ps(values[i], inverse));
#pragma unroll
            for (int i = 0; i < 4; i += 2)   // packing works within 128-bit halves
                _mm256_storeu_si256((__m256i *)(out + at * AK_BLOCK) + i / 2,
                                    _mm256_permute4x64_epi64(_mm256_packs_epi32(quants[i], quants[i + 1]), 0xd8));
        }
    }
}

static AK_AVX2 void to_bf16(uint16_t *out, size_t ldo, const float *src, size_t ld, int32_t tokens, int32_t count) {
    const __m256i one = _mm256_set1_epi32(1), bias = _mm256_set1_epi32(0x7fff), quiet = _mm256_set1_epi32(0x400000);
    for (int32_t t = 0; t < tokens; t++, out += ldo, src += ld) {
        size_t i = 0;
        for (; i + 8 <= (size_t)count; i += 8) {
            const __m256 values = _mm256_loadu_ps(src + i);
            const __m256i bits = _mm256_castps_si256(values);
            const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(values, values, _CMP_UNORD_Q));
            __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, bias), _mm256_and_si256(_mm256_srli_epi32(bits, 16), one));
            rounded = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_or_si256(bits, quiet), nan), 16);
            const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
            _mm_storeu_si128((__m128i *)(out + i), _mm256_castsi256_si128(packed));
        }
        for (; i < (size_t)count; i++) out[i] = ak_float_to_bf16(src[i]);
    }
}

// ------------------------------------------------------------------------------------------------------------------- norms

static AK_AVX2 void rms_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, float eps, int32_t tokens,
                             int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        __m256 squares[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (size_t i = 0; i < count; i += 8) {
            const __m256 value = ak_load256(x, count, i);
            squares[i / 8 % 2] = _mm256_fmadd_ps(value, value, squares[i / 8 % 2]);
        }
        const float mean = ak_sum256(_mm256_add_ps(squares[0], squares[1])) / (float)n;
        const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(mean + eps));
        for (size_t i = 0; i < count; i += 8) {
            const __m256 value = _mm256_mul_ps(ak_load256(x, count, i), factor);
            ak_store256(out, count, i, _mm256_mul_ps(value, ak_load256(weight, count, i)));
        }
    }
}

static AK_AVX2 void layer_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, const float *bias, float eps,
                               int32_t tokens, int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        __m256 sum = _mm256_setzero_ps(), squares = _mm256_setzero_ps();
        for (size_t i = 0; i < count; i += 8) sum = _mm256_add_ps(sum, ak_load256(x, count, i));
        const __m256 mean = _mm256_set1_ps(ak_sum256(sum) / (float)n);
        for (size_t i = 0; i < count; i += 8) {
            const __m256i lanes = ak_lanes256(count, i);
            const __m256 difference = _mm256_and_ps(_mm256_castsi256_ps(lanes), _mm256_sub_ps(ak_load256(x, count, i), mean));
            squares = _mm256_fmadd_ps(difference, difference, squares);
        }
        const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(ak_sum256(squares) / (float)n + eps));
        for (size_t i = 0; i < count; i += 8) {
            const __m256 value = _mm256_mul_ps(_mm256_sub_ps(ak_load256(x, count, i), mean), factor);
            const __m256 result = _mm256_fmadd_ps(value, ak_load256(weight, count, i), ak_load256(bias, count, i));
            ak_store256(out, count, i, result);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ activations

// x * sigmoid(y)
AK_AVX2_INLINE __m256 gated(__m256 x, __m256 y) {
    const __m256 e = ak_exp256(_mm256_sub_ps(_mm256_setzero_ps(), y));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

AK_AVX2_INLINE __m256 normal_distribution(__m256 x) {
    const __m256 u = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x), s = _mm256_mul_ps(x, x);
    __m256 near = _mm256_set1_ps(AK_PHI_NEAR_6);
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_5));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_4));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_3));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_2));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_1));
    near = _mm256_fmadd_ps(near, s, _mm256_set1_ps(AK_PHI_NEAR_0));
    near = _mm256_fmadd_ps(near, x, _mm256_set1_ps(0.5f));
    __m256 far = _mm256_set1_ps(AK_PHI_FAR_5);
    far = _mm256_fmadd_ps(far, u, _mm256_set1_ps(AK_PHI_FAR_4));
    far = _mm256_fmadd_ps(far, u, _mm256_set1_ps(AK_PHI_FAR_3));
    far = _mm256_fmadd_ps(far, u, _mm256_set1_ps(AK_PHI_FAR_2));
    far = _mm256_fmadd_ps(far, u, _mm256_set1_ps(AK_PHI_FAR_1));
    far = _mm256_fmadd_ps(far, u, _mm256_set1_ps(AK_PHI_FAR_0));
    const __m256 tail = ak_exp256(_mm256_sub_ps(_mm256_setzero_ps(), far));
    const __m256 negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    far = _mm256_blendv_ps(_mm256_sub_ps(_mm256_set1_ps(1.0f), tail), tail, negative);
    return _mm256_blendv_ps(near, far, _mm256_cmp_ps(u, _mm256_set1_ps(AK_PHI_LIMIT), _CMP_GT_OQ));
}

static AK_AVX2 void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 x = ak_load256(gate, n, i);
        ak_store256(gate, n, i, _mm256_mul_ps(gated(x, x), ak_load256(up, n, i)));
    }
}

static AK_AVX2 void gelu_erf(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 value = ak_load256(x, n, i);
        ak_store256(x, n, i, _mm256_mul_ps(value, normal_distribution(value)));
    }
}

AK_AVX2_INLINE __m256 gelu_tanh_of(__m256 value) {
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(value, value), _mm256_mul_ps(value, _mm256_set1_ps(AK_GELU_TANH_CUBE)));
    return gated(value, _mm256_mul_ps(_mm256_set1_ps(AK_GELU_TANH_SCALE), _mm256_add_ps(value, cube)));
}

static AK_AVX2 void gelu_tanh(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 8) ak_store256(x, n, i, gelu_tanh_of(ak_load256(x, n, i)));
}

static AK_AVX2 void gelu_tanh_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        ak_store256(gate, n, i, _mm256_mul_ps(gelu_tanh_of(ak_load256(gate, n, i)), ak_load256(up, n, i)));
    }
}

static AK_AVX2 void gelu_quick(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 value = ak_load256(x, n, i);
        ak_store256(x, n, i, gated(value, _mm256_mul_ps(value, _mm256_set1_ps(AK_GELU_QUICK_SCALE))));
    }
}

static AK_AVX2 void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 value = ak_load256(x, n, i);
        ak_store256(x, n, i, gated(value, value));
    }
}

static AK_AVX2 void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        ak_store256(x, n, i, _mm256_add_ps(ak_load256(x, n, i), ak_load256(y, n, i)));
    }
}

// --------------------------------------------------------------------------------------------------------------- positions

static AK_AVX2 void rope(float *x, const float *cos, const float *sin, int32_t heads, int32_t head_dim, int32_t interleaved) {
    const size_t pairs = (size_t)head_dim / 2;
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (int32_t head = 0; head < heads; head++, x += head_dim) {
        if (!interleaved) {
            for (size_t i = 0; i < pairs; i += 8) {
                const __m256 c = ak_load256(cos, pairs, i), s = ak_load256(sin, pairs, i);
                const __m256 a = ak_load256(x, pairs, i), b = ak_load256(x + pairs, pairs, i);
                ak_store256(x, pairs, i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
                ak_store256(x + pairs, pairs, i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
            }
        } else {
            for (size_t i = 0; i < pairs; i += 4) {
                const size_t count = pairs - i < 4 ? pairs - i : 4;
                const __m256i few = ak_lanes256(count, 0);
                const __m256 c = _mm256_permutevar8x32_ps(_mm256_maskload_ps(cos + i, few), twice);
                const __m256 s = _mm256_permutevar8x32_ps(_mm256_maskload_ps(sin + i, few), twice);
                const __m256 values = ak_load256(x, 2 * pairs, 2 * i);
                const __m256 swapped = _mm256_permute_ps(values, 0xb1);
                ak_store256(x, 2 * pairs, 2 * i, _mm256_fmaddsub_ps(values, c, _mm256_mul_ps(swapped, s)));
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ argmax

static AK_AVX2 int32_t argmax(const float *x, int32_t n) {
    const size_t count = (size_t)n;
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    // The comparison gives its second operand where one is NaN, so NaN never gets into the running maximum.
    __m256 best[2] = {lowest, lowest};
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        best[0] = _mm256_max_ps(_mm256_loadu_ps(x + i), best[0]);
        best[1] = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), best[1]);
    }
    for (; i < count; i += 8) {
        const __m256i lanes = ak_lanes256(count, i);
        const __m256 values = _mm256_blendv_ps(lowest, ak_load256(x, count, i), _mm256_castsi256_ps(lanes));
        best[0] = _mm256_max_ps(values, best[0]);
    }
    const __m256 largest = _mm256_set1_ps(ak_max256(_mm256_max_ps(best[0], best[1])));
    for (i = 0; i < count; i += 8) {
        const __m256i lanes = ak_lanes256(count, i);
        const __m256 equal = _mm256_cmp_ps(ak_load256(x, count, i), largest, _CMP_EQ_OQ);
        const int mask = _mm256_movemask_ps(_mm256_and_ps(equal, _mm256_castsi256_ps(lanes)));
        if (mask) return (int32_t)(i + (size_t)__builtin_ctz((unsigned)mask));
    }
    return 0;
}

// The set's products, and the kernels that all sets of 256 bits share.
#define KERNELS(set) { \
    .name = #set, \
    .matmul = ak_##set##_matmul, \
    .quantize_q8 = quantize_q8, \
    .quantize_i16 = ak_avx2_quantize_i16, \
    .quantize_i8 = ak_portable_quantize_i8, \
    .to_bf16 = to_bf16, \
    .rms_norm = rms_norm, \
    .layer_norm = layer_norm, \
    .silu_mul = silu_mul, \
    .gelu_tanh_mul = gelu_tanh_mul, \
    .gelu_erf = gelu_erf, \
    .gelu_tanh = gelu_tanh, \
    .gelu_quick = gelu_quick, \
    .silu = silu, \
    .add = add, \
    .rope = rope, \
    .attention = ak_##set##_attention, .attention_span = ak_##set##_attention_span, \
    .store_kv = ak_avx2_store_kv, \
    .depthwise_relu6 = ak_avx2_depthwise_relu6, \
    .argmax = argmax, \
    .group_maxima = ak_avx2_group_maxima, \
    .at_least = ak_avx2_at_least, \
    .exp_sum = ak_avx2_exp_sum, \
}

const ak_kernels ak_avx2_kernels = KERNELS(avx2);
const ak_kernels ak_avxvnni_kernels = KERNELS(avxvnni);

const ak_tuning ak_avx2_tuning = {
    AK_ITEM_TUNING, .wide_int16 = 1, .mapped_rows = 1, .bundle_panels = AK_TILE_PANELS, .half_panels = 3, .one_panel_at_a_time = 1,
    .query_tile = 2 * AK_QUERY_TILE,
};
#endif
