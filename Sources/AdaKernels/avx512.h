// Shared by the AVX-512 files. Each function has its own target attribute, so the package needs no compiler flags.
#pragma once
#include "internal.h"
#include "approximations.h"

#if AK_X86
#include <immintrin.h>
#include <string.h>

#define AK_AVX512_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#define AK_AVX512 __attribute__((target(AK_AVX512_FEATURES)))
#define AK_AVX512_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES)))

#define AK_AVX512_BF16 __attribute__((target(AK_AVX512_FEATURES ",avx512bf16")))
#define AK_AVX512_BF16_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512bf16")))

#define AK_AVX512_VNNI __attribute__((target(AK_AVX512_FEATURES ",avx512vnni")))
#define AK_AVX512_VNNI_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512vnni")))

// 1 if the processor has all of AK_AVX512_FEATURES.
int ak_avx512_available(void);
int ak_avx512_has_vnni(void);
int ak_avx512_has_bf16(void);
int ak_avx512_multiplies_rows(void);   // whether ak_avx512_row_products run

extern const ak_kernels ak_avx512_kernels;
extern const ak_tuning ak_avx512_tuning;
extern const ak_tile_set *const ak_avx512_float_sets[3];   // F32, F16 and BF16 panels with F32 activations

ak_matmul_parts ak_avx512_matmul_parts(void);
void ak_avx512_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                      const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                      const ak_upcoming *upcoming, void *scratch);
void ak_avx512_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last);
void ak_avx512_panel(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                     int32_t first, int32_t last, const uint8_t *ahead);
extern const ak_row_products ak_avx512_row_products;
extern const ak_one_token ak_avx512_one_token;   // for processors with VNNI
void ak_avx512_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                         int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_avx512_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                            int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);
void ak_avx512_q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                         int32_t head_dim, int32_t panels, int32_t queries, const void *next);   // for processors with VNNI
void ak_avx512_q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                          ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next);
ak_softmax ak_avx512_softmax(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale);
extern const ak_attention_parts ak_avx512_bf16_attention;   // for processors with BF16 dot products
void ak_avx512_attention_pairs(uint16_t *k_out, uint16_t *v_out, const void *k, const void *v, ak_type kv_type, int32_t head_dim,
                               int32_t first, int32_t end);
void ak_avx512_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                        int32_t head_dim, int32_t first, int32_t count);
void ak_avx512_depthwise_relu6(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                               const ak_depthwise *shape, int32_t first, int32_t rows);

// min(6, max(0, x)). Both give their second operand where one is NaN, so NaN stays.
AK_AVX512_INLINE __m512 ak_relu6_512(__m512 x) { return _mm512_min_ps(_mm512_set1_ps(6.0f), _mm512_max_ps(_mm512_setzero_ps(), x)); }

// Four neighbouring 8-bit inputs, for each of 16 rows.
AK_AVX512_INLINE __m512i ak_four_inputs512(const int8_t *act) {
    int32_t four;
    memcpy(&four, act, sizeof four);
    return _mm512_set1_epi32(four);
}

// ------------------------------------------------------------------------------------------------------- the sums of a tile

typedef struct { __m512 of[AK_TILE_TOKENS][AK_TILE_PANELS]; } ak_sums512;

AK_AVX512_INLINE void ak_sums512_start(ak_sums512 *sums, const ak_tile *tile, const int tokens, const int panels) {
    const int resume = tile->flags & AK_TILE_RESUME;
    // Prefetches the lines that will be written, while the sums are computed.
    if (tokens > 3)
#pragma unroll
        for (int p = 0; p < panels; p++)
#pragma unroll
            for (int t = 0; t < tokens; t++)
                __builtin_prefetch(tile->out + (size_t)t * tile->ldo + (size_t)tile->panel[p] * AK_PANEL, 1, 3);
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
        for (int p = 0; p < panels; p++)
            sums->of[t][p] = resume ? _mm512_loadu_ps(tile->partial + (t * panels + p) * AK_PANEL) : _mm512_setzero_ps();
}

// Writes a token's sums of 16 rows.
AK_AVX512_INLINE void ak_finish512(float *out, __m512 sums, __m512 bias, int32_t flags) {
    __m512 value = _mm512_add_ps(sums, bias);
    if (flags & AK_ACCUMULATE) value = _mm512_add_ps(_mm512_loadu_ps(out), value);
    if (flags & AK_RELU6) value = ak_relu6_512(value);
    _mm512_storeu_ps(out, value);
}

