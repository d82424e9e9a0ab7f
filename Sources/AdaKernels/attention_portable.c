// Attention and the key and value caches in plain C.
#include <math.h>
#include <string.h>

#include "internal.h"

static void load16(float *out, const void *data, ak_type type, size_t at) {
    if (type == AK_F32) {
        memcpy(out, (const float *)data + at, AK_PANEL * sizeof(float));
    } else {
        for (size_t i = 0; i < AK_PANEL; i++) out[i] = ak_half_to_float(((const uint16_t *)data)[at + i]);
    }
}

void ak_portable_q8_query(int8_t *out, ak_q8_query *query, const float *q, int32_t head_dim) {
    float largest = 0;
    for (int32_t d = 0; d < head_dim; d++) {
        if (fabsf(q[d]) > largest) largest = fabsf(q[d]);
    }
    query->scale = largest / 127;
    const float inverse = ak_inverse_scale(query->scale);
    int32_t sum = 0;
    for (int32_t d = 0; d < (int32_t)ak_q8_key_width(head_dim); d++) {
        out[d] = d < head_dim ? ak_q8_value(q[d] * inverse) : 0;
        sum += out[d];
    }
    query->start = -128 * sum;
}

static void q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const uint8_t *k, const uint16_t *scales, int32_t head_dim,
                      int32_t panels, int32_t queries) {
    const size_t width = ak_q8_key_width(head_dim);
    int8_t values[AK_Q8_HEAD_DIM];
    for (int32_t t = 0; t < queries; t++) {
        ak_q8_query query;
        ak_portable_q8_query(values, &query, q + (size_t)t * ldq, head_dim);
        for (size_t panel = 0; panel < (size_t)panels; panel++) {
            int32_t sums[AK_PANEL];
            for (size_t s = 0; s < AK_PANEL; s++) sums[s] = query.start;
            for (size_t d = 0; d < width; d += 4) {
                const uint8_t *line = k + (panel * width + d) * AK_PANEL;
                for (size_t s = 0; s < AK_PANEL; s++)
                    for (size_t i = 0; i < 4; i++) sums[s] += line[4 * s + i] * values[d + i];
            }
            for (size_t s = 0; s < AK_PANEL; s++)
                scores[(size_t)t * stride + panel * AK_PANEL + s] = (float)sums[s] * (query.scale * ak_half_to_float(scales[panel * AK_PANEL + s]));
        }
    }
}

static void scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                   int32_t panels, int32_t queries, const void *next) {
    (void)next;
    if (kv_type == AK_Q8_0) {
        q8_scores(scores, stride, q, ldq, k, scales, head_dim, panels, queries);
        return;
    }
    float sums[AK_QUERY_TILE][AK_PANEL], keys[AK_PANEL];
    for (int32_t panel = 0; panel < panels; panel++) {
        memset(sums, 0, sizeof sums);
        for (int32_t d = 0; d < head_dim; d++) {
            load16(keys, k, kv_type, ((size_t)panel * (size_t)head_dim + (size_t)d) * AK_PANEL);
            for (int32_t t = 0; t < queries; t++) {
                const float value = q[(size_t)t * ldq + (size_t)d];
                for (int s = 0; s < AK_PANEL; s++) sums[t][s] += value * keys[s];
            }
        }
        for (int32_t t = 0; t < queries; t++)
            memcpy(scores + (size_t)t * stride + (size_t)panel * AK_PANEL, sums[t], AK_PANEL * sizeof(float));
    }
}

static ak_softmax softmax(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale) {
    // A negative scale turns the order round; the largest scaled score is what keeps exp in range.
    float largest = -INFINITY, sum = 0;
    for (int32_t s = hidden; s < visible; s++) {
        scores[s] *= scale;
        if (scores[s] > largest) largest = scores[s];
    }
    for (int32_t s = hidden; s < visible; s++) {
        scores[s] = expf(scores[s] - largest);
        sum += scores[s];
    }
    for (int32_t s = 0; s < hidden; s++) scores[s] = 0;
    for (size_t s = (size_t)visible; s < stride; s++) scores[s] = 0;
    return (ak_softmax){sum, largest};
}

float ak_portable_q8_weights(int16_t *out, const float *weights, const uint16_t *scales, size_t count) {
    float largest = 0;
    for (size_t s = 0; s < count; s++) {
        const float product = weights[s] * ak_half_to_float(scales[s]);
        if (product > largest) largest = product;
    }
    const float unit = largest / AK_Q8_WEIGHT_MAX, inverse = ak_inverse_scale(unit);
    for (size_t s = 0; s < count; s++) {
        const float scaled = weights[s] * ak_half_to_float(scales[s]) * inverse;
        out[s] = (int16_t)rintf(scaled < AK_Q8_WEIGHT_MAX ? scaled : scaled == scaled ? AK_Q8_WEIGHT_MAX : 0);
    }
    return unit;
}

