// NEON attention: scores 16 keys at a time, values 16 of a row at a time, for one to four queries together.
#include "neon.h"

#if AK_ARM
#include <math.h>
#include <string.h>

#define TOGETHER 4   // queries whose sums stay in registers

// 4 elements of the cache from element `at` on.
AK_INLINE float32x4_t load4(const void *data, size_t at, const ak_type type) {
    return type == AK_F32 ? vld1q_f32((const float *)data + at) : ak_load_half4((const uint16_t *)data + at);
}

AK_INLINE void score_panels(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const ak_type type,
                            int32_t head_dim, int32_t panels, const int queries) {
    for (size_t panel = 0; panel < (size_t)panels; panel++) {
        float32x4_t sums[TOGETHER][4];
#pragma unroll
        for (int t = 0; t < queries; t++)
#pragma unroll
            for (int h = 0; h < 4; h++) sums[t][h] = vdupq_n_f32(0);
        for (size_t d = 0; d < (size_t)head_dim; d++) {
            float32x4_t keys[4];
#pragma unroll
            for (int h = 0; h < 4; h++) keys[h] = load4(k, (panel * (size_t)head_dim + d) * AK_PANEL + (size_t)(4 * h), type);
#pragma unroll
            for (int t = 0; t < queries; t++)
#pragma unroll
                for (int h = 0; h < 4; h++) sums[t][h] = vfmaq_n_f32(sums[t][h], keys[h], q[(size_t)t * ldq + d]);
        }
#pragma unroll
        for (int t = 0; t < queries; t++)
#pragma unroll
            for (int h = 0; h < 4; h++) vst1q_f32(scores + (size_t)t * stride + panel * AK_PANEL + 4 * h, sums[t][h]);
    }
}

AK_INLINE void value_columns(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v,
                             const ak_type type, int32_t head_dim, int32_t positions, const int queries) {
    const size_t width = (size_t)ak_value_width(head_dim);
    for (size_t column = 0; column < width; column += 16) {
        float32x4_t sums[TOGETHER][4];
#pragma unroll
        for (int t = 0; t < queries; t++)
#pragma unroll
            for (int h = 0; h < 4; h++) sums[t][h] = vdupq_n_f32(0);
        for (size_t s = 0; s < (size_t)positions; s++) {
            float32x4_t values[4];
#pragma unroll
            for (int h = 0; h < 4; h++) values[h] = load4(v, s * width + column + (size_t)(4 * h), type);
#pragma unroll
            for (int t = 0; t < queries; t++)
#pragma unroll
                for (int h = 0; h < 4; h++) sums[t][h] = vfmaq_n_f32(sums[t][h], values[h], scores[(size_t)t * stride + s]);
        }
        const size_t left = (size_t)head_dim - column;
#pragma unroll
        for (int t = 0; t < queries; t++) {
            float row[16];
#pragma unroll
            for (int h = 0; h < 4; h++) vst1q_f32(row + 4 * h, vmulq_n_f32(sums[t][h], inverse[t]));
            memcpy(out + (size_t)t * ldo + column, row, (left < 16 ? left : 16) * sizeof(float));
        }
    }
}

// Calls f with the number of queries as a constant.
#define FOR_QUERIES(f, queries, ...) \
    switch (queries) { \
        case 1: f(__VA_ARGS__, 1); break; \
        case 2: f(__VA_ARGS__, 2); break; \
        case 3: f(__VA_ARGS__, 3); break; \
        default: f(__VA_ARGS__, 4); break; \
    }

static void scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                   int32_t panels, int32_t queries, const void *next) {
    (void)scales, (void)next;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *rows = scores + (size_t)t * stride;
        const float *tile = q + (size_t)t * ldq;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F32, head_dim, panels)
        else FOR_QUERIES(score_panels, count, rows, stride, tile, ldq, k, AK_F16, head_dim, panels)
    }
}

static void combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                    ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)scales, (void)next;
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        float *tile = out + (size_t)t * ldo;
        const float *rows = scores + (size_t)t * stride;
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        if (kv_type == AK_F32) FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F32, head_dim, positions)
        else FOR_QUERIES(value_columns, count, tile, ldo, rows, stride, inverse + t, v, AK_F16, head_dim, positions)
    }
}

