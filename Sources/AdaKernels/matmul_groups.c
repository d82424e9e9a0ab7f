// GEMM with BF16 activations and tiles of any number of tokens (AMX). Such tiles multiply faster than the second-level cache delivers, so a tile's
// activations stay in the first-level cache, and the weights of a panel group in the second.
//
// Loop order, outermost first: a panel group; a part of the inputs; a tile's tokens; two panels.
#include "matmul_weights.h"

// The workspace of a panel group: its BF16 panels are in scratch, unless the weights are BF16 panels already.
typedef struct {
    int32_t at_once;   // blocks of a panel that scratch has space for
    int32_t most;      // panels of a group
    size_t dense;      // bytes of a panel in scratch
    uint8_t *scratch;
} group_workspace;

static group_workspace workspace_for(const ak_matrix *weight, void *scratch) {
    const int32_t at_once = blocks_at_once(AK_BF16, weight);
    return (group_workspace){at_once, group_panels(at_once), (size_t)at_once * ak_block_step(AK_BF16), scratch};
}

static int32_t tiles_of(const ak_tile_set *set, const ak_activations *act) { return (act->tokens + set->tokens - 1) / set->tokens; }

// Converts listed blocks first ..< last of a panel to BF16 as the group's panel `slot`, unless they are BF16 already.
static void convert(const group_workspace *workspace, int32_t slot, const ak_matmul_parts *parts, const ak_matrix *weight, int32_t panel,
                    const int32_t *blocks, int32_t first, int32_t last) {
    if (!is_converted(AK_BF16, weight)) return;
    dequantize(workspace->scratch + (size_t)slot * workspace->dense, parts, AK_BF16, weight, panel, blocks, first, last);
}

// Makes the group's panel `slot` the tile's panel j.
static void set_panel(ak_tile *tile, int32_t j, const group_workspace *workspace, int32_t slot, const ak_matrix *weight, int32_t panel) {
    if (is_converted(AK_BF16, weight)) {
        tile->weight[j] = workspace->scratch + (size_t)slot * workspace->dense;
        tile->step = ak_block_step(AK_BF16);
        tile->flags |= AK_TILE_DENSE;
    } else {
        set_weights(tile, weight, panel, j);
    }
}

// From one part of the inputs to the next, sums wait in `out`.
void ak_multiply_groups(const ak_matmul_parts *parts, const ak_tile_set *set, float *out, size_t ldo, const ak_activations *act,
                        const ak_matrix *weight, const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks,
                        int32_t listed, int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    const group_workspace workspace = workspace_for(weight, scratch);
    const int32_t part = listed > 0 ? even_part(listed, workspace.at_once) : 1, tiles = tiles_of(set, act);
    for (int32_t p = 0; p < panel_count; p += workspace.most) {
        const int32_t count = smaller(workspace.most, panel_count - p);
        int32_t first = 0;
        do {   // runs once even without blocks, because out must be written
            const int32_t last = smaller(listed, first + part);
            const int is_last = last == listed;
            for (int32_t i = 0; i < count; i++) convert(&workspace, i, parts, weight, panels[p + i], blocks, first, last);
            ak_tile tile = {
                .stride = act->stride, .act_blocks = (size_t)act->blocks, .blocks = blocks, .first = first, .last = last,
                .bias = is_last ? bias : NULL, .flags = (is_last ? flags : flags & ~AK_RELU6) | (first > 0 ? AK_ACCUMULATE : 0),
            };
            for (int32_t t = 0; t < tiles; t++) {
                tile.tokens = smaller(set->tokens, act->tokens - t * set->tokens);
                set_tokens(&tile, act, out, ldo, t * set->tokens);
                // Each tile prefetches a part of the next group.
                if (is_last && weight->layout == AK_ROWS) prefetch_rows(weight, panels, p + count, count, panel_count, upcoming, t, tiles);
                else if (is_last) prefetch_panels(weight, panels, p + count, count, panel_count, blocks, listed, upcoming, t, tiles);
                for (int32_t i = 0; i < count; i += 2) {
                    tile.panels = smaller(2, count - i);
                    for (int32_t j = 0; j < tile.panels; j++) {
                        tile.panel[j] = panels[p + i + j];
                        set_panel(&tile, j, &workspace, i + j, weight, panels[p + i + j]);
                    }
                    set->run_any(&tile);
                }
            }
            first = last;
        } while (first < listed);
    }
}

// A tile's two panels are those of gate and up, or two of a single product. Their sums are combined while they are in the first-level cache.
void ak_multiply_middle(const ak_matmul_parts *parts, const ak_tile_set *set, ak_middle_function combine, uint16_t *out, size_t ldo,
                        const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias, void (*activation)(float *, size_t),
                        const int32_t *panels, int32_t panel_count, int32_t following, void *scratch) {
    const group_workspace workspace = workspace_for(gate, scratch);
    const int32_t blocks = smaller(gate->blocks, act->blocks), tiles = tiles_of(set, act), products = up ? 2 : 1, most = workspace.most / products;
    const int32_t listed = panel_count + following;
    const ak_matrix *weights[2] = {gate, up ? up : gate};
    float sums[AK_MOST_TOKENS * AK_MIDDLE_PANELS * AK_PANEL] __attribute__((aligned(AK_LINE))) = {0}, tile_bias[AK_MIDDLE_PANELS * AK_PANEL];
    for (int32_t p = 0; p < panel_count; p += most) {
        const int32_t count = smaller(most, panel_count - p), slots = count * products;
        for (int32_t i = 0; i < slots; i++) convert(&workspace, i, parts, weights[i % products], panels[p + i / products], NULL, 0, blocks);
        for (int32_t t = 0; t < tiles; t++) {
            for (int32_t i = 0; i < products; i++) {
                if (weights[i]->layout == AK_ROWS) prefetch_rows(weights[i], panels, p + count, count, listed, NULL, t, tiles);
                else prefetch_panels(weights[i], panels, p + count, count, listed, NULL, blocks, NULL, t, tiles);
            }
            for (int32_t i = 0; i < slots; i += AK_MIDDLE_PANELS) {
                const int32_t first = t * set->tokens;
                ak_tile tile = {
                    .tokens = smaller(set->tokens, act->tokens - first), .panels = smaller(AK_MIDDLE_PANELS, slots - i), .panel = {0, 1},
                    .act = (const uint16_t *)act->data + (size_t)first * act->stride, .stride = act->stride, .act_blocks = (size_t)act->blocks,
                    .out = sums, .ldo = AK_MIDDLE_PANELS * AK_PANEL, .last = blocks, .bias = bias ? tile_bias : NULL,
                };
                int32_t made[AK_MIDDLE_PANELS] = {0};
                for (int32_t j = 0; j < tile.panels; j++) {
                    made[j] = panels[p + (i + j) / products];
                    set_panel(&tile, j, &workspace, i + j, weights[(i + j) % products], made[j]);
                    if (bias) memcpy(tile_bias + j * AK_PANEL, bias + (size_t)made[j] * AK_PANEL, AK_PANEL * sizeof(float));
                }
                set->run_any(&tile);
                combine(out + (size_t)first * ldo, ldo, sums, tile.tokens, made, tile.panels, up ? NULL : activation);
            }
        }
    }
}
