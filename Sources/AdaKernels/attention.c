// Attention of one head, for every instruction set: queries are taken a few at a time, their scores over all visible keys held in scratch.
//
// A query's result does not depend on the queries it is computed with: sums run over positions in ascending order, and a position
// that only others may see weighs exactly zero.
#include "internal.h"

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

size_t ak_attention_scratch(int32_t positions, int32_t head_dim) {
    (void)head_dim;
    const size_t panels = positions > 0 ? ((size_t)positions + AK_PANEL - 1) / AK_PANEL : 1;
    return panels * AK_PANEL * AK_QUERY_TILE * sizeof(float);
}

void ak_attention_with(const ak_attention_parts *parts, float *out, size_t ldo, const float *q, size_t ldq, const void *k, const void *v,
                       ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, int32_t first, float scale, void *scratch) {
    float *scores = scratch;
    float inverse[AK_QUERY_TILE];
    for (int32_t start = 0; start < queries; start += AK_QUERY_TILE) {
        const int32_t tile = smaller(AK_QUERY_TILE, queries - start);
        const int64_t last_visible = (int64_t)first + start + tile;
        const int32_t keys = first < 0 || last_visible > positions ? positions : (int32_t)last_visible;
        const int32_t panels = (keys + AK_PANEL - 1) / AK_PANEL;
        const size_t stride = (size_t)panels * AK_PANEL;
        const float *tile_q = q + (size_t)start * ldq;
        parts->scores(scores, stride, tile_q, ldq, k, kv_type, head_dim, panels, tile);
        for (int32_t t = 0; t < tile; t++) {
            const int64_t visible = (int64_t)first + start + t + 1;
            const int32_t limit = first < 0 || visible > keys ? keys : (int32_t)visible;
            const float sum = parts->softmax(scores + (size_t)t * stride, stride, limit, scale);
            inverse[t] = limit > 0 ? 1.0f / sum : 0.0f;
        }
        parts->combine(out + (size_t)start * ldo, ldo, scores, stride, inverse, v, kv_type, head_dim, keys, tile);
    }
}