static void q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const int8_t *v, const uint16_t *scales,
                       int32_t head_dim, int32_t positions, int32_t queries) {
    const size_t width = (size_t)ak_value_width(head_dim);
    int16_t weights[AK_ATTENTION_SPAN];
    for (int32_t t = 0; t < queries; t++) {
        const float factor = inverse[t] * ak_portable_q8_weights(weights, scores + (size_t)t * stride, scales, (size_t)positions);
        for (size_t d = 0; d < (size_t)head_dim; d++) {
            int32_t sum = 0;
            for (size_t s = 0; s < (size_t)positions; s++) sum += weights[s] * v[s / 2 * 2 * width + 2 * d + s % 2];
            out[(size_t)t * ldo + d] = (float)sum * factor;
        }
    }
}

static void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                    ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)next;
    if (kv_type == AK_Q8_0) {
        q8_combine(out, ldo, scores, stride, inverse, v, scales, head_dim, positions, queries);
        return;
    }
    const int32_t width = ak_value_width(head_dim);
    for (int32_t d = 0; d < head_dim; d += AK_PANEL) {
        float sums[AK_QUERY_TILE][AK_PANEL], values[AK_PANEL];
        memset(sums, 0, sizeof sums);
        for (int32_t s = 0; s < positions; s++) {
            load16(values, v, kv_type, (size_t)s * (size_t)width + (size_t)d);
            for (int32_t t = 0; t < queries; t++) {
                const float weight = scores[(size_t)t * stride + (size_t)s];
                for (int i = 0; i < AK_PANEL; i++) sums[t][i] += weight * values[i];
            }
        }
        for (int32_t t = 0; t < queries; t++)
            for (int32_t i = 0; i < AK_PANEL && d + i < head_dim; i++)
                out[(size_t)t * ldo + (size_t)(d + i)] = sums[t][i] * inverse[t];
    }
}

static const ak_attention_parts parts = {scores, softmax, combine, AK_QUERY_TILE};

void ak_portable_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                           int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    ak_attention_with(&parts, out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
}

void ak_portable_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                             int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    ak_attention_span_with(&parts, out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
}

// The scale of a row of values, kept as a half at `scale`; returns what they are multiplied by.
static float q8_factor(uint16_t *scale, const float *row, size_t n) {
    float largest = 0;
    for (size_t d = 0; d < n; d++) {
        if (fabsf(row[d]) > largest) largest = fabsf(row[d]);
    }
    *scale = ak_q8_row_scale(largest);
    return ak_inverse_scale(ak_half_to_float(*scale));
}

void ak_portable_q8_store(void *k, void *v, const float *key, size_t ldk, const float *value, size_t ldv, int32_t head_dim, int32_t first, int32_t count) {
    const size_t dims = (size_t)head_dim, key_width = ak_q8_key_width(head_dim), width = (size_t)ak_value_width(head_dim);
    uint16_t *key_scales = (uint16_t *)((uint8_t *)k + AK_ATTENTION_SPAN * key_width), *value_scales = (uint16_t *)((uint8_t *)v + AK_ATTENTION_SPAN * width);
    for (size_t t = 0; t < (size_t)count; t++) {
        const size_t position = (size_t)first + t;
        const float *key_row = key + t * ldk, *value_row = value + t * ldv;
        const float key_factor = q8_factor(key_scales + position, key_row, dims), value_factor = q8_factor(value_scales + position, value_row, dims);
        uint8_t *keys = (uint8_t *)k + position / AK_PANEL * AK_PANEL * key_width + position % AK_PANEL * 4;
        for (size_t d = 0; d < key_width; d++)
            keys[d / 4 * 4 * AK_PANEL + d % 4] = (uint8_t)(128 + (d < dims ? ak_q8_value(key_row[d] * key_factor) : 0));
        int8_t *values = (int8_t *)v + position / 2 * 2 * width + position % 2;
        for (size_t d = 0; d < width; d++) values[2 * d] = d < dims ? ak_q8_value(value_row[d] * value_factor) : 0;
    }
}

void ak_portable_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                          int32_t head_dim, int32_t first, int32_t count) {
    if (kv_type == AK_Q8_0) {
        ak_portable_q8_store(k, v, key, ldk, value, ldv, head_dim, first, count);
        return;
    }
    const size_t dims = (size_t)head_dim, width = (size_t)ak_value_width(head_dim);
    for (int32_t t = 0; t < count; t++) {
        const size_t position = (size_t)first + (size_t)t;
        const float *key_row = key + (size_t)t * ldk, *value_row = value + (size_t)t * ldv;
        const size_t key_at = position / AK_PANEL * dims * AK_PANEL + position % AK_PANEL;
        if (kv_type == AK_F32) {
            for (size_t d = 0; d < dims; d++) ((float *)k)[key_at + d * AK_PANEL] = key_row[d];
            for (size_t d = 0; d < width; d++) ((float *)v)[position * width + d] = d < dims ? value_row[d] : 0;
        } else {
            for (size_t d = 0; d < dims; d++) ((uint16_t *)k)[key_at + d * AK_PANEL] = ak_float_to_half(key_row[d]);
            for (size_t d = 0; d < width; d++) ((uint16_t *)v)[position * width + d] = d < dims ? ak_float_to_half(value_row[d]) : 0;
        }
    }
}
