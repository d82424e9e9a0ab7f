// Attention with 8-bit keys and values by AVX-512's dot products of 8-bit and of 16-bit integers.
#include "avx2.h"
#include "avx512.h"

#if AK_X86
#define AHEAD 16384   // bytes of keys or values that are asked for ahead, where a few queries wait for memory: the keys of a head's page
#define TOGETHER 6   // queries that a tile takes, with up to four panels of keys or of a value's columns

// `count` panels from panel `panel` on, for `queries` queries.
AK_AVX512_VNNI_INLINE void score_tile(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales, size_t width,
                          size_t panel, const uint8_t *ahead, const int count, const int queries) {
    const size_t panel_size = width * AK_PANEL;
    __m512i sums[TOGETHER][4];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int p = 0; p < count; p++) sums[t][p] = _mm512_set1_epi32(query[t].start);
#pragma clang loop unroll(disable)
    for (size_t d = 0; d < width; d += 4) {
        __m512i keys[4];
#pragma unroll
        for (int p = 0; p < count; p++) {
            keys[p] = _mm512_loadu_si512(k + (panel + (size_t)p) * panel_size + d * AK_PANEL);
            if (queries <= 3) _mm_prefetch((const char *)ahead + (size_t)p * panel_size + d * AK_PANEL, _MM_HINT_T1);
        }
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m512i four = ak_four_inputs512(q + (size_t)t * AK_Q8_HEAD_DIM + d);
#pragma unroll
            for (int p = 0; p < count; p++) sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], keys[p], four);
        }
    }
#pragma unroll
    for (int p = 0; p < count; p++) {
        const size_t at = (panel + (size_t)p) * AK_PANEL;
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + at)));
#pragma unroll
        for (int t = 0; t < queries; t++)
            _mm512_storeu_ps(scores + (size_t)t * stride + at,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(sums[t][p]), _mm512_mul_ps(_mm512_set1_ps(query[t].scale), scale)));
    }
}

AK_AVX512_VNNI_INLINE void score_panels(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales, size_t width,
                            size_t panels, const uint8_t *next, const int queries) {
    // A few queries wait for memory, which is read faster in one stream.
    const int together = queries <= 3 ? 1 : 4;
    const size_t panel_bytes = width * AK_PANEL, distance = (AHEAD + panel_bytes - 1) / panel_bytes;
    size_t panel = 0;
    for (; panel + (size_t)together <= panels; panel += (size_t)together) {
        const size_t later = panel + distance;
        const uint8_t *ahead = later < panels ? k + later * panel_bytes : next + (later - panels) * panel_bytes;
        score_tile(scores, stride, q, query, k, scales, width, panel, ahead, together, queries);
    }
    for (; panel < panels; panel++) score_tile(scores, stride, q, query, k, scales, width, panel, next, 1, queries);
}

AK_AVX512_VNNI void ak_avx512_q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                                   int32_t head_dim, int32_t panels, int32_t queries, const void *next) {
    (void)kv_type;
    int8_t values[TOGETHER][AK_Q8_HEAD_DIM];
    ak_q8_query query[TOGETHER];
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        for (int32_t i = 0; i < count; i++) ak_avx2_q8_query(values[i], &query[i], q + (size_t)(t + i) * ldq, head_dim);
        AK_FOR_QUERIES(score_panels, count, scores + (size_t)t * stride, stride, values[0], query, k, scales, ak_q8_key_width(head_dim), (size_t)panels,
                       next)
    }
}

// `count` x 16 columns of the values from column `column` on, of `pairs` pairs of positions, for `queries` queries.
AK_AVX512_VNNI_INLINE void value_tile(float *out, size_t ldo, const int16_t *weights, const float *factors, const int8_t *v, size_t head_dim, size_t pairs,
                                      size_t column, const uint8_t *next, const int count, const int queries) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim), distance = (AHEAD + 2 * width - 1) / (2 * width);
    __m512i sums[TOGETHER][8];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int c = 0; c < count; c++) sums[t][c] = _mm512_setzero_si512();
