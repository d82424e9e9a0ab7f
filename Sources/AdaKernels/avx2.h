// Shared by the AVX2 files. Each function has its own target attribute, so the package needs no compiler flags.
#pragma once
#include "approximations.h"
#include "internal.h"

#if AK_X86
#include <immintrin.h>

#define AK_AVX2_FEATURES "avx2,fma,f16c"
#define AK_AVX2 __attribute__((target(AK_AVX2_FEATURES)))
#define AK_AVX2_INLINE static inline __attribute__((always_inline, target(AK_AVX2_FEATURES)))

// 1 if the processor has all of AK_AVX2_FEATURES.
int ak_avx2_available(void);

extern const ak_kernels ak_avx2_kernels;
extern const ak_tuning ak_avx2_tuning;
extern const ak_tile_set *const ak_avx2_quantized_sets[3];   // Q8_0, Q4_0, Q4_1; also for processors with AVX-512 but without VNNI
extern const ak_tile_set ak_avx2_wide_sets[4];               // of ak_wide_block: with I16 activations; Q8_0, Q4_0 and Q4_1 with Q8_0 activations
void ak_avx2_widen(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales);
void ak_avx2_quantize_i16(int16_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks);

void ak_avx2_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                    const ak_upcoming *upcoming, void *scratch);
extern const ak_row_products ak_avx2_row_products;
extern const ak_one_token ak_avx2_one_token;
extern const ak_matmul_parts ak_avx2_matmul_parts;

// Tiles of 256-bit vpdpbusd, in the encoding of AVX-VNNI and in that of AVX-512.
typedef struct { const ak_tile_set *q8, *q4_0, *q4_1; } ak_vnni256;
extern const ak_vnni256 ak_vnni256_vex, ak_vnni256_evex;
extern const ak_kernels ak_avxvnni_kernels;
int ak_has_avxvnni(void);         // 1 if the processor has AVX-VNNI,
int ak_avxvnni_available(void);   // or the same instruction as a part of AVX-512
void ak_avxvnni_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                       const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                       const ak_upcoming *upcoming, void *scratch);
void ak_avx2_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last);
void ak_avx2_panel(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                   int32_t first, int32_t last, const uint8_t *ahead);
void ak_avx2_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                       int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_avx2_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                            int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);
void ak_avxvnni_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                          int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_avxvnni_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                               int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);
// Parts of attention with 8-bit keys and values (ak_attention_parts): by AVX2, and by 256-bit dot products in either encoding.
void ak_avx2_q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                        ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next);
void ak_vex_q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                       ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next);
void ak_evex_q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                        ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next);
void ak_avx2_q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                       int32_t head_dim, int32_t panels, int32_t queries, const void *next);
void ak_vex_q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                      int32_t head_dim, int32_t panels, int32_t queries, const void *next);
void ak_evex_q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                       int32_t head_dim, int32_t panels, int32_t queries, const void *next);
float ak_avx2_q8_weights(int16_t *out, const float *weights, const uint16_t *scales, size_t count);
void ak_avx2_q8_query(int8_t *out, ak_q8_query *query, const float *q, int32_t head_dim);
void ak_avx2_q8_store(void *k, void *v, const float *key, size_t ldk, const float *value, size_t ldv, int32_t head_dim, int32_t first, int32_t count);
void ak_avx2_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                      int32_t head_dim, int32_t first, int32_t count);
void ak_avx2_depthwise_relu6(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                             const ak_depthwise *shape, int32_t first, int32_t rows);

void ak_avx2_group_maxima(float *maxima, const float *x, int32_t n);
int32_t ak_avx2_at_least(int32_t *indices, const float *x, int32_t n, const float *maxima, float threshold);
double ak_avx2_exp_sum(const float *x, int32_t n, float shift, float scale);

// All ones in the lanes that hold n - i values: all eight, or the last few.
AK_AVX2_INLINE __m256i ak_lanes256(size_t n, size_t i) {
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(ones + (n - i >= 8 ? 0 : 8 - (n - i))));
}

// Load and store of values i … i + 7 of the n at x, zeros after the last. AMD's processors before Zen 4 execute masked stores as microcode, ten times
// as slow as whole ones, so only the last few values use them.
AK_AVX2_INLINE __m256 ak_load256(const float *x, size_t n, size_t i) {
    return n - i >= 8 ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, ak_lanes256(n, i));
}
AK_AVX2_INLINE void ak_store256(float *x, size_t n, size_t i, __m256 values) {
    if (n - i >= 8) _mm256_storeu_ps(x + i, values);
    else _mm256_maskstore_ps(x + i, ak_lanes256(n, i), values);
}

