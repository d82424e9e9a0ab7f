// Attention of one head, for every instruction set: queries are taken a few at a time, keys a page at a time, whose scores are held in scratch.
//
// A query's result does not depend on the queries it is computed with, nor on who computes its pages: sums run over positions in ascending
// order, a position that only others may see weighs exactly zero, and pages are merged one after another (as in flash-decoding: Dao et al., 2023).
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
        if (logs[t] == -INFINITY) {                // and there were none before it
            logs[t] = part_logs[t];
            memcpy(out, part, (size_t)head_dim * sizeof(float));
            continue;
        }
        const float top = part_logs[t] > logs[t] ? part_logs[t] : logs[t];
        const float mine = expf(logs[t] - top), theirs = expf(part_logs[t] - top), all = mine + theirs;
        logs[t] = top + logf(all);
        const float keep = mine / all, add = theirs / all;
        for (int32_t d = 0; d < head_dim; d++) out[d] = out[d] * keep + part[d] * add;
    }
}

static size_t element_bytes(ak_type type) { return type == AK_F32 ? 4 : type == AK_Q8_0 ? 1 : 2; }

static size_t key_width(ak_type type, int32_t head_dim) { return type == AK_Q8_0 ? ak_q8_key_width(head_dim) : (size_t)head_dim; }

// Bytes of a page's rows of `width` values before their scales.
static size_t row_bytes(ak_type type, size_t width) { return AK_ATTENTION_SPAN * width * element_bytes(type); }

static size_t scale_bytes(ak_type type) { return type == AK_Q8_0 ? AK_ATTENTION_SPAN * sizeof(uint16_t) : 0; }

size_t ak_key_bytes(ak_type type, int32_t head_dim) { return row_bytes(type, key_width(type, head_dim)) + scale_bytes(type); }

size_t ak_value_bytes(ak_type type, int32_t head_dim) { return row_bytes(type, (size_t)ak_value_width(head_dim)) + scale_bytes(type); }

// The scales of the positions from `base` on, behind a page's rows of `width` values; NULL for types without.
static const uint16_t *scales_from(const void *rows, ak_type type, size_t width, int32_t base) {
    return type == AK_Q8_0 ? (const uint16_t *)((const uint8_t *)rows + row_bytes(type, width)) + base : NULL;
}

void ak_page_keys(float *out, const void *k, ak_type type, int32_t head_dim, int32_t panel) {
    const size_t width = key_width(type, head_dim), at = (size_t)panel * AK_PANEL * width;
    const uint16_t *scales = scales_from(k, type, width, panel * AK_PANEL);
    for (size_t d = 0; d < (size_t)head_dim; d++) {
        for (size_t s = 0; s < AK_PANEL; s++) {
            float *value = out + d * AK_PANEL + s;
            if (type == AK_F32) *value = ((const float *)k)[at + d * AK_PANEL + s];
            else if (type == AK_Q8_0) *value = (float)(((const uint8_t *)k)[at + d / 4 * 4 * AK_PANEL + 4 * s + d % 4] - 128) * ak_half_to_float(scales[s]);
            else *value = ak_half_to_float(((const uint16_t *)k)[at + d * AK_PANEL + s]);
        }
    }
}

// The keys first ..< end that a query sees of those before it.
typedef struct { int32_t first, end; } seen_keys;

// What query t sees of `positions` keys: see ak_kernels.attention.
static seen_keys seen_by(int32_t t, int32_t positions, int32_t first, int32_t window) {
    const int64_t own = (int64_t)first + t + 1;
    const int32_t end = first < 0 || own > positions ? positions : (int32_t)own;
    return (seen_keys){window > 0 && window < end ? end - window : 0, end};
}