static ak_softmax softmax(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale) {
    for (size_t s = (size_t)visible; s < stride; s++) scores[s] = 0;
    const size_t begin = (size_t)hidden / 4 * 4, whole = (size_t)visible / 4 * 4, padded = ((size_t)visible + 3) / 4 * 4;
    const size_t inner = hidden == 0 ? 0 : begin + 4;   // from here to `whole`, all four are seen
    for (size_t s = 0; s < begin; s++) scores[s] = 0;
    float32x4_t largest = vdupq_n_f32(-INFINITY), sum = vdupq_n_f32(0);
    for (size_t s = inner; s < whole; s += 4) largest = vmaxq_f32(largest, vmulq_n_f32(vld1q_f32(scores + s), scale));
    float top = vmaxvq_f32(largest);
    for (size_t s = (size_t)hidden; s < inner && s < whole; s++) top = scores[s] * scale > top ? scores[s] * scale : top;
    for (size_t s = whole > (size_t)hidden ? whole : (size_t)hidden; s < (size_t)visible; s++) top = scores[s] * scale > top ? scores[s] * scale : top;
    const float32x4_t shift = vdupq_n_f32(top);
    for (size_t s = begin; s < padded; s += 4) {
        float32x4_t weight = ak_exp4(vsubq_f32(vmulq_n_f32(vld1q_f32(scores + s), scale), shift));
        if (s == whole || s < inner) {
            const uint32_t lanes[4] = {0, 1, 2, 3};
            const uint32x4_t position = vaddq_u32(vdupq_n_u32((uint32_t)s), vld1q_u32(lanes));
            const uint32x4_t seen = vandq_u32(vcltq_u32(position, vdupq_n_u32((uint32_t)visible)), vcgeq_u32(position, vdupq_n_u32((uint32_t)hidden)));
            weight = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(weight), seen));
        }
        vst1q_f32(scores + s, weight);
        sum = vaddq_f32(sum, weight);
    }
    return (ak_softmax){vaddvq_f32(sum), top};
}

// --------------------------------------------------------------------------------------------------------------- 8-bit keys

#define DOT __attribute__((target("dotprod")))
#define DOT_INLINE static inline __attribute__((always_inline, target("dotprod")))

// sums[r] += the dot product of bytes 4r … 4r+3 of both
DOT_INLINE int32x4_t dot(int32x4_t sums, int8x16_t a, int8x16_t b) { return vdotq_s32(sums, a, b); }
AK_INLINE int32x4_t pairwise(int32x4_t sums, int8x16_t a, int8x16_t b) {
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sums, vpaddq_s32(low, high));
}

// Scores of `queries` quantized queries, once for each way to multiply. The keys' +128 is taken off first, so the queries' sums are not needed.
#define Q8_PANELS(inline_attributes, name, multiply) \
    inline_attributes void name(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales, \
                                size_t width, size_t panels, const int queries) { \
        for (size_t panel = 0; panel < panels; panel++) { \
            int32x4_t sums[TOGETHER][4]; \
            _Pragma("unroll") for (int t = 0; t < queries; t++) \
                _Pragma("unroll") for (int h = 0; h < 4; h++) sums[t][h] = vdupq_n_s32(0); \
            for (size_t d = 0; d < width; d += 4) { \
                int8x16_t keys[4]; \
                _Pragma("unroll") for (int h = 0; h < 4; h++) \
                    keys[h] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(k + (panel * width + d) * AK_PANEL + 16 * (size_t)h), vdupq_n_u8(0x80))); \
                _Pragma("unroll") for (int t = 0; t < queries; t++) { \
                    int32_t four; \
                    memcpy(&four, q + (size_t)t * AK_Q8_HEAD_DIM + d, sizeof four); \
                    const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(four)); \
                    _Pragma("unroll") for (int h = 0; h < 4; h++) sums[t][h] = multiply(sums[t][h], keys[h], values); \
                } \
            } \
            _Pragma("unroll") for (int h = 0; h < 4; h++) { \
                const float32x4_t scale = ak_load_half4(scales + panel * AK_PANEL + 4 * (size_t)h); \
                _Pragma("unroll") for (int t = 0; t < queries; t++) \
                    vst1q_f32(scores + (size_t)t * stride + panel * AK_PANEL + 4 * (size_t)h, \
                              vmulq_f32(vcvtq_f32_s32(sums[t][h]), vmulq_n_f32(scale, query[t].scale))); \
            } \
        } \
    }

Q8_PANELS(DOT_INLINE, dot_panels, dot)
Q8_PANELS(AK_INLINE, pairwise_panels, pairwise)

