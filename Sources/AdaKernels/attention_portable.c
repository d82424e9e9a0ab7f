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

static void scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, ak_type kv_type, int32_t head_dim,
                   int32_t panels, int32_t queries, const void *next) {
    (void)next;
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

static void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, ak_type kv_type,
                    int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)next;
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

void ak_portable_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                          int32_t head_dim, int32_t first, int32_t count) {
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
