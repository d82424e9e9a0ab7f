// Tiles of the matrix product in plain C: any number of tokens and panels.
#include <math.h>
#include <string.h>

#include "internal.h"

static void finish(const float *sums, const ak_tile *tile, int32_t t, int32_t p) {
    if (tile->flags & AK_TILE_SUSPEND) {
        memcpy(tile->partial + (t * tile->panels + p) * AK_PANEL, sums, AK_PANEL * sizeof(float));
        return;
    }
    const size_t column = (size_t)tile->panel[p] * AK_PANEL;
    float *out = tile->out + (size_t)t * tile->ldo + column;
    for (int r = 0; r < AK_PANEL; r++) {
        float value = sums[r];
        if (tile->bias) value += tile->bias[column + (size_t)r];
        if (tile->flags & AK_ACCUMULATE) value += out[r];
        out[r] = tile->flags & AK_RELU6 ? ak_relu6(value) : value;
    }
}

// The 32 weights of each of the 16 rows of a block as float [32][16].
static const float *float_block(float *out, ak_type type, const uint8_t *block) {
    if (type == AK_F32) return (const float *)block;
    for (int k = 0; k < AK_BLOCK; k++)
        for (int r = 0; r < AK_PANEL; r++)
            switch (type) {
                case AK_F16: out[k * AK_PANEL + r] = ak_half_to_float(((const uint16_t *)(block + (size_t)(k / 2) * AK_LINE))[k % 2 * AK_PANEL + r]); break;
                default: out[k * AK_PANEL + r] = ak_bf16_to_float(((const uint16_t *)(block + (size_t)(k / 2) * AK_LINE))[2 * r + k % 2]); break;
            }
    return out;
}

AK_INLINE void float_tile(const ak_tile *tile, ak_type act_type, ak_type type) {
    float converted[AK_BLOCK * AK_PANEL], widened[AK_BLOCK];
    for (int32_t p = 0; p < tile->panels; p++) {
        float sums[AK_TILE_TOKENS][AK_PANEL];
        for (int32_t t = 0; t < tile->tokens; t++) ak_tile_start(sums[t], tile, t, p);
        for (int32_t i = tile->first; i < tile->last; i++) {
            const int32_t block = ak_tile_block(tile, i);
            const float *weight = float_block(
                converted, type, tile->weight[p] + (size_t)ak_tile_weight_block(tile, i, block) * tile->step);
            for (int32_t t = 0; t < tile->tokens; t++) {
                const size_t at = (size_t)t * tile->stride + (size_t)block * AK_BLOCK;
                const float *act = (const float *)tile->act + at;
                if (act_type == AK_BF16) {
                    for (int k = 0; k < AK_BLOCK; k++) widened[k] = ak_bf16_to_float(((const uint16_t *)tile->act)[at + (size_t)k]);
                    act = widened;
                }
                for (int k = 0; k < AK_BLOCK; k++)
                    for (int r = 0; r < AK_PANEL; r++) sums[t][r] += act[k] * weight[k * AK_PANEL + r];
            }
        }
        for (int32_t t = 0; t < tile->tokens; t++) finish(sums[t], tile, t, p);
    }
}

static void tile_f32(const ak_tile *tile) { float_tile(tile, AK_F32, AK_F32); }
static void tile_f16(const ak_tile *tile) { float_tile(tile, AK_F32, AK_F16); }
static void tile_bf16(const ak_tile *tile) { float_tile(tile, AK_F32, AK_BF16); }
static void tile_bf16_dot(const ak_tile *tile) { float_tile(tile, AK_BF16, AK_BF16); }

