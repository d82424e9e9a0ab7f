// AVX-512 attention of many queries by BF16 dot products: keys, values, queries and weights are rounded to BF16, in pairs; sums are float32.
#include "avx512.h"

#if AK_X86
#include <string.h>

#define BF16 AK_AVX512_BF16
#define BF16_INLINE AK_AVX512_BF16_INLINE

#define TOGETHER 6   // queries that a tile takes, with four panels of keys or 64 columns of values

BF16_INLINE __m512 cached16(const void *data, size_t at, const ak_type type) {
    return type == AK_F32 ? _mm512_loadu_ps((const float *)data + at)
                          : _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)data + at)));
}

// Dimension d of 16 keys at element `at` of the cache, where their panel begins.
BF16_INLINE __m512 keys16(const void *k, size_t at, size_t d, __m512 scales, const ak_type type) {
    if (type != AK_Q8_0) return cached16(k, at + d * AK_PANEL, type);
    const __m512i four = _mm512_loadu_si512((const uint8_t *)k + at + d / 4 * AK_LINE);
    const __m512i bytes = _mm512_and_si512(_mm512_srlv_epi32(four, _mm512_set1_epi32((int)(d % 4 * 8))), _mm512_set1_epi32(255));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(bytes, _mm512_set1_epi32(128))), scales);
}

// 16 values of position s from column d on. 8-bit values of two positions lie side by side.
BF16_INLINE __m512 values16(const void *v, size_t width, size_t d, const uint16_t *scales, size_t s, const ak_type type) {
    if (type != AK_Q8_0) return cached16(v, s * width + d, type);
    const __m256i both = _mm256_loadu_si256((const __m256i *)((const int8_t *)v + s / 2 * 2 * width + 2 * d));
    const __m256i own = _mm256_srai_epi16(s % 2 ? both : _mm256_slli_epi16(both, 8), 8);
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(own)), _mm512_set1_ps(_cvtsh_ss(scales[s])));
}

BF16_INLINE void pairs_of(uint16_t *k_out, uint16_t *v_out, const void *k, const void *v, size_t head_dim, size_t first, size_t end, const ak_type type) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim), key_width = type == AK_Q8_0 ? ak_q8_key_width((int32_t)head_dim) : head_dim;
    const uint16_t *key_scales = (const uint16_t *)((const uint8_t *)k + AK_ATTENTION_SPAN * key_width);
    const uint16_t *value_scales = (const uint16_t *)((const uint8_t *)v + AK_ATTENTION_SPAN * width);
    for (size_t panel = first / AK_PANEL; panel * AK_PANEL < end; panel++) {
        const size_t at = panel * AK_PANEL * head_dim, stored = panel * AK_PANEL * key_width;
        const __m512 scales = type == AK_Q8_0 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(key_scales + panel * AK_PANEL))) : _mm512_setzero_ps();
        for (size_t d = 0; d < head_dim; d += 2) {
            const __m512 even = keys16(k, stored, d, scales, type), odd = keys16(k, stored, d + 1, scales, type);
            _mm512_storeu_si512(k_out + at + d * AK_PANEL, ak_bf16_pairs512(even, odd));
        }
        for (size_t s = panel * AK_PANEL; s < (panel + 1) * AK_PANEL; s += 2) {
            for (size_t d = 0; d < width; d += 16) {
                // Behind the last position there may be anything.
                const __m512 even = s < end ? values16(v, width, d, value_scales, s, type) : _mm512_setzero_ps();
                const __m512 odd = s + 1 < end ? values16(v, width, d, value_scales, s + 1, type) : _mm512_setzero_ps();
                _mm512_storeu_si512(v_out + s * width + 2 * d, ak_bf16_pairs512(even, odd));
            }
        }
    }
}

BF16 void ak_avx512_attention_pairs(uint16_t *k_out, uint16_t *v_out, const void *k, const void *v, ak_type kv_type, int32_t head_dim,
                                    int32_t first, int32_t end) {
    if (kv_type == AK_F32) pairs_of(k_out, v_out, k, v, (size_t)head_dim, (size_t)first, (size_t)end, AK_F32);
    else if (kv_type == AK_Q8_0) pairs_of(k_out, v_out, k, v, (size_t)head_dim, (size_t)first, (size_t)end, AK_Q8_0);
    else pairs_of(k_out, v_out, k, v, (size_t)head_dim, (size_t)first, (size_t)end, AK_F16);
}

