// The matrix product, for every instruction set: which tiles are multiplied in which order. The tiles themselves are in matmul_*.c.
//
// Loop order, outermost first: a group of panels; up to AK_STRIP tokens; a part of the inputs whose weights fit the second-level
// cache; tiles of a few tokens. A tile's sums wait in `partial` between two parts, so every output is summed over its inputs in
// ascending order, whatever the tiles. Tiles of any number of tokens have an order of their own (matmul_groups.c).
#include <string.h>

#include "matmul_weights.h"

#define AK_STRIP 128                    // tokens whose partial sums are held at once
#define AK_CHUNK_BYTES (256 * 1024)     // weights multiplied by a strip before the next part of the inputs

#define QUANTIZED_ROWS_BLOCKS 384       // blocks of two panels that are packed once for many tokens: what fits the second-level cache
#define ASKING_TILES 8                  // last tiles that ask for the rows of the next panels
#define PANELS_ASKING_TILES 32          // the same for panels that are multiplied as they lie
#define QUANTIZED_ROWS_FEW 32           // the same for so few tokens that they meet each block once: what fits the first-level cache

// The tiles of weights that are turned into ak_wide_block on the way; NULL if they are not.
static const ak_tile_set *wide_set(const ak_matmul_parts *parts, const ak_activations *act, const ak_matrix *weight) {
    if (act->type == AK_I16) return weight->layout != AK_ROWS && (weight->type == AK_F16 || weight->type == AK_BF16) ? parts->i16 : NULL;
    if (act->type != AK_Q8_0 || act->tokens < AK_WIDE_TOKENS) return NULL;
    switch (weight->type) {
        case AK_Q8_0: return parts->wide_q8;
        case AK_Q4_0: return parts->wide_q4_0;
        case AK_Q4_1: return parts->wide_q4_1;
        default: return NULL;
    }
}

static const ak_tile_set *tile_set(const ak_matmul_parts *parts, ak_type act, const ak_matrix *weight) {
    if (act == AK_BF16) return parts->bf16_dot;
    if (act == AK_F32 && weight->layout == AK_ROWS) return parts->f32;
    if (act != AK_Q8_0 && weight->layout == AK_ROWS) return NULL;
    switch (weight->type) {
        case AK_F32: return act == AK_F32 ? parts->f32 : NULL;
        case AK_F16: return act == AK_F32 ? parts->f16 : NULL;
        case AK_BF16: return act == AK_F32 ? parts->bf16 : NULL;
        case AK_Q8_0: return act == AK_Q8_0 ? parts->q8 : act == AK_F32 ? parts->f32 : NULL;
        case AK_Q4_0: return act == AK_Q8_0 ? parts->q4_0 : act == AK_F32 ? parts->f32 : NULL;
        case AK_Q4_1: return act == AK_Q8_0 ? parts->q4_1 : act == AK_F32 ? parts->f32 : NULL;
        default: return NULL;
    }
}

// What follows the tile of `taken` panels of a list: the rest of the list, or else what the caller says comes then.
static void set_next(ak_tile *tile, const ak_matrix *weight, const int32_t *rest, int32_t rest_count, const ak_upcoming *upcoming) {
    if (rest_count <= 0 && goes_on(weight, upcoming)) {
        weight = upcoming->weight;
        rest = upcoming->panels;
        rest_count = upcoming->panel_count;
    }
    for (int32_t i = 0; i < tile->panels; i++) {
        ak_tile next;
        if (i < rest_count) set_weights(&next, weight, rest[i], 0);
        tile->next[i] = i < rest_count ? next.weight[0] : NULL;
    }
}

static int is_whole(const ak_matrix *weight, int32_t panel) { return ((int64_t)panel + 1) * AK_PANEL <= weight->rows; }

// Listed blocks first ..< last of a panel that lies in rows, packed. The last rows are not read where there are none.
static void pack(uint8_t *out, const ak_matmul_parts *parts, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                 int32_t first, int32_t last, const uint8_t *ahead) {
    (is_whole(weight, panel) ? parts->panel : ak_portable_panel)(out, weight, panel, blocks, first, last, ahead);
}

