// Scores of 8-bit keys by AVX-512's 8-bit dot products.
#include "avx2.h"
#include "avx512.h"

#if AK_X86
#define AHEAD 6144   // bytes of keys that are asked for ahead; see attention_avx512.c
#define TOGETHER 6   // queries that a tile takes, with up to four panels of keys

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
#endif
