// Attention of many queries on AMX: keys, values, queries and weights are rounded to BF16, in pairs (ak_kernels.attention_pairs), 32 queries at a time;
// sums are float32.
#include "amx.h"

#if AK_X86
#define QUERIES (2 * AK_AMX_ROWS)

// scores [32][stride]: of the keys of `panels` panels for one or two groups of queries, two panels at a time.
AK_AMX_INLINE void score_panels(float *scores, size_t stride, const uint16_t *q, const uint8_t *k, size_t head_dim, int32_t panels, const int groups) {
    const size_t panel_bytes = head_dim * AK_PANEL * 2, score_bytes = stride * sizeof(float), q_bytes = AK_PAIR_HEAD_DIM * 2;
    for (int32_t panel = 0; panel < panels; panel += 2) {
        const int two = panel + 1 < panels;
        _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
        for (size_t d = 0; d < head_dim; d += AK_BLOCK) {
            const uint8_t *keys = k + (size_t)panel * panel_bytes + d * AK_PANEL * 2;
            _tile_loadd(4, q + d, q_bytes);
            _tile_loadd(6, keys, AK_LINE);
            _tile_dpbf16ps(0, 4, 6);
            if (two) {
                _tile_loadd(7, keys + panel_bytes, AK_LINE);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (groups > 1) {
                _tile_loadd(5, q + AK_AMX_ROWS * AK_PAIR_HEAD_DIM + d, q_bytes);
                _tile_dpbf16ps(2, 5, 6);
                if (two) _tile_dpbf16ps(3, 5, 7);
            }
        }
        float *at = scores + (size_t)panel * AK_PANEL;
        _tile_stored(0, at, score_bytes);
        if (two) _tile_stored(1, at + AK_PANEL, score_bytes);
        if (groups > 1) {
            _tile_stored(2, at + AK_AMX_ROWS * stride, score_bytes);
            if (two) _tile_stored(3, at + AK_AMX_ROWS * stride + AK_PANEL, score_bytes);
        }
    }
}

static AK_AMX void scores(float *out, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                          int32_t panels, int32_t queries, const void *next) {
    (void)scales, (void)kv_type, (void)next;
    // Rows of queries that there are none of are multiplied as well; nobody reads what comes of them.
    _Alignas(AK_LINE) uint16_t rounded[QUERIES][AK_PAIR_HEAD_DIM];
    ak_bf16_rows512(rounded[0], AK_PAIR_HEAD_DIM, q, ldq, (size_t)head_dim, (size_t)head_dim, queries);
    if (queries > AK_AMX_ROWS) score_panels(out, stride, rounded[0], k, (size_t)head_dim, panels, 2);
    else score_panels(out, stride, rounded[0], k, (size_t)head_dim, panels, 1);
}

// results [32][32]: two columns of 16 values of one or two groups, over `pairs` pairs of positions in blocks of 16, of which the last may be `rest`.
AK_AMX_INLINE void value_columns(float results[QUERIES][2 * AK_PANEL], const uint16_t *weights, const uint8_t *v, size_t row_bytes, size_t whole,
                                 const uint8_t *rest, const int groups) {
    const size_t weight_bytes = AK_ATTENTION_SPAN * 2;
    _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
    for (size_t block = 0; block < whole + (rest != NULL); block++, v += AK_AMX_ROWS * row_bytes) {
        const uint8_t *values = block < whole ? v : rest;
        const size_t bytes = block < whole ? row_bytes : 2 * AK_LINE;
        _tile_loadd(4, weights + block * AK_BLOCK, weight_bytes);
        _tile_loadd(6, values, bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, values + AK_LINE, bytes);
        _tile_dpbf16ps(1, 4, 7);
        if (groups > 1) {
            _tile_loadd(5, weights + AK_AMX_ROWS * AK_ATTENTION_SPAN + block * AK_BLOCK, weight_bytes);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, results[0], sizeof results[0]);
    _tile_stored(1, results[0] + AK_PANEL, sizeof results[0]);
    if (groups > 1) {
        _tile_stored(2, results[AK_AMX_ROWS], sizeof results[0]);
        _tile_stored(3, results[AK_AMX_ROWS] + AK_PANEL, sizeof results[0]);
    }
}

static AK_AMX void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                           const uint16_t *scales, ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)scales, (void)kv_type, (void)next;
    _Alignas(AK_LINE) uint16_t rounded[QUERIES][AK_ATTENTION_SPAN];
    _Alignas(AK_LINE) uint8_t rest[AK_AMX_ROWS][2 * AK_LINE];
    _Alignas(AK_LINE) float results[QUERIES][2 * AK_PANEL];
    const size_t row_bytes = (size_t)head_dim * 4, panels = ((size_t)positions + AK_PANEL - 1) / AK_PANEL, whole = panels / 2;
    ak_bf16_rows512(rounded[0], AK_ATTENTION_SPAN, scores, stride, stride, (panels + 1) / 2 * AK_BLOCK, queries);
    for (size_t column = 0; column < (size_t)head_dim; column += 2 * AK_PANEL) {
        const uint8_t *values = (const uint8_t *)v + column * 4;
        if (panels % 2) {   // a last panel alone: eight pairs, and what lies behind them may be anything
            memset(rest, 0, sizeof rest);
            for (size_t pair = 0; pair < AK_PANEL / 2; pair++) memcpy(rest[pair], values + (whole * AK_AMX_ROWS + pair) * row_bytes, sizeof rest[pair]);
        }
        if (queries > AK_AMX_ROWS) value_columns(results, rounded[0], values, row_bytes, whole, panels % 2 ? rest[0] : NULL, 2);
        else value_columns(results, rounded[0], values, row_bytes, whole, panels % 2 ? rest[0] : NULL, 1);
        for (int32_t t = 0; t < queries; t++) {
            const __m512 factor = _mm512_set1_ps(inverse[t]);
            float *to = out + (size_t)t * ldo + column;
            _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_load_ps(results[t]), factor));
            _mm512_storeu_ps(to + AK_PANEL, _mm512_mul_ps(_mm512_load_ps(results[t] + AK_PANEL), factor));
        }
    }
}

static const ak_attention_parts parts = {scores, ak_avx512_softmax, combine, QUERIES};

// What tiles multiply: pairs, of heads that are whole blocks.
static int takes(ak_type kv_type, int32_t head_dim) { return kv_type == AK_BF16 && head_dim % AK_BLOCK == 0; }

AK_AMX void ak_amx_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                             int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    if (!takes(kv->type, kv->head_dim)) {
        ak_avx512_attention(out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
        return;
    }
    ak_amx_shape(AK_AMX_ROWS, AK_AMX_ROWS);
    ak_attention_with(&parts, out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
    _tile_release();
}

AK_AMX void ak_amx_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                                  int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    if (!takes(kv_type, head_dim)) {
        ak_avx512_attention_span(out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
        return;
    }
    ak_amx_shape(AK_AMX_ROWS, AK_AMX_ROWS);
    ak_attention_span_with(&parts, out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
    _tile_release();
}
#endif