// Listed blocks first ..< last of a panel, widened.
static void widen(ak_wide_block *out, const ak_matmul_parts *parts, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                  int32_t first, int32_t last) {
    if (weight->layout == AK_ROWS) {
        uint8_t packed[AK_BLOCK * AK_PANEL + AK_PANEL * 2];   // Q8_0, the largest
        for (int32_t i = first; i < last; i++, out++) {
            pack(packed, parts, weight, panel, blocks, i, i + 1, rows_of_panel(weight, panel));
            parts->widen(out, weight->type, packed, (const uint16_t *)(packed + ak_block_bytes(weight->type)));
        }
        return;
    }
    ak_tile tile;
    set_weights(&tile, weight, panel, 0);
    for (int32_t i = first; i < last; i++, out++) {
        const size_t block = (size_t)(blocks ? blocks[i] : i);
        parts->widen(out, weight->type, tile.weight[0] + block * tile.step, (const uint16_t *)ak_tile_scales(&tile, 0, block));
    }
}

// Writes the sums of a panel's rows for one token.
static void finish_panel(float *out, const float *sums, int32_t panel, const float *bias, int32_t flags) {
    const size_t column = (size_t)panel * AK_PANEL;
    float *row = out + column;
    float values[AK_PANEL];
    for (int r = 0; r < AK_PANEL; r++) values[r] = sums[r] + (bias ? bias[column + (size_t)r] : 0.0f);
    if (flags & AK_ACCUMULATE)
        for (int r = 0; r < AK_PANEL; r++) values[r] = row[r] + values[r];
    if (flags & AK_RELU6)
        for (int r = 0; r < AK_PANEL; r++) values[r] = ak_relu6(values[r]);
    memcpy(row, values, sizeof values);
}

// One token (more are faster with rows that are packed on the way) with the rows of listed panels, where they lie. Returns how many panels it
// took: all but a last one of fewer rows.
static int32_t multiply_rows(const ak_row_products *products, float *out, const ak_activations *act, const ak_matrix *weight,
                             const float *bias, const int32_t *panels, int32_t panel_count, int32_t flags, const ak_upcoming *upcoming,
                             void *scratch) {
    const int32_t count = panel_count > 0 && !is_whole(weight, panels[panel_count - 1]) ? panel_count - 1 : panel_count;
    products->arrange(scratch, act, weight);
    int32_t run = 0;   // where the panels end that lie side by side
    for (int32_t p = 0; p < count; p++) {
        if (p >= run)
            for (run = p + 1; run < count && panels[run] == panels[run - 1] + 1;) run++;
        float sums[AK_PANEL];
        const uint8_t *end = rows_of_panel(weight, panels[run - 1] + 1);
        products->dots(sums, weight, panels[p], end, later_rows(weight, panels, run, panel_count, upcoming), scratch);
        finish_panel(out, sums, panels[p], bias, flags);
    }
    return count;
}

// What multiplies one token with panels as they lie, if there is anything for it.
static ak_one_token_function one_token_function(const ak_matmul_parts *parts, const ak_activations *act, const ak_matrix *weight) {
    if (parts->one_token == NULL || act->tokens != 1 || act->type != AK_Q8_0 || weight->layout == AK_ROWS) return NULL;
    switch (weight->type) {
        case AK_Q8_0: return parts->one_token->q8;
        case AK_Q4_0: return parts->one_token->q4_0;
        case AK_Q4_1: return parts->one_token->q4_1;
        default: return NULL;
    }
}

// Listed panels from the first on that lie side by side, of one bundle or for as many streams, of which as many as one product takes.
static int32_t members(const ak_matrix *weight, const int32_t *panels, int32_t count, int32_t streams) {
    const int32_t together = weight->bundle > 1 ? weight->bundle - panels[0] % weight->bundle : streams;
    const int32_t most = smaller(smaller(together, AK_BUNDLE_PANELS), count);
    int32_t found = 1;
    while (found < most && panels[found] == panels[0] + found) found++;
    return found;
}

// One token with listed panels, those of a bundle, or of as many streams, together.
static void multiply_panels(ak_one_token_function multiply, int32_t streams, float *out, const ak_activations *act, const ak_matrix *weight,
                            const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                            const ak_upcoming *upcoming) {
    const size_t member_step = weight->bundle > 1 ? ak_block_step(weight->type) : weight->stride;
    for (int32_t p = 0, together; p < panel_count; p += together) {
        together = members(weight, panels + p, panel_count - p, streams);
        const uint8_t *first = packed_panel(weight, panels[p]), *next = first;
        if (p + together < panel_count) next = packed_panel(weight, panels[p + together]);
        else if (goes_on(weight, upcoming) && upcoming->panel_count > 0) next = packed_panel(upcoming->weight, upcoming->panels[0]);
        float sums[AK_BUNDLE_PANELS * AK_PANEL];
        multiply(sums, act, first, packed_step(weight), member_step, together, next, blocks, block_count);
        for (int32_t m = 0; m < together; m++) finish_panel(out, sums + m * AK_PANEL, panels[p + m], bias, flags);
    }
}