static void tile_q8(const ak_tile *tile) {
    for (int32_t p = 0; p < tile->panels; p++) {
        float sums[AK_TILE_TOKENS][AK_PANEL];
        for (int32_t t = 0; t < tile->tokens; t++) ak_tile_start(sums[t], tile, t, p);
        for (int32_t i = tile->first; i < tile->last; i++) {
            const int32_t block = ak_tile_block(tile, i);
            const uint8_t *values = tile->weight[p] + (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
            const uint16_t *scales = (const uint16_t *)ak_tile_scales(tile, p, (size_t)ak_tile_weight_block(tile, i, block));
            float weight_scales[AK_PANEL];
            for (int r = 0; r < AK_PANEL; r++) weight_scales[r] = ak_half_to_float(scales[r]);
            for (int32_t t = 0; t < tile->tokens; t++) {
                const int8_t *act = (const int8_t *)tile->act + (size_t)t * tile->stride + (size_t)block * AK_BLOCK;
                const size_t at = (size_t)t * tile->act_blocks + (size_t)block;
                int32_t dots[AK_PANEL];
                for (int r = 0; r < AK_PANEL; r++) dots[r] = tile->act_sums[at];
                for (int k = 0; k < AK_BLOCK / 4; k++)
                    for (int r = 0; r < AK_PANEL; r++)
                        for (int j = 0; j < 4; j++) dots[r] += (int32_t)values[(size_t)k * AK_LINE + (size_t)(r * 4 + j)] * act[k * 4 + j];
                for (int r = 0; r < AK_PANEL; r++) sums[t][r] += (float)dots[r] * (weight_scales[r] * tile->act_scales[at]);
            }
        }
        for (int32_t t = 0; t < tile->tokens; t++) finish(sums[t], tile, t, p);
    }
}

// Two 4-bit weights in each byte: inputs k of operand j in the low half, of operand j + 4 in the high half.
AK_INLINE void q4_tile(const ak_tile *tile, const ak_type type) {
    for (int32_t p = 0; p < tile->panels; p++) {
        float sums[AK_TILE_TOKENS][AK_PANEL];
        for (int32_t t = 0; t < tile->tokens; t++) ak_tile_start(sums[t], tile, t, p);
        for (int32_t i = tile->first; i < tile->last; i++) {
            const int32_t block = ak_tile_block(tile, i);
            const uint8_t *values = tile->weight[p] + (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
            const uint16_t *scales = (const uint16_t *)ak_tile_scales(tile, p, (size_t)ak_tile_weight_block(tile, i, block));
            float weight_scales[AK_PANEL], minima[AK_PANEL];
            for (int r = 0; r < AK_PANEL; r++) {
                weight_scales[r] = ak_half_to_float(scales[r]);
                if (type == AK_Q4_1) minima[r] = ak_half_to_float(scales[AK_PANEL + r]) * AK_SUM_UNIT;
            }
            for (int32_t t = 0; t < tile->tokens; t++) {
                const int8_t *act = (const int8_t *)tile->act + (size_t)t * tile->stride + (size_t)block * AK_BLOCK;
                const size_t at = (size_t)t * tile->act_blocks + (size_t)block;
                int32_t dots[AK_PANEL];
                for (int r = 0; r < AK_PANEL; r++) dots[r] = type == AK_Q4_0 ? ak_tile_q4_0_sum(tile, at) : 0;
                for (int j = 0; j < 4; j++)
                    for (int r = 0; r < AK_PANEL; r++)
                        for (int k = 0; k < 4; k++) {
                            const int32_t pair = values[(size_t)j * AK_LINE + (size_t)(r * 4 + k)];
                            dots[r] += (pair & 15) * act[j * 4 + k] + (pair >> 4) * act[16 + j * 4 + k];
                        }
                const float scale = tile->act_scales[at], sum = (float)tile->act_sums[at];
                for (int r = 0; r < AK_PANEL; r++)
                    sums[t][r] += type == AK_Q4_0 ? (float)dots[r] * (weight_scales[r] * scale)
                                                  : ((float)dots[r] * weight_scales[r] + minima[r] * sum) * scale;
            }
        }
        for (int32_t t = 0; t < tile->tokens; t++) finish(sums[t], tile, t, p);
    }
}

// ak_wide_block with I16 activations.
static void tile_i16(const ak_tile *tile) {
    for (int32_t p = 0; p < tile->panels; p++) {
        float sums[AK_TILE_TOKENS][AK_PANEL];
        for (int32_t t = 0; t < tile->tokens; t++) ak_tile_start(sums[t], tile, t, p);
        for (int32_t i = tile->first; i < tile->last; i++) {
            const int32_t block = ak_tile_block(tile, i);
            const ak_wide_block *weight = (const ak_wide_block *)(tile->weight[p] + (size_t)(i - tile->first) * tile->step);
            for (int32_t t = 0; t < tile->tokens; t++) {
                const int16_t *act = (const int16_t *)tile->act + (size_t)t * tile->stride + (size_t)block * AK_BLOCK;
                const float scale = tile->act_scales[(size_t)t * tile->act_blocks + (size_t)block];
                int32_t dots[AK_PANEL] = {0};
                for (int k = 0; k < AK_BLOCK; k++)
                    for (int r = 0; r < AK_PANEL; r++) dots[r] += (int32_t)weight->pairs[k / 2][r][k % 2] * act[k];
                for (int r = 0; r < AK_PANEL; r++) sums[t][r] += (float)dots[r] * (weight->scales[r] * scale);
            }
        }
        for (int32_t t = 0; t < tile->tokens; t++) finish(sums[t], tile, t, p);
    }
}

static void tile_q4_0(const ak_tile *tile) { q4_tile(tile, AK_Q4_0); }
static void tile_q4_1(const ak_tile *tile) { q4_tile(tile, AK_Q4_1); }

// ------------------------------------------------------------------------------------------------------ weights in AK_ROWS layout

void ak_panel_rows(float *out, const ak_matrix *weight, int32_t panel, int32_t first, int32_t count) {
    const int32_t known = weight->inputs - first < count ? weight->inputs - first : count;
    for (int32_t lane = 0; lane < AK_PANEL; lane++) {
        const int64_t row = (int64_t)panel * AK_PANEL + lane;
        float *values = out + lane * 256;
        int32_t filled = 0;
        if (row < weight->rows && known > 0) {
            ak_dequantize(values, weight->type, (const uint8_t *)weight->data + (size_t)row * weight->stride, first, known);
            filled = known;
        }
        for (; filled < count; filled++) values[filled] = 0;
    }
}

void ak_portable_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last) {
    const int32_t size = ak_type_block(weight->type) > AK_BLOCK ? ak_type_block(weight->type) : AK_BLOCK;
    float rows[AK_PANEL * 256];
    int32_t loaded = -1;
    for (int32_t i = first; i < last; i++, out += AK_BLOCK * AK_PANEL) {
        const int32_t input = (blocks ? blocks[i] : i) * AK_BLOCK;
        if (loaded < 0 || input / size != loaded) {
            loaded = input / size;
            ak_panel_rows(rows, weight, panel, loaded * size, size);
        }
        const float *source = rows + input % size;
        for (int32_t k = 0; k < AK_BLOCK; k++)
            for (int32_t r = 0; r < AK_PANEL; r++) out[k * AK_PANEL + r] = source[r * 256 + k];
    }
}

// One input's weights of a quantized panel's 16 rows in a block at `source`.
AK_INLINE void panel_row(float *out, const uint8_t *source, int k, const float *scales, const float *minima, const ak_type type) {
    uint32_t fours[AK_PANEL];   // four inputs (or twice four) of each row
    memcpy(fours, source + (size_t)(type == AK_Q8_0 ? k / 4 : k / 4 % 4) * AK_LINE, sizeof fours);
    const int shift = k % 4 * 8 + (type != AK_Q8_0 && k >= AK_BLOCK / 2 ? 4 : 0);
    const uint32_t bits = type == AK_Q8_0 ? 255 : 15;
    const int32_t zero = type == AK_Q8_0 ? 128 : type == AK_Q4_0 ? 8 : 0;
    for (int r = 0; r < AK_PANEL; r++) {
        const float product = (float)((int32_t)(fours[r] >> shift & bits) - zero) * scales[r];
        out[r] = type == AK_Q4_1 ? product + minima[r] : product;   // two roundings, as the format defines it
    }
}

void ak_quantized_block(float *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    float scale[AK_PANEL], minima[AK_PANEL];
    for (int r = 0; r < AK_PANEL; r++) {
        scale[r] = ak_half_to_float(scales[r]);
        minima[r] = type == AK_Q4_1 ? ak_half_to_float(scales[AK_PANEL + r]) : 0;
    }
    for (int k = 0; k < AK_BLOCK; k++, out += AK_PANEL)
        AK_FOR_ROW_TYPE(type, panel_row, out, block, k, scale, minima)
}

void ak_portable_pairs(uint16_t *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    float converted[AK_BLOCK * AK_PANEL];
    const float *values = converted;
    if (type == AK_Q8_0 || type == AK_Q4_0 || type == AK_Q4_1) ak_quantized_block(converted, type, block, scales);
    else values = float_block(converted, type, block);
    for (size_t k = 0; k < AK_BLOCK; k++)
        for (size_t r = 0; r < AK_PANEL; r++) out[(k / 2 * AK_PANEL + r) * 2 + k % 2] = ak_float_to_bf16(values[k * AK_PANEL + r]);
}

void ak_portable_widen(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    if (type == AK_Q8_0) {
        for (size_t k = 0; k < AK_BLOCK; k++)
            for (size_t r = 0; r < AK_PANEL; r++) out->pairs[k / 2][r][k % 2] = (int16_t)(block[k / 4 * AK_LINE + r * 4 + k % 4] - 128);
        for (size_t r = 0; r < AK_PANEL; r++) out->scales[r] = ak_half_to_float(scales[r]);
        return;
    }
    float values[AK_BLOCK * AK_PANEL];
    float_block(values, type, block);
    for (size_t r = 0; r < AK_PANEL; r++) {
        float largest = 0;
        for (size_t k = 0; k < AK_BLOCK; k++) largest = fmaxf(largest, fabsf(values[k * AK_PANEL + r]));
        const float scale = largest / AK_WIDE_MAX, inverse = ak_inverse_scale(scale);
        out->scales[r] = scale;
        for (size_t k = 0; k < AK_BLOCK; k++) out->pairs[k / 2][r][k % 2] = ak_wide_value(values[k * AK_PANEL + r] * inverse);
    }
}

void ak_portable_i8(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, int32_t flags, const ak_upcoming *upcoming) {
    (void)upcoming;
    const int32_t groups = ak_groups(weight->blocks), act_groups = ak_groups(act->blocks);
    for (int32_t p = 0; p < panel_count; p++) {
        const int8_t *values = (const int8_t *)weight->data + (size_t)panels[p] * weight->stride;
        for (int32_t t = 0; t < act->tokens; t++) {
            const int8_t *row = (const int8_t *)act->data + (size_t)t * act->stride;
            float sums[AK_PANEL] = {0};
            for (int32_t g = 0; g < groups; g++) {
                int32_t dots[AK_PANEL] = {0};
                const int32_t end = ak_group_end(g, weight->blocks) * AK_BLOCK;
                for (int32_t k = g * AK_GROUP; k < end; k++)
                    for (int32_t r = 0; r < AK_PANEL; r++) dots[r] += (int32_t)values[(size_t)(k / 4) * AK_LINE + (size_t)(r * 4 + k % 4)] * row[k];
                const float *scales = ak_i8_scales(weight, panels[p], g), scale = act->scales[(size_t)t * (size_t)act_groups + (size_t)g];
                for (int r = 0; r < AK_PANEL; r++) sums[r] += (float)dots[r] * (scales[r] * scale);
            }
            const ak_tile tile = {.out = out + (size_t)t * ldo, .ldo = ldo, .panel = {panels[p]}, .bias = bias, .flags = flags};
            finish(sums, &tile, 0, 0);
        }
    }
}

#define ROW(f) {f, f, f, f, f, f, f, f}
#define SET(f) {.tokens = 8, .panels = {4, 4, 4, 4, 4, 4, 4, 4, 4}, .run = {ROW(f), ROW(f), ROW(f), ROW(f)}}
static const ak_tile_set f32_tiles = SET(tile_f32), f16_tiles = SET(tile_f16), bf16_tiles = SET(tile_bf16);
static const ak_tile_set bf16_dot_tiles = SET(tile_bf16_dot), q8_tiles = SET(tile_q8);
static const ak_tile_set q4_0_tiles = SET(tile_q4_0), q4_1_tiles = SET(tile_q4_1);
const ak_tile_set ak_portable_i16_tiles = SET(tile_i16);

const ak_matmul_parts ak_portable_matmul = {
    .f32 = &f32_tiles, .f16 = &f16_tiles, .bf16 = &bf16_tiles, .bf16_dot = &bf16_dot_tiles, .q8 = &q8_tiles,
    .q4_0 = &q4_0_tiles, .q4_1 = &q4_1_tiles, .i16 = &ak_portable_i16_tiles, .pairs = ak_portable_pairs, .rows = ak_portable_rows,
    .panel = ak_portable_panel,
    .widen = ak_portable_widen,
};