#pragma clang loop unroll(disable)
    for (size_t pair = 0; pair < pairs; pair++) {
        const size_t later = pair + distance;
        const uint8_t *ahead = later < pairs ? (const uint8_t *)v + 2 * later * width : next + 2 * (later - pairs) * width;
        __m512i values[8];
#pragma unroll
        for (int c = 0; c < count; c++) {
            values[c] = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(v + 2 * (pair * width + column + 16 * (size_t)c))));
            if (queries <= 3 && c % 2 == 0) _mm_prefetch((const char *)ahead + 2 * (column + 16 * (size_t)c), _MM_HINT_T1);
        }
#pragma unroll
        for (int t = 0; t < queries; t++) {
            int32_t two;
            memcpy(&two, weights + (size_t)t * AK_ATTENTION_SPAN + 2 * pair, sizeof two);
            const __m512i both = _mm512_set1_epi32(two);
#pragma unroll
            for (int c = 0; c < count; c++) sums[t][c] = _mm512_dpwssd_epi32(sums[t][c], values[c], both);
        }
    }
#pragma unroll
    for (int c = 0; c < count; c++) {
        const size_t left = head_dim - column - 16 * (size_t)c;
        const __mmask16 lanes = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
#pragma unroll
        for (int t = 0; t < queries; t++)
            _mm512_mask_storeu_ps(out + (size_t)t * ldo + column + 16 * (size_t)c, lanes,
                                  _mm512_mul_ps(_mm512_cvtepi32_ps(sums[t][c]), _mm512_set1_ps(factors[t])));
    }
}

AK_AVX512_VNNI_INLINE void value_columns(float *out, size_t ldo, const int16_t *weights, const float *factors, const int8_t *v, size_t head_dim,
                                         size_t pairs, const uint8_t *next, const int queries) {
    size_t column = 0;
    for (; column + 64 <= head_dim; column += 64) value_tile(out, ldo, weights, factors, v, head_dim, pairs, column, next, 4, queries);
    for (; column < head_dim; column += 16) value_tile(out, ldo, weights, factors, v, head_dim, pairs, column, next, 1, queries);
}

// weights * scales, where both are numbers.
AK_AVX512_VNNI_INLINE __m512 scaled_weights(const float *weights, const uint16_t *scales, size_t i) {
    const __m512 product = _mm512_mul_ps(_mm512_loadu_ps(weights + i), _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + i))));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(product, product, _CMP_ORD_Q), product);
}

// ak_portable_q8_weights of whole panels.
AK_AVX512_VNNI_INLINE float whole_weights(int16_t *out, const float *weights, const uint16_t *scales, size_t count) {
    __m512 largest = _mm512_setzero_ps();
    for (size_t i = 0; i < count; i += 16) largest = _mm512_max_ps(scaled_weights(weights, scales, i), largest);
    const float unit = _mm512_reduce_max_ps(largest) / AK_Q8_WEIGHT_MAX;
    const __m512 inverse = _mm512_set1_ps(ak_inverse_scale(unit));
    for (size_t i = 0; i < count; i += 16) {
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(scaled_weights(weights, scales, i), inverse), _mm512_set1_ps(AK_Q8_WEIGHT_MAX)));
        _mm256_storeu_si256((__m256i *)(out + i), _mm512_cvtepi32_epi16(rounded));
    }
    return unit;
}

AK_AVX512_VNNI void ak_avx512_q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                                         const uint16_t *scales, ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries,
                                         const void *next) {
    (void)kv_type;
    int16_t weights[TOGETHER][AK_ATTENTION_SPAN];
    float factors[TOGETHER];
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        for (int32_t i = 0; i < count; i++)
            factors[i] = inverse[t + i] * whole_weights(weights[i], scores + (size_t)(t + i) * stride, scales, stride);
        AK_FOR_QUERIES(value_columns, count, out + (size_t)t * ldo, ldo, weights[0], factors, v, (size_t)head_dim, ((size_t)positions + 1) / 2, next)
    }
}
#endif
