// The weights of a matrix product: addresses of panels and blocks, conversion into panels that tiles multiply, prefetch.
#pragma once
#include <string.h>

#include "internal.h"

#define ROWS_ROUNDED 8                  // blocks that are dequantized to float32 before they are rounded to BF16
#define PAIRS_BLOCKS AK_MIDDLE_BLOCKS   // blocks of a panel that are converted to BF16 at once
#define GROUP_BYTES (1024 * 1024)       // weights of a panel group (matmul_groups.c): half of the second-level cache
#define GROUP_PANELS 12                 // panels of a group, at most

static inline int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

// The size of the largest part if `count` is divided into as few parts of nearly equal size as `limit` permits.
static inline int32_t even_part(int32_t count, int32_t limit) {
    const int32_t parts = (count + limit - 1) / limit;
    return parts > 0 ? (count + parts - 1) / parts : limit;
}

static inline int is_quantized(ak_type type) { return ak_block_scale_bytes(type) > 0; }

// Whether weights are converted in scratch before they are multiplied. BF16 activations need BF16 panels, F32 activations float panels; rows are
// dequantized, or under Q8_0 activations packed into panels of their own type.
static inline int is_converted(ak_type act, const ak_matrix *weight) {
    if (weight->layout == AK_ROWS) return 1;
    return act == AK_BF16 ? weight->type != AK_BF16 : is_quantized(weight->type) && act == AK_F32;
}

// The first block of a packed panel, and the bytes from one of its blocks to the next.
static inline const uint8_t *packed_panel(const ak_matrix *weight, int32_t panel) {
    const int32_t member = panel % weight->bundle;
    return (const uint8_t *)weight->data + (size_t)(panel - member) * weight->stride + (size_t)member * ak_block_step(weight->type);
}
static inline size_t packed_step(const ak_matrix *weight) { return (size_t)weight->bundle * ak_block_step(weight->type); }

// Whether the upcoming panels have the layout of the current ones.
static inline int has_same_layout(const ak_matrix *weight, const ak_upcoming *upcoming) {
    return upcoming != NULL && upcoming->weight->layout == weight->layout && upcoming->weight->type == weight->type &&
        upcoming->weight->blocks == weight->blocks && upcoming->weight->bundle == weight->bundle;
}

// Makes packed panel `panel` the tile's panel i.
static inline void set_weights(ak_tile *tile, const ak_matrix *weight, int32_t panel, int32_t i) {
    tile->weight[i] = packed_panel(weight, panel);
    tile->scales[i] = tile->weight[i] + ak_block_bytes(weight->type);
    tile->step = packed_step(weight);
}

// Dequantizes listed blocks first ..< last of a packed panel to F32: out [last - first][32][16].
static inline void dequantize_panel(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last) {
    ak_tile tile;
    set_weights(&tile, weight, panel, 0);
    for (int32_t i = first; i < last; i++, out += AK_BLOCK * AK_PANEL) {
        const size_t block = (size_t)(blocks ? blocks[i] : i);
        ak_quantized_block(out, weight->type, tile.weight[0] + block * tile.step, (const uint16_t *)ak_tile_scales(&tile, 0, block));
    }
}

// The first of a panel's 16 rows.
static inline const uint8_t *rows_of_panel(const ak_matrix *weight, int32_t panel) {
    return (const uint8_t *)weight->data + (size_t)panel * AK_PANEL * weight->stride;
}

// The rows of listed panel `at`, or of an upcoming panel after the end of the list.
static inline const uint8_t *next_rows(const ak_matrix *weight, const int32_t *panels, int32_t at, int32_t count, const ak_upcoming *upcoming) {
    if (at < count) return rows_of_panel(weight, panels[at]);
    if (upcoming != NULL && upcoming->weight->layout == AK_ROWS && at - count < upcoming->panel_count)
        return rows_of_panel(upcoming->weight, upcoming->panels[at - count]);
    return rows_of_panel(weight, panels[count - 1]);   // in the cache already, so its prefetch is free
}

// Prefetches part `part` of `parts` of the rows of `count` listed panels from `at` on.
static inline void prefetch_rows(const ak_matrix *weight, const int32_t *panels, int32_t at, int32_t count, int32_t panel_count,
                                 const ak_upcoming *upcoming, int32_t part, int32_t parts) {
    const size_t bytes = AK_PANEL * weight->stride / (size_t)parts;
    for (int32_t i = 0; i < count; i++) {
        const uint8_t *rows = next_rows(weight, panels, at + i, panel_count, upcoming) + (size_t)part * bytes;
        for (size_t line = 0; line < bytes; line += AK_LINE) __builtin_prefetch(rows + line, 0, 2);
    }
}