// The keys skip ..< keys of one page for at most parts->queries queries. `seen` says which of the positions from `page` on query t sees; NULL: all queries
// see all of them.
static void attend(const ak_attention_parts *parts, float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v,
                   ak_type type, int32_t head_dim, int32_t skip, int32_t keys, int32_t page, int32_t queries, const seen_keys *seen, float scale,
                   const void *next, float *scores) {
    // Matrix tiles sum 32 positions at once: beginning anywhere else would let a query's sums depend on what the other queries of its tile see.
    const int32_t base = skip / AK_BLOCK * AK_BLOCK, count = keys - base, panels = (count + AK_PANEL - 1) / AK_PANEL;
    const size_t stride = (size_t)panels * AK_PANEL, size = element_bytes(type);
    const size_t width = key_width(type, head_dim), value_width = (size_t)ak_value_width(head_dim);
    const uint8_t *values = (const uint8_t *)v + (size_t)base * value_width * size;
    float inverse[AK_MOST_QUERIES];
    parts->scores(scores, stride, q, ldq, (const uint8_t *)k + (size_t)base * width * size, scales_from(k, type, width, base), type, head_dim, panels,
                  queries, values);
    for (int32_t t = 0; t < queries; t++) {
        const int32_t first = seen ? seen[t].first - page : skip, end = seen && seen[t].end - page < keys ? seen[t].end - page : keys;
        const int32_t hidden = first > base ? first - base : 0, visible = end - base;
        float *row = scores + (size_t)t * stride;
        if (hidden < visible) {
            const ak_softmax result = parts->softmax(row, stride, hidden, visible, scale);
            inverse[t] = 1.0f / result.sum;
            if (logs != NULL) logs[t] = result.largest + logf(result.sum);
        } else {
            memset(row, 0, stride * sizeof(float));
            inverse[t] = 0;
            if (logs != NULL) logs[t] = -INFINITY;
        }
    }
    // Where nothing is known to come, what has been read costs nothing to ask for again.
    parts->combine(out, ldo, scores, stride, inverse, values, scales_from(v, type, value_width, base), type, head_dim, count, queries,
                   next ? next : values);
}

void ak_attention_with(const ak_attention_parts *parts, float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv,
                       int32_t positions, int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    const size_t width = (size_t)ak_value_width(kv->head_dim);
    float *part = scratch, *scores = part + (size_t)parts->queries * width;
    float logs[AK_MOST_QUERIES], part_logs[AK_MOST_QUERIES];
    seen_keys seen[AK_MOST_QUERIES];
    for (int32_t start = 0; start < queries; start += parts->queries) {
        const int32_t tile = smaller(parts->queries, queries - start);
        for (int32_t t = 0; t < tile; t++) seen[t] = seen_by(start + t, positions, first, window);
        // Later queries see no keys that begin or end earlier.
        const int32_t begin = seen[0].first / AK_ATTENTION_SPAN, end = (seen[tile - 1].end + AK_ATTENTION_SPAN - 1) / AK_ATTENTION_SPAN;
        float *rows = out + (size_t)start * ldo;
        for (int32_t number = begin; number < end; number++) {
            const int32_t page = number * AK_ATTENTION_SPAN, skip = seen[0].first > page ? seen[0].first - page : 0;
            const uint8_t *at = kv->pages[number], *next = number + 1 < end ? (const uint8_t *)kv->pages[number + 1] + kv->keys : NULL;
            const int is_first = number == begin;
            attend(parts, is_first ? rows : part, is_first ? ldo : width, is_first ? logs : part_logs, q + (size_t)start * ldq, ldq, at + kv->keys,
                   at + kv->values, kv->type, kv->head_dim, skip, smaller(seen[tile - 1].end - page, AK_ATTENTION_SPAN), page, tile, seen, scale, next, scores);
            if (!is_first) ak_attention_merge(rows, ldo, logs, part, width, part_logs, tile, kv->head_dim);
        }
    }
}

void ak_attention_span_with(const ak_attention_parts *parts, float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k,
                            const void *v, ak_type kv_type, int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale,
                            const void *next, void *scratch) {
    if (skip >= keys) {
        for (int32_t t = 0; t < queries; t++) {
            memset(out + (size_t)t * ldo, 0, (size_t)head_dim * sizeof(float));
            logs[t] = -INFINITY;
        }
        return;
    }
    for (int32_t start = 0; start < queries; start += parts->queries)
        attend(parts, out + (size_t)start * ldo, ldo, logs + start, q + (size_t)start * ldq, ldq, k, v, kv_type, head_dim, skip, keys, 0,
               smaller(parts->queries, queries - start), NULL, scale, next, scratch);
}
