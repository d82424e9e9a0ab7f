// NEON tiles of the matrix product: four registers hold one input's weights of a panel's 16 rows.
#include "neon.h"

#if AK_ARM
#include <string.h>

#include "tiles.h"

typedef struct { float32x4_t of[AK_TILE_TOKENS][AK_TILE_PANELS][4]; } sums128;

AK_INLINE void start(sums128 *sums, const ak_tile *tile, const int tokens, const int panels) {
    const int resume = tile->flags & AK_TILE_RESUME;
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
        for (int p = 0; p < panels; p++)
#pragma unroll
            for (int h = 0; h < 4; h++)
                sums->of[t][p][h] = resume ? vld1q_f32(tile->partial + (t * panels + p) * AK_PANEL + 4 * h) : vdupq_n_f32(0);
}

AK_INLINE void finish(const sums128 *sums, const ak_tile *tile, const int tokens, const int panels) {
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
        for (int p = 0; p < panels; p++)
#pragma unroll
            for (int h = 0; h < 4; h++) {
                float32x4_t value = sums->of[t][p][h];
                if (tile->flags & AK_TILE_SUSPEND) {
                    vst1q_f32(tile->partial + (t * panels + p) * AK_PANEL + 4 * h, value);
                    continue;
                }
                const size_t column = (size_t)tile->panel[p] * AK_PANEL + (size_t)(4 * h);
                float *out = tile->out + (size_t)t * tile->ldo + column;
                if (tile->bias) value = vaddq_f32(value, vld1q_f32(tile->bias + column));
                if (tile->flags & AK_ACCUMULATE) value = vaddq_f32(vld1q_f32(out), value);
                if (tile->flags & AK_RELU6) value = vminq_f32(vdupq_n_f32(6.0f), vmaxq_f32(vdupq_n_f32(0.0f), value));
                vst1q_f32(out, value);
            }
}

// -------------------------------------------------------------------------------------------------------- floating point

// Four rows' weights of input k (even) or k + 1 (odd). The 16 rows' weights of both inputs are at `pair`.
AK_INLINE float32x4_t load_weights(const uint8_t *pair, const ak_type type, const int odd, const int quarter) {
    if (type == AK_F32) return vld1q_f32((const float *)(pair + AK_LINE * (size_t)odd) + 4 * quarter);
    if (type == AK_F16) return ak_load_half4((const uint16_t *)pair + 16 * odd + 4 * quarter);
    const uint32x4_t pairs = vld1q_u32((const uint32_t *)pair + 4 * quarter);
    return vreinterpretq_f32_u32(odd ? vandq_u32(pairs, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(pairs, 16));
}

AK_INLINE float load_act(const void *act, const ak_type type, size_t at) {
    if (type == AK_F32) return ((const float *)act)[at];
    const uint32_t bits = (uint32_t)((const uint16_t *)act)[at] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

AK_INLINE void float_tile(const ak_tile *tile, const int tokens, const int panels, const ak_type act_type, const ak_type type) {
    const size_t pair_bytes = type == AK_F32 ? 2 * AK_LINE : AK_LINE;
    sums128 sums;
    start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const size_t offset = (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int odd = 0; odd < 2; odd++)
#pragma unroll
                for (int p = 0; p < panels; p++) {
                    const uint8_t *pair = tile->weight[p] + offset + (size_t)(k / 2) * pair_bytes;
                    float32x4_t weights[4];
#pragma unroll
                    for (int h = 0; h < 4; h++) weights[h] = load_weights(pair, type, odd, h);
#pragma unroll
                    for (int t = 0; t < tokens; t++) {
                        const size_t at = (size_t)t * tile->stride + (size_t)block * AK_BLOCK + (size_t)(k + odd);
                        const float value = load_act(tile->act, act_type, at);
#pragma unroll
                        for (int h = 0; h < 4; h++) sums.of[t][p][h] = vfmaq_n_f32(sums.of[t][p][h], weights[h], value);
                    }
                }
        }
    }
    finish(&sums, tile, tokens, panels);
}

AK_INLINE void f32(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_F32); }
AK_INLINE void f16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_F16); }
AK_INLINE void bf16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_BF16); }
AK_INLINE void bf16_dot(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_BF16, AK_BF16); }

