// Attention of one head, for every instruction set: queries are taken a few at a time, keys a span at a time, whose scores are held in scratch.
//
// A query's result does not depend on the queries it is computed with, nor on who computes its spans: sums run over positions in ascending
// order, a position that only others may see weighs exactly zero, and spans, which begin at fixed positions, are merged one after another
// (as in flash-decoding: Dao et al., 2023).
#include "internal.h"

static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

size_t ak_attention_scratch(int32_t positions, int32_t head_dim) {
    const int32_t keys = smaller(positions, AK_ATTENTION_SPAN);
    const size_t panels = keys > 0 ? ((size_t)keys + AK_PANEL - 1) / AK_PANEL : 1;
    return (panels * AK_PANEL + (size_t)ak_value_width(head_dim)) * AK_MOST_QUERIES * sizeof(float);
}

void ak_attention_merge(float *out, size_t ldo, float *logs, const float *part, size_t ldp, const float *part_logs, int32_t queries,
                        int32_t head_dim) {
    for (int32_t t = 0; t < queries; t++, out += ldo, part += ldp) {
        if (part_logs[t] == -INFINITY) continue;   // the part has no keys for this query
        const float top = part_logs[t] > logs[t] ? part_logs[t] : logs[t];
        const float mine = expf(logs[t] - top), theirs = expf(part_logs[t] - top), all = mine + theirs;
        logs[t] = top + logf(all);
        const float keep = mine / all, add = theirs / all;
        for (int32_t d = 0; d < head_dim; d++) out[d] = out[d] * keep + part[d] * add;
    }
}

// Keys begin ..< end for at most parts->queries queries, of which query t sees those before `first + t + 1` (all if first < 0).
static void attend(const ak_attention_parts *parts, float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k,
                   const void *v, ak_type kv_type, int32_t head_dim, int32_t begin, int32_t end, int32_t queries, int64_t first, float scale,
                   const void *next, float *scores) {
    const int32_t keys = end - begin, panels = (keys + AK_PANEL - 1) / AK_PANEL;
    const size_t stride = (size_t)panels * AK_PANEL, size = kv_type == AK_F32 ? 4 : 2;
    const uint8_t *values = (const uint8_t *)v + (size_t)begin * (size_t)ak_value_width(head_dim) * size;
    float inverse[AK_MOST_QUERIES];
    parts->scores(scores, stride, q, ldq, (const uint8_t *)k + (size_t)begin * (size_t)head_dim * size, kv_type, head_dim, panels, queries, values);
    for (int32_t t = 0; t < queries; t++) {
        const int64_t visible = first < 0 ? keys : first + t + 1 - begin;
        const int32_t limit = visible < 0 ? 0 : visible > keys ? keys : (int32_t)visible;
        const ak_softmax result = parts->softmax(scores + (size_t)t * stride, stride, limit, scale);
        inverse[t] = limit > 0 ? 1.0f / result.sum : 0.0f;
        if (logs != NULL) logs[t] = limit > 0 ? result.largest + logf(result.sum) : -INFINITY;
    }
    // Where nothing is known to come, what has been read costs nothing to ask for again.
    parts->combine(out, ldo, scores, stride, inverse, values, kv_type, head_dim, keys, queries, next ? next : values);
}

// The keys from `position` on, if there are any.
static const void *later_keys(const void *k, ak_type kv_type, int32_t head_dim, int32_t position, int32_t positions) {
    return position < positions ? (const uint8_t *)k + (size_t)position * (size_t)head_dim * (kv_type == AK_F32 ? 4 : 2) : NULL;
}

void ak_attention_with(const ak_attention_parts *parts, float *out, size_t ldo, const float *q, size_t ldq, const void *k, const void *v,
                       ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, int32_t first, float scale, void *scratch) {
    const size_t width = (size_t)ak_value_width(head_dim);
    float *part = scratch, *scores = part + (size_t)parts->queries * width;
    float logs[AK_MOST_QUERIES], part_logs[AK_MOST_QUERIES];
    for (int32_t start = 0; start < queries; start += parts->queries) {
        const int32_t tile = smaller(parts->queries, queries - start);
        const int64_t seen = first < 0 ? -1 : (int64_t)first + start, last_visible = seen + tile;
        const int32_t keys = first < 0 || last_visible > positions ? positions : (int32_t)last_visible;
        float *rows = out + (size_t)start * ldo;
        const float *tile_q = q + (size_t)start * ldq;
        const int32_t one_span = keys <= AK_ATTENTION_SPAN;
        attend(parts, rows, ldo, one_span ? NULL : logs, tile_q, ldq, k, v, kv_type, head_dim, 0, smaller(keys, AK_ATTENTION_SPAN), tile, seen,
               scale, later_keys(k, kv_type, head_dim, AK_ATTENTION_SPAN, keys), scores);
        for (int32_t begin = AK_ATTENTION_SPAN; begin < keys; begin += AK_ATTENTION_SPAN) {
            attend(parts, part, width, part_logs, tile_q, ldq, k, v, kv_type, head_dim, begin, smaller(keys, begin + AK_ATTENTION_SPAN), tile,
                   seen, scale, later_keys(k, kv_type, head_dim, begin + AK_ATTENTION_SPAN, keys), scores);
            ak_attention_merge(rows, ldo, logs, part, width, part_logs, tile, head_dim);
        }
    }
}

void ak_attention_span_with(const ak_attention_parts *parts, float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k,
                            const void *v, ak_type kv_type, int32_t head_dim, int32_t begin, int32_t end, int32_t queries, float scale,
                            const void *next, void *scratch) {
    for (int32_t start = 0; start < queries; start += parts->queries)
        attend(parts, out + (size_t)start * ldo, ldo, logs + start, q + (size_t)start * ldq, ldq, k, v, kv_type, head_dim, begin, end,
               smaller(parts->queries, queries - start), -1, scale, next, scratch);
}
