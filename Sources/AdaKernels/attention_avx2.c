// AVX2 attention: scores 16 keys at a time, values 16 of a row at a time, for one to six queries together.
#include "avx2.h"

#if AK_X86
#include <math.h>

#define TOGETHER 6   // queries whose sums stay in registers

// 8 elements of the cache from element `at` on.
AK_AVX2_INLINE __m256 load8(const void *data, size_t at, const ak_type type) {
    return type == AK_F32 ? _mm256_loadu_ps((const float *)data + at)
                          : _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)data + at)));
}

AK_AVX2_INLINE void score_panels(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const ak_type type,
                                 int32_t head_dim, int32_t panels, const int queries) {
    for (size_t panel = 0; panel < (size_t)panels; panel++) {
        __m256 sums[TOGETHER][2];
#pragma unroll
        for (int t = 0; t < queries; t++) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
        // Not unrolled: else the sums leave the registers.
#pragma clang loop unroll(disable)
        for (size_t d = 0; d < (size_t)head_dim; d++) {
            const size_t at = (panel * (size_t)head_dim + d) * AK_PANEL;
            const __m256 low = load8(k, at, type), high = load8(k, at + 8, type);
#pragma unroll
            for (int t = 0; t < queries; t++) {
                const __m256 value = _mm256_broadcast_ss(q + (size_t)t * ldq + d);
                sums[t][0] = _mm256_fmadd_ps(low, value, sums[t][0]);
                sums[t][1] = _mm256_fmadd_ps(high, value, sums[t][1]);
            }
        }
#pragma unroll
        for (int t = 0; t < queries; t++) {
            _mm256_storeu_ps(scores + (size_t)t * stride + panel * AK_PANEL, sums[t][0]);
            _mm256_storeu_ps(scores + (size_t)t * stride + panel * AK_PANEL + 8, sums[t][1]);
        }
    }
}

// `count` x 8 columns of the values from column `column` on.
AK_AVX2_INLINE void value_tile(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                               const ak_type type, int32_t head_dim, int32_t positions, int32_t column, const int count,
                               const int queries) {
    const size_t width = (size_t)ak_value_width(head_dim);
    __m256 sums[TOGETHER][8];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int c = 0; c < count; c++) sums[t][c] = _mm256_setzero_ps();
#pragma clang loop unroll(disable)
    for (size_t s = 0; s < (size_t)positions; s++) {
        __m256 values[8];
#pragma unroll
        for (int c = 0; c < count; c++) values[c] = load8(v, s * width + (size_t)(column + 8 * c), type);
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m256 weight = _mm256_broadcast_ss(scores + (size_t)t * stride + s);
#pragma unroll
            for (int c = 0; c < count; c++) sums[t][c] = _mm256_fmadd_ps(values[c], weight, sums[t][c]);
        }
    }
#pragma unroll
    for (int c = 0; c < count; c++) {
        const int32_t first = column + 8 * c;
        if (first >= head_dim) break;
#pragma unroll
        for (int t = 0; t < queries; t++)
            ak_store256(out + (size_t)t * ldo, (size_t)head_dim, (size_t)first, _mm256_mul_ps(sums[t][c], _mm256_set1_ps(inverse[t])));
    }
}

AK_AVX2_INLINE void value_columns(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                                  const ak_type type, int32_t head_dim, int32_t positions, const int queries) {
    const int32_t width = ak_value_width(head_dim);
    const int together = queries == 1 ? 8 : queries == 2 ? 4 : 2;   // registers across
    int32_t column = 0;
    for (; column + 8 * together <= width; column += 8 * together)
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, together, queries);
    for (; column < width; column += 16)
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, 2, queries);
}

static AK_AVX2 void scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                           int32_t head_dim, int32_t panels, int32_t queries, const void *next) {
    (void)scales, (void)next;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *rows = scores + (size_t)t * stride;
        const float *tile = q + (size_t)t * ldq;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) AK_FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F32, head_dim, panels)
        else AK_FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F16, head_dim, panels)
    }
}

static AK_AVX2 void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                            ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)scales, (void)next;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *tile = out + (size_t)t * ldo;
        const float *rows = scores + (size_t)t * stride;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) AK_FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F32, head_dim, positions)
        else AK_FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F16, head_dim, positions)
    }
}