// ------------------------------------------------------------------------------------------------------------------- Q8_0

#define DOT __attribute__((target("dotprod")))
#define DOT_INLINE static inline __attribute__((always_inline, target("dotprod")))

// sums[r] += the dot product of bytes 4r … 4r+3 of both
DOT_INLINE int32x4_t dot(int32x4_t sums, int8x16_t a, int8x16_t b) { return vdotq_s32(sums, a, b); }
AK_INLINE int32x4_t pairwise(int32x4_t sums, int8x16_t a, int8x16_t b) {
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sums, vpaddq_s32(low, high));
}

// The tile, once for each way to multiply. The weights' +128 is subtracted first, so the activations' sums are not needed.
#define Q8_TILE(inline_attributes, name, multiply) \
    inline_attributes void name(const ak_tile *tile, const int tokens, const int panels) { \
        sums128 sums; \
        start(&sums, tile, tokens, panels); \
        for (int32_t i = tile->first; i < tile->last; i++) { \
            const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block); \
            const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK; \
            _Pragma("unroll") for (int p = 0; p < panels; p++) { \
                const uint8_t *weight = tile->weight[p] + stored * tile->step; \
                int32x4_t dots[AK_TILE_TOKENS][4]; \
                _Pragma("unroll") for (int t = 0; t < tokens; t++) \
                    _Pragma("unroll") for (int h = 0; h < 4; h++) dots[t][h] = vdupq_n_s32(0); \
                for (int k = 0; k < AK_BLOCK / 4; k++) { \
                    int8x16_t weights[4]; \
                    _Pragma("unroll") for (int h = 0; h < 4; h++) \
                        weights[h] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weight + (size_t)k * AK_LINE + 16 * h), vdupq_n_u8(0x80))); \
                    _Pragma("unroll") for (int t = 0; t < tokens; t++) { \
                        int32_t four; \
                        memcpy(&four, act + (size_t)t * tile->stride + k * 4, sizeof four); \
                        const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(four)); \
                        _Pragma("unroll") for (int h = 0; h < 4; h++) dots[t][h] = multiply(dots[t][h], weights[h], values); \
                    } \
                } \
                const uint16_t *scales = (const uint16_t *)ak_tile_scales(tile, p, stored); \
                _Pragma("unroll") for (int h = 0; h < 4; h++) { \
                    const float32x4_t weight_scales = ak_load_half4(scales + 4 * h); \
                    _Pragma("unroll") for (int t = 0; t < tokens; t++) { \
                        const float act_scale = tile->act_scales[(size_t)t * tile->act_blocks + block]; \
                        const float32x4_t scale = vmulq_n_f32(weight_scales, act_scale); \
                        sums.of[t][p][h] = vfmaq_f32(sums.of[t][p][h], vcvtq_f32_s32(dots[t][h]), scale); \
                    } \
                } \
            } \
        } \
        finish(&sums, tile, tokens, panels); \
    }

Q8_TILE(DOT_INLINE, q8_dot, dot)
Q8_TILE(AK_INLINE, q8_pairwise, pairwise)

// ------------------------------------------------------------------------------------------------------------- Q4_0 and Q4_1