// A group's BF16 panels, which are more than other tiles need, or AK_TILE_PANELS wide ones (or two F32 ones, which are smaller); of quantized rows two
// panels, longer ones, or what their own products need.
size_t ak_matmul_scratch(const ak_matrix *weight) {
    const int32_t at_once = blocks_at_once(AK_BF16, weight), group = group_panels(at_once);
    const size_t pairs = (size_t)at_once * ak_block_step(AK_BF16) * (size_t)(group > AK_TILE_PANELS ? group : AK_TILE_PANELS);
    if (weight->layout != AK_ROWS && weight->type == AK_F32) return pairs;
    const size_t wide = (size_t)blocks_at_once(AK_F32, weight) * sizeof(ak_wide_block) * AK_TILE_PANELS;
    const size_t some = wide > pairs ? wide : pairs;
    if (weight->layout != AK_ROWS || !is_quantized(weight->type)) return some;
    const size_t packed = (size_t)smaller(weight->blocks, QUANTIZED_ROWS_BLOCKS) * 2 * ak_block_step(weight->type);
    const size_t chunks = (size_t)(weight->blocks / AK_ROW_CHUNK + 1) * AK_ROW_CHUNK_BYTES;
    const size_t rows = packed > chunks ? packed : chunks;
    return rows > some ? rows : some;
}