static DOT void dot_scores(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales, size_t width,
                           size_t panels, int32_t queries) {
    FOR_QUERIES(dot_panels, queries, scores, stride, q, query, k, scales, width, panels)
}

static void pairwise_scores(float *scores, size_t stride, const int8_t *q, const ak_q8_query *query, const uint8_t *k, const uint16_t *scales,
                            size_t width, size_t panels, int32_t queries) {
    FOR_QUERIES(pairwise_panels, queries, scores, stride, q, query, k, scales, width, panels)
}

static void q8_scores(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                      int32_t panels, int32_t queries, const void *next) {
    (void)kv_type, (void)next;
    int8_t values[TOGETHER][AK_Q8_HEAD_DIM];
    ak_q8_query query[TOGETHER];
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        for (int32_t i = 0; i < count; i++) ak_portable_q8_query(values[i], &query[i], q + (size_t)(t + i) * ldq, head_dim);
        (ak_neon_has_dot() ? dot_scores : pairwise_scores)(
            scores + (size_t)t * stride, stride, values[0], query, k, scales, ak_q8_key_width(head_dim), (size_t)panels, count);
    }
}

// Eight columns of the values at a time.
AK_INLINE void q8_columns(float *out, size_t ldo, const int16_t *weights, const float *factors, const int8_t *v, size_t head_dim, size_t pairs,
                          const int queries) {
    const size_t width = (size_t)ak_value_width((int32_t)head_dim);
    for (size_t column = 0; column < head_dim; column += 8) {
        int32x4_t sums[TOGETHER][2];
#pragma unroll
        for (int t = 0; t < queries; t++) sums[t][0] = sums[t][1] = vdupq_n_s32(0);
        for (size_t pair = 0; pair < pairs; pair++) {
            const int8x8x2_t both = vld2_s8(v + 2 * (pair * width + column));
            const int16x8_t even = vmovl_s8(both.val[0]), odd = vmovl_s8(both.val[1]);
#pragma unroll
            for (int t = 0; t < queries; t++) {
                const int16_t *weight = weights + (size_t)t * AK_ATTENTION_SPAN + 2 * pair;
                sums[t][0] = vmlal_n_s16(vmlal_n_s16(sums[t][0], vget_low_s16(even), weight[0]), vget_low_s16(odd), weight[1]);
                sums[t][1] = vmlal_high_n_s16(vmlal_high_n_s16(sums[t][1], even, weight[0]), odd, weight[1]);
            }
        }
        const size_t left = head_dim - column;
#pragma unroll
        for (int t = 0; t < queries; t++) {
            float row[8];
            vst1q_f32(row, vmulq_n_f32(vcvtq_f32_s32(sums[t][0]), factors[t]));
            vst1q_f32(row + 4, vmulq_n_f32(vcvtq_f32_s32(sums[t][1]), factors[t]));
            memcpy(out + (size_t)t * ldo + column, row, (left < 8 ? left : 8) * sizeof(float));
        }
    }
}

static void q8_combine(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                       ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next) {
    (void)kv_type, (void)next;
    int16_t weights[TOGETHER][AK_ATTENTION_SPAN];
    float factors[TOGETHER];
    for (int32_t t = 0; t < queries; t += TOGETHER) {
        const int32_t count = queries - t < TOGETHER ? queries - t : TOGETHER;
        for (int32_t i = 0; i < count; i++)
            factors[i] = inverse[t + i] * ak_portable_q8_weights(weights[i], scores + (size_t)(t + i) * stride, scales, stride);
        FOR_QUERIES(q8_columns, count, out + (size_t)t * ldo, ldo, weights[0], factors, v, (size_t)head_dim, ((size_t)positions + 1) / 2)
    }
}

static const ak_attention_parts float_parts = {scores, softmax, combine, AK_QUERY_TILE};
static const ak_attention_parts q8_parts = {q8_scores, softmax, q8_combine, AK_QUERY_TILE};

static const ak_attention_parts *parts_of(ak_type kv_type) { return kv_type == AK_Q8_0 ? &q8_parts : &float_parts; }

void ak_neon_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                       int32_t queries, int32_t first, int32_t window, float scale, void *scratch) {
    ak_attention_with(parts_of(kv->type), out, ldo, q, ldq, kv, positions, queries, first, window, scale, scratch);
}

void ak_neon_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                             int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch) {
    ak_attention_span_with(parts_of(kv_type), out, ldo, logs, q, ldq, k, v, kv_type, head_dim, skip, keys, queries, scale, next, scratch);
}
#endif
