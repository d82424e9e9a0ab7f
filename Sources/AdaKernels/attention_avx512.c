// AVX-512 attention: scores 16 keys at a time, values 16 of a row at a time, for one to six queries together.
#include "avx2.h"
#include "avx512.h"

#if AK_X86
#include <math.h>

// Bytes of keys or values that are asked for ahead, into the second-level cache, where a few queries wait for memory: as far as single rows of
// weights are, and the first-level cache's prefetches would take the places of what is read.
#define AHEAD 6144
#define TOGETHER 6   // queries that a tile takes, with four panels of keys or of a value's columns

// 16 elements of the cache from element `at` on.
AK_AVX512_INLINE __m512 load16(const void *data, size_t at, const ak_type type) {
    return type == AK_F32 ? _mm512_loadu_ps((const float *)data + at)
                          : _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)data + at)));
}

// `count` panels of keys from panel `panel` on, for `queries` queries.
AK_AVX512_INLINE void score_tile(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const ak_type type,
                                 int32_t head_dim, int32_t panel, const int count, const int queries, const uint8_t *ahead) {
    const size_t panel_size = (size_t)head_dim * AK_PANEL, element = type == AK_F32 ? 4 : 2;
    __m512 sums[TOGETHER][4];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int p = 0; p < count; p++) sums[t][p] = _mm512_setzero_ps();
    // Not unrolled: a compiler that moves later loads ahead runs out of registers for the sums.
#pragma clang loop unroll(disable)
    for (size_t d = 0; d < (size_t)head_dim; d++) {
        __m512 keys[4];
#pragma unroll
        for (int p = 0; p < count; p++) {
            keys[p] = load16(k, (size_t)(panel + p) * panel_size + d * AK_PANEL, type);
            // A few queries wait for memory.
            if (queries <= 3) _mm_prefetch((const char *)ahead + ((size_t)p * panel_size + d * AK_PANEL) * element, _MM_HINT_T1);
        }
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m512 value = _mm512_set1_ps(q[(size_t)t * ldq + d]);
#pragma unroll
            for (int p = 0; p < count; p++) sums[t][p] = _mm512_fmadd_ps(keys[p], value, sums[t][p]);
        }
    }
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int p = 0; p < count; p++) _mm512_storeu_ps(scores + (size_t)t * stride + (size_t)(panel + p) * AK_PANEL, sums[t][p]);
}

AK_AVX512_INLINE void score_panels(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const ak_type type,
                                   int32_t head_dim, int32_t panels, const void *next, const int queries) {
    // A few queries wait for memory: one stream of it is read twice as fast as four.
    const int together = queries <= 3 ? 1 : 4;
    const size_t panel_bytes = (size_t)head_dim * AK_PANEL * (type == AK_F32 ? 4 : 2);
    const int32_t distance = (int32_t)((AHEAD + panel_bytes - 1) / panel_bytes);
    int32_t panel = 0;
    for (; panel + together <= panels; panel += together) {
        const int32_t later = panel + distance;
        const uint8_t *ahead = later < panels ? (const uint8_t *)k + (size_t)later * panel_bytes
                                              : (const uint8_t *)next + (size_t)(later - panels) * panel_bytes;
        score_tile(scores, stride, q, ldq, k, type, head_dim, panel, together, queries, ahead);
    }
    for (; panel < panels; panel++) score_tile(scores, stride, q, ldq, k, type, head_dim, panel, 1, queries, next);
}

// `count` x 16 columns of the values from column `column` on, for `queries` queries.
AK_AVX512_INLINE void value_tile(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                                 const ak_type type, int32_t head_dim, int32_t positions, int32_t column, const uint8_t *next, const int count,
                                 const int queries) {
    const size_t width = (size_t)ak_value_width(head_dim), row_bytes = width * (type == AK_F32 ? 4 : 2);
    const size_t distance = (AHEAD + row_bytes - 1) / row_bytes;
    __m512 sums[TOGETHER][8];
#pragma unroll
    for (int t = 0; t < queries; t++)
#pragma unroll
        for (int c = 0; c < count; c++) sums[t][c] = _mm512_setzero_ps();
#pragma clang loop unroll(disable)
    for (size_t s = 0; s < (size_t)positions; s++) {
        const size_t later = s + distance;
        const uint8_t *ahead = later < (size_t)positions ? (const uint8_t *)v + later * row_bytes : next + (later - (size_t)positions) * row_bytes;
        __m512 values[8];
#pragma unroll
        for (int c = 0; c < count; c++) {
            values[c] = load16(v, s * width + (size_t)(column + 16 * c), type);
            if (queries <= 3 && (type == AK_F32 || c % 2 == 0))
                _mm_prefetch((const char *)ahead + (size_t)(column + 16 * c) * (type == AK_F32 ? 4 : 2), _MM_HINT_T1);
        }
#pragma unroll
        for (int t = 0; t < queries; t++) {
            const __m512 weight = _mm512_set1_ps(scores[(size_t)t * stride + s]);
#pragma unroll
            for (int c = 0; c < count; c++) sums[t][c] = _mm512_fmadd_ps(values[c], weight, sums[t][c]);
        }
    }
#pragma unroll
    for (int c = 0; c < count; c++) {
        const int32_t left = head_dim - column - 16 * c;
        const __mmask16 lanes = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
#pragma unroll
        for (int t = 0; t < queries; t++)
            _mm512_mask_storeu_ps(out + (size_t)t * ldo + column + 16 * c, lanes, _mm512_mul_ps(sums[t][c], _mm512_set1_ps(inverse[t])));
    }
}

