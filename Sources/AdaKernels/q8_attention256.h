// Attention with 8-bit keys and values in 256-bit registers, for a file that defines
//   Q8_TARGET, Q8_INLINE   the attributes of its functions
//   Q8_DOT(sums, keys, q)  eight 32-bit sums plus four products each, of stored bytes (+128) and a query's signed ones
//   Q8_START(query)        what sums begin with
//   Q8_ADD_PAIRS(sums, values, weights)   eight 32-bit sums plus two products each of signed 16-bit numbers
//   Q8_SCORES, Q8_COMBINE  the names of the functions that it defines, of ak_attention_parts
#pragma once
#include <string.h>

#include "avx2.h"

#if AK_X86
#define Q8_TOGETHER 6   // queries whose sums, two registers each, stay there
#define Q8_AHEAD 16384   // bytes of keys or values that are asked for ahead, where a few queries wait for memory: the keys of a head's page

Q8_INLINE void q8_panels(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales, size_t width,
                         size_t panels, const uint8_t *next, const int queries) {
    const size_t panel_bytes = width * AK_PANEL, distance = (Q8_AHEAD + panel_bytes - 1) / panel_bytes;
    for (size_t panel = 0; panel < panels; panel++) {
        const size_t later = panel + distance;
        const uint8_t *ahead = later < panels ? k + later * panel_bytes : next + (later - panels) * panel_bytes;
        __m256i sums[Q8_TOGETHER][2];
#pragma unroll
        for (int t = 0; t < queries; t++) sums[t][0] = sums[t][1] = _mm256_set1_epi32(Q8_START(query[t]));
#pragma clang loop unroll(disable)
        for (size_t d = 0; d < width; d += 4) {
            const __m256i *line = (const __m256i *)(k + (panel * width + d) * AK_PANEL);
            const __m256i low = _mm256_loadu_si256(line), high = _mm256_loadu_si256(line + 1);
            if (queries <= 3) _mm_prefetch((const char *)ahead + d * AK_PANEL, _MM_HINT_T1);
#pragma unroll
            for (int t = 0; t < queries; t++) {
                int32_t four;
                memcpy(&four, q + (size_t)t * AK_Q8_HEAD_DIM + d, sizeof four);
                const __m256i values = _mm256_set1_epi32(four);
                sums[t][0] = Q8_DOT(sums[t][0], low, values);
                sums[t][1] = Q8_DOT(sums[t][1], high, values);
            }
        }
        const __m128i *halves = (const __m128i *)(scales + panel * AK_PANEL);
        const __m256 low = _mm256_cvtph_ps(_mm_loadu_si128(halves)), high = _mm256_cvtph_ps(_mm_loadu_si128(halves + 1));
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m256 scale = _mm256_set1_ps(query[t].scale);
            float *out = scores + (size_t)t * stride + panel * AK_PANEL;
            _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t][0]), _mm256_mul_ps(scale, low)));
            _mm256_storeu_ps(out + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t][1]), _mm256_mul_ps(scale, high)));
        }
    }
}

Q8_TARGET void Q8_SCORES(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                         int32_t head_dim, int32_t panels, int32_t queries, const void *next) {
    (void)kv_type;
    int8_t values[Q8_TOGETHER][AK_Q8_HEAD_DIM];
    ak_q8_query query[Q8_TOGETHER];
    for (int32_t t = 0; t < queries; t += Q8_TOGETHER) {
        const int32_t count = queries - t < Q8_TOGETHER ? queries - t : Q8_TOGETHER;
        for (int32_t i = 0; i < count; i++) ak_avx2_q8_query(values[i], &query[i], q + (size_t)(t + i) * ldq, head_dim);
        AK_FOR_QUERIES(q8_panels, count, scores + (size_t)t * stride, stride, values[0], query, k, scales, ak_q8_key_width(head_dim), (size_t)panels,
                       next)
    }
}

// `count` x 8 columns of the values from column `column` on, of `pairs` pairs of positions, for `queries` queries.
Q8_INLINE void q8_columns(float *out, size_t ldo, const int16_t *weights, const float *factors, const int8_t *v, size_t head_dim, size_t pairs,
                          size_t column, const uint8_t *next, const int count, const int queries) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim), distance = (Q8_AHEAD + 2 * width - 1) / (2 * width);
    __m256i sums[Q8_TOGETHER][8];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int c = 0; c < count; c++) sums[t][c] = _mm256_setzero_si256();
#pragma clang loop unroll(disable)
    for (size_t pair = 0; pair < pairs; pair++) {
        const int8_t *row = v + 2 * (pair * width + column);
        if (queries <= 3) {
            const size_t later = pair + distance;
            const uint8_t *ahead = later < pairs ? (const uint8_t *)v + 2 * later * width : next + 2 * (later - pairs) * width;
            for (int c = 0; c < count; c += 4) _mm_prefetch((const char *)ahead + 2 * (column + 8 * (size_t)c), _MM_HINT_T1);
        }
        __m256i both[Q8_TOGETHER];
#pragma unroll
        for (int t = 0; t < queries; t++) {
            int32_t two;
            memcpy(&two, weights + (size_t)t * AK_ATTENTION_SPAN + 2 * pair, sizeof two);
            both[t] = _mm256_set1_epi32(two);
        }
#pragma unroll
        for (int c = 0; c < count; c++) {
            const __m256i values = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(row + 16 * c)));
#pragma unroll
            for (int t = 0; t < queries; t++) sums[t][c] = Q8_ADD_PAIRS(sums[t][c], values, both[t]);
        }
    }
#pragma unroll
    for (int c = 0; c < count; c++) {
        const size_t first = column + 8 * (size_t)c;
        if (first >= head_dim) break;
#pragma unroll
        for (int t = 0; t < queries; t++)
            ak_store256(out + (size_t)t * ldo, head_dim, first, _mm256_mul_ps(_mm256_cvtepi32_ps(sums[t][c]), _mm256_set1_ps(factors[t])));
    }
}

Q8_INLINE void q8_values(float *out, size_t ldo, const int16_t *weights, const float *factors, const int8_t *v, size_t head_dim, size_t pairs,
                         const uint8_t *next, const int queries) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim);
    const int together = queries == 1 ? 8 : queries <= 3 ? 4 : 2;   // registers across
    size_t column = 0;
    for (; column + 8 * (size_t)together <= width; column += 8 * (size_t)together)
        q8_columns(out, ldo, weights, factors, v, head_dim, pairs, column, next, together, queries);
    for (; column < width; column += 16) q8_columns(out, ldo, weights, factors, v, head_dim, pairs, column, next, 2, queries);
}

Q8_TARGET void Q8_COMBINE(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                          ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)kv_type;
    int16_t weights[Q8_TOGETHER][AK_ATTENTION_SPAN];
    float factors[Q8_TOGETHER];
    for (int32_t t = 0; t < queries; t += Q8_TOGETHER) {
        const int32_t count = queries - t < Q8_TOGETHER ? queries - t : Q8_TOGETHER;
        for (int32_t i = 0; i < count; i++)
            factors[i] = inverse[t + i] * ak_avx2_q8_weights(weights[i], scores + (size_t)(t + i) * stride, scales, stride);
        AK_FOR_QUERIES(q8_values, count, out + (size_t)t * ldo, ldo, weights[0], factors, v, (size_t)head_dim, ((size_t)positions + 1) / 2, next)
    }
}
#endif