// The lanes of scores s … s+7 that lie in hidden ..< visible.
AK_AVX2_INLINE __m256i seen_lanes(size_t s, int32_t hidden, int32_t visible) {
    const __m256i lanes = ak_lanes256((size_t)visible, s);
    return s < (size_t)hidden ? _mm256_andnot_si256(ak_lanes256((size_t)hidden, s), lanes) : lanes;
}

static AK_AVX2 ak_softmax softmax(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale) {
    const __m256 factor = _mm256_set1_ps(scale), lowest = _mm256_set1_ps(-INFINITY);
    __m256 largest = lowest, sum = _mm256_setzero_ps();
    const size_t begin = (size_t)hidden / 8 * 8;
    size_t s = 0;
    for (; s < begin; s += 8) _mm256_storeu_ps(scores + s, _mm256_setzero_ps());
    for (; s < (size_t)visible; s += 8) {
        const __m256 lanes = _mm256_castsi256_ps(seen_lanes(s, hidden, visible));
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(scores + s), factor);
        largest = _mm256_max_ps(largest, _mm256_blendv_ps(lowest, scaled, lanes));
    }
    const __m256 shift = _mm256_set1_ps(ak_max256(largest));
    for (s = begin; s < (size_t)visible; s += 8) {
        const __m256 lanes = _mm256_castsi256_ps(seen_lanes(s, hidden, visible));
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(scores + s), factor);
        const __m256 weight = _mm256_and_ps(lanes, ak_exp256(_mm256_sub_ps(scaled, shift)));
        _mm256_storeu_ps(scores + s, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    for (; s < stride; s += 8) _mm256_storeu_ps(scores + s, _mm256_setzero_ps());
    return (ak_softmax){ak_sum256(sum), _mm256_cvtss_f32(shift)};
}

static const ak_attention_parts float_parts = {scores, softmax, combine, AK_QUERY_TILE};
static const ak_attention_parts q8_parts = {ak_avx2_q8_scores, softmax, ak_avx2_q8_combine, AK_QUERY_TILE};
static const ak_attention_parts vex_parts = {ak_vex_q8_scores, softmax, ak_vex_q8_combine, AK_QUERY_TILE};
static const ak_attention_parts evex_parts = {ak_evex_q8_scores, softmax, ak_evex_q8_combine, AK_QUERY_TILE};

static const ak_attention_parts *parts_of(ak_type kv_type) { return kv_type == AK_Q8_0 ? &q8_parts : &float_parts; }
static const ak_attention_parts *vnni_parts_of(ak_type kv_type) {
    return kv_type != AK_Q8_0 ? &float_parts : ak_has_avxvnni() ? &vex_parts : &evex_parts;
}

void ak_avx2_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                       int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    ak_attention_with(parts_of(kv->type), out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
}

void ak_avx2_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                             int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    ak_attention_span_with(parts_of(kv_type), out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
}

void ak_avxvnni_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                          int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    ak_attention_with(vnni_parts_of(kv->type), out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
}

void ak_avxvnni_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                               int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    ak_attention_span_with(vnni_parts_of(kv_type), out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
}

AK_AVX2 void ak_avx2_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                              int32_t head_dim, int32_t first, int32_t count) {
    if (kv_type == AK_F32) {
        ak_portable_store_kv(k, v, kv_type, key, ldk, value, ldv, head_dim, first, count);
        return;
    }
    if (kv_type == AK_Q8_0) {
        ak_avx2_q8_store(k, v, key, ldk, value, ldv, head_dim, first, count);
        return;
    }
    const size_t dims = (size_t)head_dim, width = (size_t)ak_value_width(head_dim);
    for (size_t t = 0; t < (size_t)count; t++) {
        const size_t position = (size_t)first + t;
        uint16_t *keys = (uint16_t *)k + position / AK_PANEL * AK_PANEL * dims + position % AK_PANEL;
        for (size_t d = 0; d < dims; d++)
            keys[d * AK_PANEL] = _cvtss_sh(key[t * ldk + d], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        for (size_t d = 0; d < width; d += 8) {
            const __m256 eight = d < dims ? ak_load256(value + t * ldv, dims, d) : _mm256_setzero_ps();
            _mm_storeu_si128((__m128i *)((uint16_t *)v + position * width + d),
                             _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        }
    }
}
#endif