AK_AVX512_INLINE void ak_sums512_finish(const ak_sums512 *sums, const ak_tile *tile, const int tokens, const int panels) {
    if (tile->flags & AK_TILE_SUSPEND) {
#pragma unroll
        for (int t = 0; t < tokens; t++)
#pragma unroll
            for (int p = 0; p < panels; p++) _mm512_storeu_ps(tile->partial + (t * panels + p) * AK_PANEL, sums->of[t][p]);
        return;
    }
#pragma unroll
    for (int p = 0; p < panels; p++) {
        const size_t column = (size_t)tile->panel[p] * AK_PANEL;
        const __m512 bias = tile->bias ? _mm512_loadu_ps(tile->bias + column) : _mm512_setzero_ps();
        float *out = tile->out + column;
#pragma unroll
        for (int t = 0; t < tokens; t++, out += tile->ldo)
            ak_finish512(out, sums->of[t][p], bias, tile->flags);
    }
}

// -------------------------------------------------------------------------------------------------------------- functions

// e^x with a relative error below 2e-7; zero below about -104, infinity above about 88.7, NaN for NaN.
AK_AVX512_INLINE __m512 ak_exp512(__m512 x) {
    const __m512 clamped = _mm512_min_ps(_mm512_set1_ps(128.0f), _mm512_max_ps(_mm512_set1_ps(-128.0f), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(clamped, _mm512_set1_ps(AK_LOG2_E)), 0x08);
    // ln 2 in two parts: the first has few enough bits for an exact product.
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(AK_LN2_HIGH), clamped);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(AK_LN2_LOW), r);
    // e^r = 1 + r + r^2 p(r) for |r| <= ln 2 / 2; p is fitted to the least largest relative error, 3e-9.
    __m512 p = _mm512_set1_ps(AK_EXP_4);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP_3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP_2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP_1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP_0));
    const __m512 y = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(y, n);
}

// x * sigmoid(y), its factor 1 / (1 + e^-y) with a relative error below 3e-7. A division would take half as long as all of this, so the reciprocal is
// an estimate and one step of Newton's method; for a sum near infinity it is the estimate alone.
AK_AVX512_INLINE __m512 ak_gated512(__m512 x, __m512 y) {
    const __m512 sum = _mm512_add_ps(_mm512_set1_ps(1.0f), ak_exp512(_mm512_sub_ps(_mm512_setzero_ps(), y))), estimate = _mm512_rcp14_ps(sum);
    const __mmask16 small = _mm512_cmp_ps_mask(sum, _mm512_set1_ps(0x1p126f), _CMP_LT_OQ);
    return _mm512_mul_ps(x, _mm512_mask_mul_ps(estimate, small, estimate, _mm512_fnmadd_ps(sum, estimate, _mm512_set1_ps(2.0f))));
}

// Two vectors rounded to BF16, a value of the first and one of the second in turn.
AK_AVX512_BF16_INLINE __m512i ak_bf16_pairs512(__m512 first, __m512 second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                                           19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

// `count` values of each of a few rows as BF16, zeros from there to `padded`; whole sixteens are written.
AK_AVX512_BF16_INLINE void ak_bf16_rows512(uint16_t *out, size_t ldo, const float *rows, size_t stride, size_t count, size_t padded, int32_t queries) {
    for (int32_t t = 0; t < queries; t++)
        for (size_t i = 0; i < padded; i += 16) {
            const __mmask16 lanes = i >= count ? 0 : count - i >= 16 ? 0xffff : (__mmask16)((1u << (count - i)) - 1);
            const __m512 values = _mm512_maskz_loadu_ps(lanes, rows + (size_t)t * stride + i);
            _mm256_storeu_si256((__m256i *)(out + (size_t)t * ldo + i), (__m256i)_mm512_cvtneps_pbh(values));
        }
}

// Swaps rows and columns of a 16 x 16 square of 32-bit values.
AK_AVX512_INLINE void ak_transpose512(__m512i rows[16]) {
    __m512i pairs[16], quads[16];
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
        quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    // quads[4g + c] holds column 4l + c of rows 4g … 4g+3 in its 128-bit lane l.
#pragma unroll
    for (int c = 0; c < 4; c++) {
        const __m512i low01 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0x88), low23 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0x88);
        const __m512i high01 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0xdd), high23 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0xdd);
        rows[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        rows[8 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
        rows[4 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        rows[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
}
#endif
