// Products of more than a few tokens of BF16 activations, with tiles that take any number of tokens (AMX): so fast that what they wait for is the
// second-level cache. So a tile's activations stay in the first-level cache, past which weights are read, and a group's weights in the second. Loop
// order, outermost first: a group of panels; a part of the inputs; a tile's tokens; two panels.
#include "matmul_weights.h"

// The panels of a group: where they lie as BF16, in scratch unless they are that already.
typedef struct {
    int32_t at_once, most;   // blocks of a panel that scratch holds, and panels
    size_t dense;            // bytes of a panel in scratch
    uint8_t *scratch;
} group_room;

static group_room room_for(const ak_matrix *weight, void *scratch) {
    const int32_t at_once = blocks_at_once(AK_BF16, weight);
    return (group_room){at_once, group_panels(at_once), (size_t)at_once * ak_block_step(AK_BF16), scratch};
}

static int32_t tiles_of(const ak_tile_set *set, const ak_activations *act) { return (act->tokens + set->tokens - 1) / set->tokens; }

// Turns listed blocks first ..< last of a panel into BF16 as panel `slot` of the group, if it is not that.
static void bring(const group_room *room, int32_t slot, const ak_matmul_parts *parts, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                  int32_t first, int32_t last) {
    if (unpacks(AK_BF16, weight)) unpack(room->scratch + (size_t)slot * room->dense, parts, AK_BF16, weight, panel, blocks, first, last);
}

// The group's panel `slot` as panel j of the tile.
static void set_panel(ak_tile *tile, int32_t j, const group_room *room, int32_t slot, const ak_matrix *weight, int32_t panel) {
    if (unpacks(AK_BF16, weight)) {
        tile->weight[j] = room->scratch + (size_t)slot * room->dense;
        tile->step = ak_block_step(AK_BF16);
        tile->flags |= AK_TILE_DENSE;
    } else {
        set_weights(tile, weight, panel, j);
    }
}

// Between two parts a tile's sums wait in `out`.
void ak_multiply_groups(const ak_matmul_parts *parts, const ak_tile_set *set, float *out, size_t ldo, const ak_activations *act,
                        const ak_matrix *weight, const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks,
                        int32_t listed, int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    const group_room room = room_for(weight, scratch);
    const int32_t part = listed > 0 ? even_part(listed, room.at_once) : 1, tiles = tiles_of(set, act);
    for (int32_t p = 0; p < panel_count; p += room.most) {
        const int32_t count = smaller(room.most, panel_count - p);
        int32_t first = 0;
        do {   // runs once even without blocks: out must be written
            const int32_t last = smaller(listed, first + part);
            const int is_last = last == listed;
            for (int32_t i = 0; i < count; i++) bring(&room, i, parts, weight, panels[p + i], blocks, first, last);
            ak_tile tile = {
                .stride = act->stride, .act_blocks = (size_t)act->blocks, .blocks = blocks, .first = first, .last = last,
                .bias = is_last ? bias : NULL, .flags = (is_last ? flags : flags & ~AK_RELU6) | (first > 0 ? AK_ACCUMULATE : 0),
            };
            for (int32_t t = 0; t < tiles; t++) {
                tile.tokens = smaller(set->tokens, act->tokens - t * set->tokens);
                set_tokens(&tile, act, out, ldo, t * set->tokens);
                // What comes next is asked for tile by tile.
                if (is_last && weight->layout == AK_ROWS) ask_for_rows(weight, panels, p + count, count, panel_count, upcoming, t, tiles);
                else if (is_last) ask_for_panels(weight, panels, p + count, count, panel_count, blocks, listed, upcoming, t, tiles);
                for (int32_t i = 0; i < count; i += 2) {
                    tile.panels = smaller(2, count - i);
                    for (int32_t j = 0; j < tile.panels; j++) {
                        tile.panel[j] = panels[p + i + j];
                        set_panel(&tile, j, &room, i + j, weight, panels[p + i + j]);
                    }
                    set->run_any(&tile);
                }
            }
            first = last;
        } while (first < listed);
    }
}

// A tile's two panels are those of gate and up, or two of a single product; what they give is combined while it is in the first-level cache.
void ak_multiply_middle(const ak_matmul_parts *parts, const ak_tile_set *set, ak_middle_function combine, uint16_t *out, size_t ldo,
                        const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias, void (*activation)(float *, size_t),
                        const int32_t *panels, int32_t panel_count, int32_t following, void *scratch) {
    const group_room room = room_for(gate, scratch);
    const int32_t blocks = smaller(gate->blocks, act->blocks), tiles = tiles_of(set, act), products = up ? 2 : 1, most = room.most / products;
    const int32_t listed = panel_count + following;
    const ak_matrix *weights[2] = {gate, up ? up : gate};
    float sums[AK_MOST_TOKENS * AK_MIDDLE_PANELS * AK_PANEL] __attribute__((aligned(AK_LINE))) = {0}, tile_bias[AK_MIDDLE_PANELS * AK_PANEL];
    for (int32_t p = 0; p < panel_count; p += most) {
        const int32_t count = smaller(most, panel_count - p), slots = count * products;
        for (int32_t i = 0; i < slots; i++) bring(&room, i, parts, weights[i % products], panels[p + i / products], NULL, 0, blocks);
        for (int32_t t = 0; t < tiles; t++) {
            for (int32_t i = 0; i < products; i++) {
                if (weights[i]->layout == AK_ROWS) ask_for_rows(weights[i], panels, p + count, count, listed, NULL, t, tiles);
                else ask_for_panels(weights[i], panels, p + count, count, listed, NULL, blocks, NULL, t, tiles);
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
                    set_panel(&tile, j, &room, i + j, weights[(i + j) % products], made[j]);
                    if (bias) memcpy(tile_bias + j * AK_PANEL, bias + (size_t)made[j] * AK_PANEL, AK_PANEL * sizeof(float));
                }
                set->run_any(&tile);
                combine(out + (size_t)first * ldo, ldo, sums, tile.tokens, made, tile.panels, up ? NULL : activation);
            }
        }
    }
}