// e^x with a relative error below 2e-7; zero below about -104, infinity above about 88.7, NaN for NaN.
AK_AVX2_INLINE __m256 ak_exp256(__m256 x) {
    const __m256 clamped = _mm256_min_ps(_mm256_set1_ps(100.0f), _mm256_max_ps(_mm256_set1_ps(-110.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(AK_LOG2_E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(AK_LN2_HIGH), clamped);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(AK_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(AK_EXP_4);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(AK_EXP_3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(AK_EXP_2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(AK_EXP_1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(AK_EXP_0));
    const __m256 y = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    // 2^n in two factors, because n can be outside the range of float exponents. (For NaN any n will do.)
    const __m256i power = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(power, 1), bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(power, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(y, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

AK_AVX2_INLINE float ak_sum256(__m256 x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

AK_AVX2_INLINE float ak_max256(__m256 x) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// ak_wide_value of eight.
AK_AVX2_INLINE __m256i ak_wide_values256(__m256 scaled) {
    const __m256 finite = _mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q);
    return _mm256_cvtps_epi32(_mm256_and_ps(finite, scaled));
}

// min(6, max(0, x)). Both give their second operand where one is NaN, so NaN stays.
AK_AVX2_INLINE __m256 ak_relu6_256(__m256 x) { return _mm256_min_ps(_mm256_set1_ps(6.0f), _mm256_max_ps(_mm256_setzero_ps(), x)); }

// sum + dots * the scales of half h of a block's rows, at `scales`, and of a token. act_sum: of its inputs, times -128; Q4_1 only.
AK_AVX2_INLINE __m256 ak_add_dots256(__m256 sum, __m256i dots, const uint8_t *scales, int h, __m256 act_scale, float act_sum, const ak_type type) {
    const __m128i *halves = (const __m128i *)scales + h;
    const __m256 dot = _mm256_cvtepi32_ps(dots), scale = _mm256_cvtph_ps(_mm_loadu_si128(halves));
    if (type != AK_Q4_1) return _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, act_scale), sum);
    const __m256 minima = _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(halves + 2)), _mm256_set1_ps(AK_SUM_UNIT));
    return _mm256_fmadd_ps(_mm256_fmadd_ps(dot, scale, _mm256_mul_ps(minima, _mm256_set1_ps(act_sum))), act_scale, sum);
}

// The initial value of both 16-bit sums of a Q4_0 row, from the sum of a block's activations times -128: half of -8 times the sum of all inputs.
// They do not overflow: 16 products of w - 4 (-4 … 11) and 16 of -4 are 30,480 at most, as 16 of w (0 … 15) are.
AK_INLINE int32_t ak_avx2_q4_0_start(int32_t sum) { return (int32_t)((uint32_t)(sum / 16 / 2 & 0xffff) * 0x10001u); }

// Writes half h of the sums of token t and panel p.
AK_AVX2_INLINE void ak_finish_half256(__m256 value, const ak_tile *tile, int t, int p, int h) {
    if (tile->flags & AK_TILE_SUSPEND) {
        _mm256_storeu_ps(tile->partial + (t * tile->panels + p) * AK_PANEL + 8 * h, value);
        return;
    }
    const size_t column = (size_t)tile->panel[p] * AK_PANEL + (size_t)(8 * h);
    float *out = tile->out + (size_t)t * tile->ldo + column;
    if (tile->bias) value = _mm256_add_ps(value, _mm256_loadu_ps(tile->bias + column));
    if (tile->flags & AK_ACCUMULATE) value = _mm256_add_ps(_mm256_loadu_ps(out), value);
    if (tile->flags & AK_RELU6) value = ak_relu6_256(value);
    _mm256_storeu_ps(out, value);
}

AK_AVX2_INLINE __m256 ak_even_half256(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
AK_AVX2_INLINE __m256 ak_odd_half256(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

// Eight rows' weights of input k (even) or k + 1 (odd). The 16 rows' weights of both inputs are at `pair`.
AK_AVX2_INLINE __m256 ak_weights256(const uint8_t *pair, const ak_type type, const int odd, const int half) {
    if (type == AK_F32) return _mm256_loadu_ps((const float *)(pair + AK_LINE * (size_t)odd) + 8 * half);
    if (type == AK_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(pair + 32 * odd + 16 * half)));
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(pair + 32 * half));
    return odd ? ak_odd_half256(pairs) : ak_even_half256(pairs);
}

// Swaps rows and columns of an 8 x 8 square.
AK_AVX2_INLINE void ak_transpose256(__m256 rows[8]) {
    __m256 pairs[8], quads[8];
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
        quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm256_permute2f128_ps(quads[i], quads[4 + i], 0x20);
        rows[4 + i] = _mm256_permute2f128_ps(quads[i], quads[4 + i], 0x31);
    }
}
#endif