BF16_INLINE __m512bh pair_at(const uint16_t *row, size_t pair) {
    int32_t both;
    memcpy(&both, row + 2 * pair, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

// sums[t][i] += the products of `pairs` pairs of row t with columns: `line` i of a pair lies i * apart bytes behind the first.
BF16_INLINE void dot_tile(__m512 sums[TOGETHER][4], const uint16_t *rows, size_t ldr, const uint8_t *lines, size_t apart, size_t step, size_t pairs,
                          const int count, const int queries) {
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int i = 0; i < count; i++) sums[t][i] = _mm512_setzero_ps();
    // Not unrolled: a compiler that moves later loads ahead runs out of registers for the sums.
#pragma clang loop unroll(disable)
    for (size_t pair = 0; pair < pairs; pair++, lines += step) {
        __m512bh columns[4];
#pragma unroll
        for (int i = 0; i < count; i++) columns[i] = (__m512bh)_mm512_loadu_si512(lines + (size_t)i * apart);
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m512bh value = pair_at(rows + (size_t)t * ldr, pair);
#pragma unroll
            for (int i = 0; i < count; i++) sums[t][i] = _mm512_dpbf16_ps(sums[t][i], columns[i], value);
        }
    }
}

BF16_INLINE void score_panels(float *scores, size_t stride, const uint16_t *q, size_t ldq, const uint8_t *k, size_t head_dim, int32_t panels,
                              const int queries) {
    const size_t panel_bytes = head_dim * AK_PANEL * 2;
    for (int32_t panel = 0; panel < panels; panel += 4) {
        __m512 sums[TOGETHER][4];
        const int count = panels - panel < 4 ? panels - panel : 4;
        const uint8_t *lines = k + (size_t)panel * panel_bytes;
        switch (count) {
            case 1: dot_tile(sums, q, ldq, lines, panel_bytes, AK_LINE, head_dim / 2, 1, queries); break;
            case 2: dot_tile(sums, q, ldq, lines, panel_bytes, AK_LINE, head_dim / 2, 2, queries); break;
            case 3: dot_tile(sums, q, ldq, lines, panel_bytes, AK_LINE, head_dim / 2, 3, queries); break;
            default: dot_tile(sums, q, ldq, lines, panel_bytes, AK_LINE, head_dim / 2, 4, queries);
        }
        for (int t = 0; t < queries; t++)
            for (int i = 0; i < count; i++) _mm512_storeu_ps(scores + (size_t)t * stride + ((size_t)panel + (size_t)i) * AK_PANEL, sums[t][i]);
    }
}

BF16_INLINE void value_columns(float *out, size_t ldo, const uint16_t *weights, size_t ldw, const float *inverse, const uint8_t *v, size_t head_dim,
                               size_t pairs, const int queries) {
    const size_t row_bytes = (size_t)ak_value_width((int32_t)head_dim) * 4;
    for (size_t column = 0; column < head_dim; column += 64) {
        __m512 sums[TOGETHER][4];
        const size_t left = head_dim - column;
        const uint8_t *lines = v + column * 4;
        const int count = left >= 64 ? 4 : (int)((left + 15) / 16);
        switch (count) {
            case 1: dot_tile(sums, weights, ldw, lines, AK_LINE, row_bytes, pairs, 1, queries); break;
            case 2: dot_tile(sums, weights, ldw, lines, AK_LINE, row_bytes, pairs, 2, queries); break;
            case 3: dot_tile(sums, weights, ldw, lines, AK_LINE, row_bytes, pairs, 3, queries); break;
            default: dot_tile(sums, weights, ldw, lines, AK_LINE, row_bytes, pairs, 4, queries);
        }
        for (int t = 0; t < queries; t++)
            for (int i = 0; i < count; i++) {
                const size_t rest = left - 16 * (size_t)i;
                const __mmask16 lanes = rest >= 16 ? 0xffff : (__mmask16)((1u << rest) - 1);
                _mm512_mask_storeu_ps(out + (size_t)t * ldo + column + 16 * (size_t)i, lanes, _mm512_mul_ps(sums[t][i], _mm512_set1_ps(inverse[t])));
            }
    }
}

static BF16 void scores(float *out, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                        int32_t panels, int32_t queries, const void *next) {
    (void)scales, (void)kv_type, (void)next;
    uint16_t rounded[TOGETHER][AK_PAIR_HEAD_DIM];
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        ak_bf16_rows512(rounded[0], AK_PAIR_HEAD_DIM, q + (size_t)t * ldq, ldq, (size_t)head_dim, (size_t)head_dim, count);
        AK_FOR_QUERIES(score_panels, count, out + (size_t)t * stride, stride, rounded[0], AK_PAIR_HEAD_DIM, k, (size_t)head_dim, panels)
    }
}

static BF16 void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                         const uint16_t *scales, ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)scales, (void)kv_type, (void)next;
    uint16_t rounded[TOGETHER][AK_ATTENTION_SPAN];
    const size_t pairs = ((size_t)positions + 1) / 2;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        ak_bf16_rows512(rounded[0], AK_ATTENTION_SPAN, scores + (size_t)t * stride, stride, stride, stride, count);
        AK_FOR_QUERIES(value_columns, count, out + (size_t)t * ldo, ldo, rounded[0], AK_ATTENTION_SPAN, inverse + t, v, (size_t)head_dim, pairs)
    }
}

const ak_attention_parts ak_avx512_bf16_attention = {scores, ak_avx512_softmax, combine, AK_QUERY_TILE};
#endif