// Prefetches part `part` of `parts` of the listed blocks of `count` listed panels from `at` on, or of upcoming panels after the end of the list.
static inline void prefetch_panels(const ak_matrix *weight, const int32_t *panels, int32_t at, int32_t count, int32_t panel_count,
                                   const int32_t *blocks, int32_t listed, const ak_upcoming *upcoming, int32_t part, int32_t parts) {
    const int32_t first = (int32_t)((int64_t)listed * part / parts), last = (int32_t)((int64_t)listed * (part + 1) / parts);
    const size_t bytes = ak_block_step(weight->type), step = packed_step(weight);
    for (int32_t i = at; i < at + count; i++) {
        const uint8_t *panel;
        if (i < panel_count) panel = packed_panel(weight, panels[i]);
        else if (has_same_layout(weight, upcoming) && i - panel_count < upcoming->panel_count)
            panel = packed_panel(upcoming->weight, upcoming->panels[i - panel_count]);
        else return;
        for (int32_t b = first; b < last; b++) {
            const uint8_t *block = panel + (size_t)(blocks ? blocks[b] : b) * step;
            for (size_t line = 0; line < bytes; line += AK_LINE) __builtin_prefetch(block + line, 0, 2);
        }
    }
}

// Converts listed blocks first ..< last of a panel to the activations' type, F32 or BF16: packed blocks, one after another.
static inline void dequantize(void *out, const ak_matmul_parts *parts, ak_type act, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                              int32_t first, int32_t last) {
    if (act == AK_F32) {
        if (weight->layout == AK_ROWS) parts->rows(out, weight, panel, blocks, first, last);
        else dequantize_panel(out, weight, panel, blocks, first, last);
        return;
    }
    uint16_t *pairs = out;
    if (weight->layout == AK_ROWS) {
        float values[ROWS_ROUNDED * AK_BLOCK * AK_PANEL];
        for (int32_t i = first; i < last; i += ROWS_ROUNDED) {
            const int32_t count = smaller(ROWS_ROUNDED, last - i);
            parts->rows(values, weight, panel, blocks, i, i + count);
            for (int32_t j = 0; j < count; j++, pairs += AK_BLOCK * AK_PANEL)
                parts->pairs(pairs, AK_F32, (const uint8_t *)(values + j * AK_BLOCK * AK_PANEL), NULL);
        }
        return;
    }
    ak_tile tile;
    set_weights(&tile, weight, panel, 0);
    for (int32_t i = first; i < last; i++, pairs += AK_BLOCK * AK_PANEL) {
        const size_t block = (size_t)(blocks ? blocks[i] : i);
        parts->pairs(pairs, weight->type, tile.weight[0] + block * tile.step, (const uint16_t *)ak_tile_scales(&tile, 0, block));
    }
}

// Panels of a group (matmul_groups.c) whose parts have `blocks` blocks.
static inline int32_t group_panels(int32_t blocks) {
    const int32_t fitting = (int32_t)(GROUP_BYTES / ((size_t)(blocks > 0 ? blocks : 1) * ak_block_step(AK_BF16))) / 2 * 2;
    return fitting < 2 ? 2 : smaller(fitting, GROUP_PANELS);
}

// Blocks of a panel that are converted at once.
static inline int32_t blocks_at_once(ak_type act, const ak_matrix *weight) {
    return smaller(weight->blocks, act == AK_BF16 ? PAIRS_BLOCKS : AK_ROWS_BLOCKS);
}

// Makes `token` the tile's first token.
static inline void set_tokens(ak_tile *tile, const ak_activations *act, float *out, size_t ldo, int32_t token) {
    const size_t size = act->type == AK_F32 ? 4 : act->type == AK_Q8_0 ? 1 : 2;
    tile->out = out + (size_t)token * ldo;
    tile->ldo = ldo;
    tile->act = (const uint8_t *)act->data + (size_t)token * act->stride * size;
    if (act->type == AK_Q8_0 || act->type == AK_I16) tile->act_scales = act->scales + (size_t)token * (size_t)act->blocks;
    if (act->type == AK_Q8_0) tile->act_sums = act->sums + (size_t)token * (size_t)act->blocks;
}