AK_AVX512_INLINE void value_columns(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                                    const ak_type type, int32_t head_dim, int32_t positions, const void *next, const int queries) {
    const int together = queries > 3 ? 4 : 8;
    int32_t column = 0;
    for (; column + 16 * together <= head_dim; column += 16 * together)
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, next, together, queries);
    if (together > 4 && column + 64 <= head_dim) {
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, next, 4, queries);
        column += 64;
    }
    if (together > 2 && column + 32 <= head_dim) {
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, next, 2, queries);
        column += 32;
    }
    for (; column < head_dim; column += 16)
        value_tile(out, ldo, scores, stride, inverse, v, type, head_dim, positions, column, next, 1, queries);
}

static AK_AVX512 void scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type,
                             int32_t head_dim, int32_t panels, int32_t queries, const void *next) {
    (void)scales;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *rows = scores + (size_t)t * stride;
        const float *tile = q + (size_t)t * ldq;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) AK_FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F32, head_dim, panels, next)
        else AK_FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F16, head_dim, panels, next)
    }
}

static AK_AVX512 void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                              ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)scales;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *tile = out + (size_t)t * ldo;
        const float *rows = scores + (size_t)t * stride;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) AK_FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F32, head_dim, positions, next)
        else AK_FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F16, head_dim, positions, next)
    }
}

// 2^x with a relative error below 2e-7, for x well below 128; zero below about -150, NaN for NaN.
AK_AVX512_INLINE __m512 exp2_of(__m512 x) {
    const __m512 clamped = _mm512_max_ps(_mm512_set1_ps(-256.0f), x);
    const __m512 r = _mm512_reduce_ps(clamped, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);   // x - floor(x); scalef takes the floor itself
    __m512 p = _mm512_set1_ps(AK_EXP2_5);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP2_4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP2_3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP2_2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP2_1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(AK_EXP2_0));
    return _mm512_scalef_ps(p, clamped);
}

AK_AVX512 ak_softmax ak_avx512_softmax(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale) {
    const __m512 factor = _mm512_set1_ps(scale * AK_LOG2_E);
    const size_t begin = (size_t)hidden / 16 * 16, whole = (size_t)visible / 16 * 16;
    // What is seen of the first and of the last panel; of a single one that is not whole, `rest` alone.
    const __mmask16 head = (__mmask16)(0xffffu << ((size_t)hidden - begin));
    const __mmask16 rest = (__mmask16)(((1u << ((size_t)visible - whole)) - 1) & (begin == whole ? head : 0xffffu));
    __m512 largest[2] = {_mm512_set1_ps(-INFINITY), _mm512_set1_ps(-INFINITY)}, sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (size_t s = begin; s < whole; s += 16) {
        const __mmask16 lanes = s == begin ? head : 0xffff;
        largest[s / 16 % 2] = _mm512_mask_max_ps(largest[s / 16 % 2], lanes, largest[s / 16 % 2], _mm512_mul_ps(_mm512_loadu_ps(scores + s), factor));
    }
    if (rest) largest[0] = _mm512_mask_max_ps(largest[0], rest, largest[0], _mm512_mul_ps(_mm512_loadu_ps(scores + whole), factor));
    const __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1])));
    size_t s = 0;
    for (; s < begin; s += 16) _mm512_storeu_ps(scores + s, _mm512_setzero_ps());
    for (; s < whole; s += 16) {
        const __mmask16 lanes = s == begin ? head : 0xffff;
        const __m512 weight = _mm512_maskz_mov_ps(lanes, exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + s), factor, shift)));
        _mm512_storeu_ps(scores + s, weight);
        sums[s / 16 % 2] = _mm512_add_ps(sums[s / 16 % 2], weight);
    }
    if (rest) {
        const __m512 weight = _mm512_maskz_mov_ps(rest, exp2_of(_mm512_fmsub_ps(_mm512_loadu_ps(scores + s), factor, shift)));
        _mm512_storeu_ps(scores + s, weight);
        sums[0] = _mm512_add_ps(sums[0], weight);
        s += 16;
    }
    for (; s < stride; s += 16) _mm512_storeu_ps(scores + s, _mm512_setzero_ps());
    return (ak_softmax){_mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1])), _mm512_cvtss_f32(shift) / AK_LOG2_E};
}