void ak_matmul_with(const ak_matmul_parts *parts, float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight,
                    const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count,
                    int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    if (act->type == AK_I8 || weight->type == AK_I8) {
        if (act->type != weight->type || weight->layout != AK_PANELS || weight->bundle != 1 || blocks != NULL || act->blocks < weight->blocks) return;
        (parts->i8 ? parts->i8 : ak_portable_i8)(out, ldo, act, weight, bias, panels, panel_count, flags, upcoming);
        return;
    }
    const ak_tile_set *wide_tiles = wide_set(parts, act, weight);
    const int wide = wide_tiles != NULL, unpacked = wide || unpacks(act->type, weight);
    const int packed = !wide && weight->layout == AK_ROWS && act->type == AK_Q8_0;   // on the way
    const ak_tile_set *set = wide ? wide_tiles : tile_set(parts, act->type, weight);
    if (set == NULL || act->tokens <= 0) return;
    // What is packed on the way comes from the cache.
    const int streams = !unpacked && set->some != NULL && act->tokens <= AK_SOME_TOKENS;
    if (streams) set = set->some;
    if (packed && blocks == NULL && act->tokens == 1 && weight->blocks <= act->blocks && parts->row_products != NULL) {
        const int32_t done = multiply_rows(parts->row_products, out, act, weight, bias, panels, panel_count, flags, upcoming, scratch);
        panels += done;
        panel_count -= done;
    }
    const int32_t listed = blocks ? block_count : smaller(weight->blocks, act->blocks);
    const ak_one_token_function one = one_token_function(parts, act, weight);
    if (one != NULL) {
        multiply_panels(
            one, parts->streams > 0 ? parts->streams : 1, out, act, weight, bias, panels, panel_count, blocks, listed, flags, upcoming);
        return;
    }
    if (set->run_any != NULL && act->tokens > AK_FEW_TOKENS) {
        ak_multiply_groups(parts, set, out, ldo, act, weight, bias, panels, panel_count, blocks, listed, flags, upcoming, scratch);
        return;
    }
    const int32_t tile_tokens = set->run_any ? set->tokens : even_part(act->tokens, set->tokens);
    const int32_t at_once = blocks_at_once(act->type, weight);
    int32_t group = set->panels[set->run_any ? 0 : tile_tokens];
    if (unpacked && (act->type == AK_F32 || packed || at_once > AK_ROWS_BLOCKS)) group = smaller(2, group);

    // Weights that are read once need no part that fits a cache.
    int32_t part = listed;
    if (packed) part = act->tokens > tile_tokens ? QUANTIZED_ROWS_BLOCKS : QUANTIZED_ROWS_FEW;
    else if (unpacked) part = at_once;
    else if (act->tokens > tile_tokens) part = (int32_t)(AK_CHUNK_BYTES / ((size_t)group * ak_block_bytes(weight->type)));
    // Whole tiles, so that only the last tile of all can be a smaller one. What is unpacked in one part is unpacked once for all tokens.
    const int single_strip = unpacked && listed <= part;
    const int32_t strip = single_strip ? act->tokens : (even_part(act->tokens, AK_STRIP) + tile_tokens - 1) / tile_tokens * tile_tokens;

    float partial[(AK_STRIP + AK_MOST_TOKENS) * AK_TILE_PANELS * AK_PANEL];
    for (int32_t p = 0; p < panel_count; p += group) {
        ak_tile tile = {
            .panels = smaller(group, panel_count - p), .stride = act->stride, .act_blocks = (size_t)act->blocks,
            .blocks = blocks, .bias = bias,
        };
        for (int32_t i = 0; i < tile.panels; i++) {
            tile.panel[i] = panels[p + i];
            if (!unpacked) set_weights(&tile, weight, panels[p + i], i);
        }
        if (!unpacked) set_next(&tile, weight, panels + p + tile.panels, panel_count - p - tile.panels, upcoming);
        for (int32_t token = 0; token < act->tokens; token += strip) {
            const int32_t strip_end = smaller(token + strip, act->tokens);
            int32_t first = 0;
            do {   // runs once even without blocks: out must be written
                tile.first = first;
                tile.last = smaller(listed, first + part);
                tile.flags = flags | (first > 0 ? AK_TILE_RESUME : 0) | (tile.last < listed ? AK_TILE_SUSPEND : 0);
                if (unpacked) {
                    tile.flags |= AK_TILE_DENSE;
                    tile.step = wide ? sizeof(ak_wide_block) : ak_block_step(packed ? weight->type : act->type);
                    for (int32_t i = 0; i < tile.panels; i++) {
                        if (wide) {
                            ak_wide_block *dense = (ak_wide_block *)scratch + i * at_once;
                            widen(dense, parts, weight, tile.panel[i], blocks, tile.first, tile.last);
                            tile.weight[i] = (const uint8_t *)dense;
                            continue;
                        }
                        if (packed) {
                            uint8_t *dense = (uint8_t *)scratch + (size_t)i * (size_t)(tile.last - tile.first) * tile.step;
                            // Many tokens would drive out what came this early.
                            const uint8_t *ahead = act->tokens > tile_tokens ? rows_of_panel(weight, tile.panel[i])
                                : later_rows(weight, panels, p + tile.panels + i, panel_count, upcoming);
                            pack(dense, parts, weight, tile.panel[i], blocks, tile.first, tile.last, ahead);
                            tile.weight[i] = dense;
                            tile.scales[i] = dense + ak_block_bytes(weight->type);
                            continue;
                        }
                        uint8_t *dense = (uint8_t *)scratch + (size_t)i * (size_t)at_once * tile.step;
                        unpack(dense, parts, act->type, weight, tile.panel[i], blocks, tile.first, tile.last);
                        tile.weight[i] = dense;
                    }
                }
                for (int32_t t = token; t < strip_end; t += tile_tokens) {
                    tile.tokens = smaller(tile_tokens, strip_end - t);
                    // A single strip may be longer than there is room for, and has no second part that would need it.
                    tile.partial = single_strip ? NULL : partial + (size_t)(t - token) * (size_t)(tile.panels * AK_PANEL);
                    set_tokens(&tile, act, out, ldo, t);
                    const int32_t left = (act->tokens - t + tile_tokens - 1) / tile_tokens;
                    const int32_t asking = smaller(packed ? ASKING_TILES : PANELS_ASKING_TILES, act->tokens / tile_tokens);
                    if (packed && left <= asking && tile.last == listed)
                        ask_for_rows(weight, panels, p + tile.panels, tile.panels, panel_count, upcoming, asking - left, asking);
                    if (weight->layout != AK_ROWS && (wide || !unpacked) && !streams && left <= asking && tile.last == listed && act->tokens > tile_tokens)
                        ask_for_panels(weight, panels, p + tile.panels, tile.panels, panel_count, blocks, listed, upcoming, asking - left, asking);
                    (set->run_any ? set->run_any : set->run[tile.panels - 1][tile.tokens - 1])(&tile);
                }
                first = tile.last;
            } while (first < listed);
        }
    }
}