// Q4_0's -8 is subtracted first; Q4_1's minima are added to a block's sums.
#define Q4_TILE(inline_attributes, name, multiply, type) \
    inline_attributes void name(const ak_tile *tile, const int tokens, const int panels) { \
        const uint8x16_t low_half = vdupq_n_u8(15); \
        const int8x16_t offset = vdupq_n_s8(type == AK_Q4_0 ? 8 : 0); \
        sums128 sums; \
        start(&sums, tile, tokens, panels); \
        for (int32_t i = tile->first; i < tile->last; i++) { \
            const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block); \
            const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK; \
            _Pragma("unroll") for (int p = 0; p < panels; p++) { \
                const uint8_t *weight = tile->weight[p] + stored * tile->step; \
                int32x4_t dots[AK_TILE_TOKENS][4]; \
                _Pragma("unroll") for (int t = 0; t < tokens; t++) \
                    _Pragma("unroll") for (int h = 0; h < 4; h++) dots[t][h] = vdupq_n_s32(0); \
                for (int j = 0; j < 4; j++) { \
                    int8x16_t low[4], high[4]; \
                    _Pragma("unroll") for (int h = 0; h < 4; h++) { \
                        const uint8x16_t pairs = vld1q_u8(weight + (size_t)j * AK_LINE + 16 * h); \
                        low[h] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pairs, low_half)), offset); \
                        high[h] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4)), offset); \
                    } \
                    _Pragma("unroll") for (int t = 0; t < tokens; t++) { \
                        int32_t first, second; \
                        memcpy(&first, act + (size_t)t * tile->stride + j * 4, sizeof first); \
                        memcpy(&second, act + (size_t)t * tile->stride + 16 + j * 4, sizeof second); \
                        const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(first)), later = vreinterpretq_s8_s32(vdupq_n_s32(second)); \
                        _Pragma("unroll") for (int h = 0; h < 4; h++) \
                            dots[t][h] = multiply(multiply(dots[t][h], low[h], values), high[h], later); \
                    } \
                } \
                const uint16_t *scales = (const uint16_t *)ak_tile_scales(tile, p, stored); \
                _Pragma("unroll") for (int h = 0; h < 4; h++) { \
                    const float32x4_t weight_scales = ak_load_half4(scales + 4 * h); \
                    const float32x4_t minima = type == AK_Q4_1 \
                        ? vmulq_n_f32(ak_load_half4(scales + AK_PANEL + 4 * h), AK_SUM_UNIT) : vdupq_n_f32(0); \
                    _Pragma("unroll") for (int t = 0; t < tokens; t++) { \
                        const size_t at = (size_t)t * tile->act_blocks + block; \
                        const float32x4_t whole = vcvtq_f32_s32(dots[t][h]); \
                        if (type == AK_Q4_0) { \
                            sums.of[t][p][h] = vfmaq_f32(sums.of[t][p][h], whole, vmulq_n_f32(weight_scales, tile->act_scales[at])); \
                        } else { \
                            const float32x4_t shift = vmulq_n_f32(minima, (float)tile->act_sums[at]); \
                            sums.of[t][p][h] = vfmaq_n_f32(sums.of[t][p][h], vfmaq_f32(shift, whole, weight_scales), tile->act_scales[at]); \
                        } \
                    } \
                } \
            } \
        } \
        finish(&sums, tile, tokens, panels); \
    }

Q4_TILE(DOT_INLINE, q4_0_dot, dot, AK_Q4_0)
Q4_TILE(DOT_INLINE, q4_1_dot, dot, AK_Q4_1)
Q4_TILE(AK_INLINE, q4_0_pairwise, pairwise, AK_Q4_0)
Q4_TILE(AK_INLINE, q4_1_pairwise, pairwise, AK_Q4_1)

#define BASE   // no attribute
AK_TILES_6X1(BASE, f32);
AK_TILES_6X1(BASE, f16);
AK_TILES_6X1(BASE, bf16);
AK_TILES_6X1(BASE, bf16_dot);
AK_TILES_6X1(DOT, q8_dot);
AK_TILES_6X1(BASE, q8_pairwise);
AK_TILES_6X1(DOT, q4_0_dot);
AK_TILES_6X1(BASE, q4_0_pairwise);
AK_TILES_6X1(DOT, q4_1_dot);
AK_TILES_6X1(BASE, q4_1_pairwise);

void ak_neon_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    const int dot_products = ak_neon_has_dot();
    const ak_matmul_parts parts = {
        .f32 = &f32_set, .f16 = &f16_set, .bf16 = &bf16_set, .bf16_dot = &bf16_dot_set,
        .q8 = dot_products ? &q8_dot_set : &q8_pairwise_set, .q4_0 = dot_products ? &q4_0_dot_set : &q4_0_pairwise_set,
        .q4_1 = dot_products ? &q4_1_dot_set : &q4_1_pairwise_set, .pairs = ak_portable_pairs, .rows = ak_portable_rows,
        .panel = ak_portable_panel,
        .i16 = &ak_portable_i16_tiles, .widen = ak_portable_widen,
    };
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