static const ak_attention_parts float_parts = {scores, ak_avx512_softmax, combine, AK_QUERY_TILE};

static const ak_attention_parts q8_parts = {ak_avx2_q8_scores, ak_avx512_softmax, ak_avx2_q8_combine, AK_QUERY_TILE};
static const ak_attention_parts q8_dot_parts = {ak_avx512_q8_scores, ak_avx512_softmax, ak_avx512_q8_combine, AK_QUERY_TILE};

static const ak_attention_parts *parts_of(ak_type kv_type) {
    if (kv_type == AK_Q8_0) return ak_avx512_has_vnni() ? &q8_dot_parts : &q8_parts;
    return kv_type == AK_BF16 ? &ak_avx512_bf16_attention : &float_parts;
}

void ak_avx512_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                         int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    ak_attention_with(parts_of(kv->type), out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
}

void ak_avx512_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                             int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    ak_attention_span_with(parts_of(kv_type), out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
}

// --------------------------------------------------------------------------------------------------------------- the caches

AK_AVX512_INLINE void store16(void *data, size_t at, __m512 values, const ak_type type) {
    if (type == AK_F32) _mm512_storeu_ps((float *)data + at, values);
    else _mm256_storeu_si256((__m256i *)((uint16_t *)data + at), _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

AK_AVX512_INLINE void store_values(void *v, const ak_type type, const float *value, size_t ldv, size_t head_dim, size_t first,
                                   int32_t count) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim);
    for (int32_t t = 0; t < count; t++) {
        for (size_t d = 0; d < head_dim; d += 16) {
            const __mmask16 lanes = head_dim - d >= 16 ? 0xffff : (__mmask16)((1u << (head_dim - d)) - 1);
            store16(v, (first + (size_t)t) * width + d, _mm512_maskz_loadu_ps(lanes, value + (size_t)t * ldv + d), type);
        }
    }
}

// 16 tokens that fill a key panel.
AK_AVX512_INLINE void store_key_panel(void *k, const ak_type type, const float *key, size_t ldk, size_t head_dim, size_t first) {
    for (size_t d = 0; d < head_dim; d += 16) {
        const size_t columns = head_dim - d >= 16 ? 16 : head_dim - d;
        __m512i rows[16];
        for (size_t t = 0; t < 16; t++)
            rows[t] = _mm512_maskz_loadu_epi32((__mmask16)((1u << columns) - 1), key + t * ldk + d);
        ak_transpose512(rows);
        for (size_t c = 0; c < columns; c++) store16(k, first * head_dim + (d + c) * AK_PANEL, _mm512_castsi512_ps(rows[c]), type);
    }
}

AK_AVX512_INLINE void store_key(void *k, const ak_type type, const float *key, size_t head_dim, size_t position) {
    const size_t at = position / AK_PANEL * AK_PANEL * head_dim + position % AK_PANEL;
    for (size_t d = 0; d < head_dim; d++) {
        if (type == AK_F32) ((float *)k)[at + d * AK_PANEL] = key[d];
        else ((uint16_t *)k)[at + d * AK_PANEL] = _cvtss_sh(key[d], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
}

AK_AVX512_INLINE void store_both(void *k, void *v, const ak_type type, const float *key, size_t ldk, const float *value, size_t ldv,
                                 size_t head_dim, size_t first, int32_t count) {
    store_values(v, type, value, ldv, head_dim, first, count);
    for (int32_t t = 0; t < count;) {
        const size_t position = first + (size_t)t;
        if (position % AK_PANEL == 0 && count - t >= AK_PANEL) {
            store_key_panel(k, type, key + (size_t)t * ldk, ldk, head_dim, position);
            t += AK_PANEL;
        } else {
            store_key(k, type, key + (size_t)t * ldk, head_dim, position);
            t++;
        }
    }
}

AK_AVX512 void ak_avx512_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                                  int32_t head_dim, int32_t first, int32_t count) {
    if (kv_type == AK_Q8_0) ak_avx2_q8_store(k, v, key, ldk, value, ldv, head_dim, first, count);
    else if (kv_type == AK_F32) store_both(k, v, AK_F32, key, ldk, value, ldv, (size_t)head_dim, (size_t)first, count);
    else store_both(k, v, AK_F16, key, ldk, value, ldv, (size_t)head_dim, (size_t)first, count);
}
#endif
