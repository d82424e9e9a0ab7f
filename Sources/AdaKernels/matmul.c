// The matrix product of every instruction set: the choice of kernel, the division into tiles, and their order. The tiles are in matmul_*.c.
//
// ak_matmul_with chooses one of five ways:
//   multiply_i8         8-bit activations and weights
//   multiply_row_layout GEMV with quantized rows of a memory-mapped file, read in place
//   multiply_one_token  GEMV with packed quantized panels
//   ak_multiply_groups  GEMM with tiles of any number of tokens (AMX, matmul_groups.c)
//   multiply_tiles      every other product, with register tiles
#include <string.h>

#include "matmul_weights.h"

#define STRIP_TOKENS 128                // tokens whose partial sums are kept at once
#define STRIP_WEIGHT_BYTES (256 * 1024) // weights that a strip is multiplied with before the next blocks: they stay in the second-level cache

#define PACKED_BLOCKS_MANY 384          // blocks of two panels that are packed once for many tokens: they stay in the second-level cache
#define PACKED_BLOCKS_FEW 32            // the same for few tokens, which read each block once: they stay in the first-level cache
#define PREFETCHING_TILES_ROWS 8        // last tiles of a panel that prefetch the next panels' rows
#define PREFETCHING_TILES_PANELS 32     // the same for packed panels

// The arguments of a product.
typedef struct {
    const ak_matmul_parts *parts;
    float *out;
    size_t ldo;
    const ak_activations *act;
    const ak_matrix *weight;
    const float *bias;
    const int32_t *panels;
    int32_t panel_count;
    const int32_t *blocks;   // NULL: block i is i
    int32_t listed;          // number of blocks
    int32_t flags;
    const ak_upcoming *upcoming;
    void *scratch;
} ak_product;

// Whether a tile reads the weights in place or a converted copy in scratch.
typedef enum {
    IN_PLACE,       // packed panels of a type that the tiles multiply
    PACK_ROWS,      // rows of a file, packed into panels of their own type
    WIDEN,          // to ak_wide_block
    DEQUANTIZE,     // to panels of the activations' type, F32 or BF16
} weight_form;

// The tiles that multiply widened weights (ak_wide_block); NULL if this product does not widen.
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

// The tiles that multiply weights in any other form; NULL for an unsupported pair of types.
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

static weight_form form_of(const ak_activations *act, const ak_matrix *weight, const ak_tile_set *wide) {
    if (wide != NULL) return WIDEN;
    if (!is_converted(act->type, weight)) return IN_PLACE;
    return weight->layout == AK_ROWS && act->type == AK_Q8_0 ? PACK_ROWS : DEQUANTIZE;
}

static int is_whole(const ak_matrix *weight, int32_t panel) { return ((int64_t)panel + 1) * AK_PANEL <= weight->rows; }

// Writes the sums of a panel's 16 rows for one token.
static void write_panel(float *out, const float *sums, int32_t panel, const float *bias, int32_t flags) {
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

// --------------------------------------------------------------------------------------------------------------- 8-bit products

static void multiply_i8(const ak_matmul_parts *parts, float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                        const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t flags, const ak_upcoming *upcoming) {
    if (act->type != weight->type || weight->layout != AK_PANELS || weight->bundle != 1 || blocks != NULL || act->blocks < weight->blocks) return;
    (parts->i8 ? parts->i8 : ak_portable_i8)(out, ldo, act, weight, bias, panels, panel_count, flags, upcoming);
}

// ------------------------------------------------------------------------------------------------------------------------- GEMV

// Whether the rows are read in place. With more tokens it is faster to pack them first.
static int multiplies_row_layout(const ak_matmul_parts *parts, const ak_activations *act, const ak_matrix *weight, weight_form form,
                                 const int32_t *blocks) {
    return form == PACK_ROWS && blocks == NULL && act->tokens == 1 && weight->blocks <= act->blocks && parts->row_products != NULL;
}

// GEMV with rows of a file. Returns how many of the panels it multiplied: all except a last panel of fewer than 16 rows.
static int32_t multiply_row_layout(const ak_row_products *products, float *out, const ak_activations *act, const ak_matrix *weight, const float *bias,
                                   const int32_t *panels, int32_t panel_count, int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    const int32_t count = panel_count > 0 && !is_whole(weight, panels[panel_count - 1]) ? panel_count - 1 : panel_count;
    products->arrange(scratch, act, weight);
    int32_t run = 0;   // end of the adjacent panels that p belongs to
    for (int32_t p = 0; p < count; p++) {
        if (p >= run)
            for (run = p + 1; run < count && panels[run] == panels[run - 1] + 1;) run++;
        float sums[AK_PANEL];
        const uint8_t *end = rows_of_panel(weight, panels[run - 1] + 1);
        products->dots(sums, weight, panels[p], end, next_rows(weight, panels, run, panel_count, upcoming), scratch);
        write_panel(out, sums, panels[p], bias, flags);
    }
    return count;
}

// The kernel for a GEMV with packed panels, or NULL.
static ak_one_token_function one_token_function(const ak_matmul_parts *parts, const ak_activations *act, const ak_matrix *weight) {
    if (parts->one_token == NULL || act->tokens != 1 || act->type != AK_Q8_0 || weight->layout == AK_ROWS) return NULL;
    switch (weight->type) {
        case AK_Q8_0: return parts->one_token->q8;
        case AK_Q4_0: return parts->one_token->q4_0;
        case AK_Q4_1: return parts->one_token->q4_1;
        default: return NULL;
    }
}

// How many adjacent panels at the start of a list one GEMV call takes: the rest of a bundle, or one panel per memory stream.
static int32_t adjacent_panels(const ak_matrix *weight, const int32_t *panels, int32_t count, int32_t streams) {
    const int32_t together = weight->bundle > 1 ? weight->bundle - panels[0] % weight->bundle : streams;
    const int32_t most = smaller(smaller(together, AK_BUNDLE_PANELS), count);
    int32_t found = 1;
    while (found < most && panels[found] == panels[0] + found) found++;
    return found;
}

// GEMV with packed quantized panels.
static void multiply_one_token(ak_one_token_function multiply, const ak_product *product) {
    const ak_matrix *weight = product->weight;
    const ak_upcoming *upcoming = product->upcoming;
    const int32_t *panels = product->panels, panel_count = product->panel_count;
    const int32_t streams = product->parts->streams > 0 ? product->parts->streams : 1;
    const size_t member_step = weight->bundle > 1 ? ak_block_step(weight->type) : weight->stride;
    for (int32_t p = 0, together; p < panel_count; p += together) {
        together = adjacent_panels(weight, panels + p, panel_count - p, streams);
        const uint8_t *first = packed_panel(weight, panels[p]), *next = first;
        if (p + together < panel_count) next = packed_panel(weight, panels[p + together]);
        else if (has_same_layout(weight, upcoming) && upcoming->panel_count > 0) next = packed_panel(upcoming->weight, upcoming->panels[0]);
        float sums[AK_BUNDLE_PANELS * AK_PANEL];
        multiply(sums, product->act, first, packed_step(weight), member_step, together, next, product->blocks, product->listed);
        for (int32_t m = 0; m < together; m++) write_panel(product->out, sums + m * AK_PANEL, panels[p + m], product->bias, product->flags);
    }
}

// -------------------------------------------------------------------------------------------------------------- register tiles

// How multiply_tiles divides a product.
typedef struct {
    const ak_tile_set *set;
    weight_form form;
    int prefetches;          // 1: the tiles prefetch weights themselves
    int32_t tile_tokens;     // tokens of a tile
    int32_t tile_panels;     // panels of a tile
    int32_t at_once;         // blocks of a panel that scratch has space for (WIDEN, DEQUANTIZE)
    int32_t part;            // blocks multiplied before the next strip
    int single_strip;        // 1: one strip takes all tokens
    int32_t strip;           // tokens multiplied before the next part
    int32_t prefetching;     // last tiles of each group of panels that prefetch the next panels
} tile_plan;

// Packs listed blocks first ..< last of a panel from its rows. The portable version reads no rows that the last panel lacks.
static void pack(uint8_t *out, const ak_matmul_parts *parts, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                 int32_t first, int32_t last, const uint8_t *ahead) {
    (is_whole(weight, panel) ? parts->panel : ak_portable_panel)(out, weight, panel, blocks, first, last, ahead);
}

// Widens listed blocks first ..< last of a panel.
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

static tile_plan plan_tiles(const ak_product *product, const ak_tile_set *set, weight_form form, int prefetches) {
    const ak_activations *act = product->act;
    const ak_matrix *weight = product->weight;
    tile_plan plan = {.set = set, .form = form, .prefetches = prefetches, .at_once = blocks_at_once(act->type, weight), .part = product->listed};
    plan.tile_tokens = set->run_any ? set->tokens : even_part(act->tokens, set->tokens);
    plan.tile_panels = set->panels[set->run_any ? 0 : plan.tile_tokens];
    if (form != IN_PLACE && (act->type == AK_F32 || form == PACK_ROWS || plan.at_once > AK_ROWS_BLOCKS))
        plan.tile_panels = smaller(2, plan.tile_panels);

    const int several_tiles = act->tokens > plan.tile_tokens;
    if (form == PACK_ROWS) plan.part = several_tiles ? PACKED_BLOCKS_MANY : PACKED_BLOCKS_FEW;
    else if (form != IN_PLACE) plan.part = plan.at_once;
    else if (several_tiles) plan.part = (int32_t)(STRIP_WEIGHT_BYTES / ((size_t)plan.tile_panels * ak_block_bytes(weight->type)));
    // Weights that are converted in one part are converted once for all tokens. Other strips have whole tiles, so that only the
    // product's last tile is smaller.
    plan.single_strip = form != IN_PLACE && product->listed <= plan.part;
    const int32_t tiles = (even_part(act->tokens, STRIP_TOKENS) + plan.tile_tokens - 1) / plan.tile_tokens;
    plan.strip = plan.single_strip ? act->tokens : tiles * plan.tile_tokens;
    plan.prefetching = smaller(form == PACK_ROWS ? PREFETCHING_TILES_ROWS : PREFETCHING_TILES_PANELS, act->tokens / plan.tile_tokens);
    return plan;
}

// Sets the panels that a tile in place prefetches: the rest of the list, then the upcoming panels.
static void set_next(ak_tile *tile, const ak_matrix *weight, const int32_t *rest, int32_t rest_count, const ak_upcoming *upcoming) {
    if (rest_count <= 0 && has_same_layout(weight, upcoming)) {
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

// Converts blocks tile->first ..< tile->last of the tile's panels (the list's from `p` on) into scratch.
static void convert_weights(ak_tile *tile, const ak_product *product, const tile_plan *plan, int32_t p) {
    const ak_matmul_parts *parts = product->parts;
    const ak_activations *act = product->act;
    const ak_matrix *weight = product->weight;
    tile->flags |= AK_TILE_DENSE;
    tile->step = plan->form == WIDEN ? sizeof(ak_wide_block) : ak_block_step(plan->form == PACK_ROWS ? weight->type : act->type);
    const size_t blocks = (size_t)(plan->form == PACK_ROWS ? tile->last - tile->first : plan->at_once);
    for (int32_t i = 0; i < tile->panels; i++) {
        uint8_t *dense = (uint8_t *)product->scratch + (size_t)i * blocks * tile->step;
        tile->weight[i] = dense;
        if (plan->form == WIDEN) {
            widen((ak_wide_block *)dense, parts, weight, tile->panel[i], product->blocks, tile->first, tile->last);
        } else if (plan->form == PACK_ROWS) {
            // With several tiles the next rows would be evicted before they are read, so the last tiles prefetch them instead.
            const uint8_t *ahead = act->tokens > plan->tile_tokens ? rows_of_panel(weight, tile->panel[i])
                : next_rows(weight, product->panels, p + tile->panels + i, product->panel_count, product->upcoming);
            pack(dense, parts, weight, tile->panel[i], product->blocks, tile->first, tile->last, ahead);
            tile->scales[i] = dense + ak_block_bytes(weight->type);
        } else {
            dequantize(dense, parts, act->type, weight, tile->panel[i], product->blocks, tile->first, tile->last);
        }
    }
}

// Prefetches a part of the next panels while one of the last tiles is multiplied; t is the tile's first token.
static void prefetch_next(const ak_tile *tile, const ak_product *product, const tile_plan *plan, int32_t p, int32_t t) {
    const ak_matrix *weight = product->weight;
    const int32_t left = (product->act->tokens - t + plan->tile_tokens - 1) / plan->tile_tokens, next = p + tile->panels;
    if (left > plan->prefetching || tile->last != product->listed) return;
    if (plan->form == PACK_ROWS)
        prefetch_rows(
            weight, product->panels, next, tile->panels, product->panel_count, product->upcoming, plan->prefetching - left, plan->prefetching);
    else if (weight->layout != AK_ROWS && plan->form != DEQUANTIZE && !plan->prefetches && product->act->tokens > plan->tile_tokens)
        prefetch_panels(
            weight, product->panels, next, tile->panels, product->panel_count, product->blocks, product->listed, product->upcoming,
            plan->prefetching - left, plan->prefetching);
}

// Every product that no special kernel multiplies. Loop order, outermost first: the panels of a tile; a strip of tokens; a part of the blocks whose
// weights fit the second-level cache; tiles. Sums wait in `partial` from one part to the next, so each output is summed in ascending order of inputs.
static void multiply_tiles(const ak_product *product, const ak_tile_set *set, weight_form form, int prefetches) {
    const ak_activations *act = product->act;
    const ak_matrix *weight = product->weight;
    const int32_t *panels = product->panels, panel_count = product->panel_count, listed = product->listed;
    const tile_plan plan = plan_tiles(product, set, form, prefetches);
    float partial[(STRIP_TOKENS + AK_MOST_TOKENS) * AK_TILE_PANELS * AK_PANEL];
    for (int32_t p = 0; p < panel_count; p += plan.tile_panels) {
        ak_tile tile = {
            .panels = smaller(plan.tile_panels, panel_count - p), .stride = act->stride, .act_blocks = (size_t)act->blocks,
            .blocks = product->blocks, .bias = product->bias,
        };
        for (int32_t i = 0; i < tile.panels; i++) {
            tile.panel[i] = panels[p + i];
            if (form == IN_PLACE) set_weights(&tile, weight, panels[p + i], i);
        }
        if (form == IN_PLACE) set_next(&tile, weight, panels + p + tile.panels, panel_count - p - tile.panels, product->upcoming);
        for (int32_t token = 0; token < act->tokens; token += plan.strip) {
            const int32_t strip_end = smaller(token + plan.strip, act->tokens);
            int32_t first = 0;
            do {   // runs once even without blocks, because out must be written
                tile.first = first;
                tile.last = smaller(listed, first + plan.part);
                tile.flags = product->flags | (first > 0 ? AK_TILE_RESUME : 0) | (tile.last < listed ? AK_TILE_SUSPEND : 0);
                if (form != IN_PLACE) convert_weights(&tile, product, &plan, p);
                for (int32_t t = token; t < strip_end; t += plan.tile_tokens) {
                    tile.tokens = smaller(plan.tile_tokens, strip_end - t);
                    // A single strip may have more tokens than `partial`, and has no second part.
                    tile.partial = plan.single_strip ? NULL : partial + (size_t)(t - token) * (size_t)(tile.panels * AK_PANEL);
                    set_tokens(&tile, act, product->out, product->ldo, t);
                    prefetch_next(&tile, product, &plan, p, t);
                    (set->run_any ? set->run_any : set->run[tile.panels - 1][tile.tokens - 1])(&tile);
                }
                first = tile.last;
            } while (first < listed);
        }
    }
}

// -------------------------------------------------------------------------------------------------------------------- dispatch

// The largest of: the BF16 panels of a group, or AK_TILE_PANELS widened panels (two F32 ones are smaller); for quantized rows also two packed
// panels, and the activations that ak_row_products arranges.
size_t ak_matmul_scratch(const ak_matrix *weight) {
    const int32_t at_once = blocks_at_once(AK_BF16, weight), group = group_panels(at_once);
    const size_t pairs = (size_t)at_once * ak_block_step(AK_BF16) * (size_t)(group > AK_TILE_PANELS ? group : AK_TILE_PANELS);
    if (weight->layout != AK_ROWS && weight->type == AK_F32) return pairs;
    const size_t wide = (size_t)blocks_at_once(AK_F32, weight) * sizeof(ak_wide_block) * AK_TILE_PANELS;
    const size_t some = wide > pairs ? wide : pairs;
    if (weight->layout != AK_ROWS || !is_quantized(weight->type)) return some;
    const size_t packed = (size_t)smaller(weight->blocks, PACKED_BLOCKS_MANY) * 2 * ak_block_step(weight->type);
    const size_t chunks = (size_t)(weight->blocks / AK_ROW_CHUNK + 1) * AK_ROW_CHUNK_BYTES;
    const size_t rows = packed > chunks ? packed : chunks;
    return rows > some ? rows : some;
}

void ak_matmul_with(const ak_matmul_parts *parts, float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight,
                    const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count,
                    int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    if (act->type == AK_I8 || weight->type == AK_I8) {
        multiply_i8(parts, out, ldo, act, weight, bias, panels, panel_count, blocks, flags, upcoming);
        return;
    }
    const ak_tile_set *wide = wide_set(parts, act, weight), *set = wide ? wide : tile_set(parts, act->type, weight);
    if (set == NULL || act->tokens <= 0) return;
    const weight_form form = form_of(act, weight, wide);
    // Converted weights are read from the cache, so only tiles in place prefetch.
    const int prefetches = form == IN_PLACE && set->some != NULL && act->tokens <= AK_SOME_TOKENS;
    if (prefetches) set = set->some;
    if (multiplies_row_layout(parts, act, weight, form, blocks)) {
        const int32_t done = multiply_row_layout(parts->row_products, out, act, weight, bias, panels, panel_count, flags, upcoming, scratch);
        panels += done;
        panel_count -= done;
    }
    const int32_t listed = blocks ? block_count : smaller(weight->blocks, act->blocks);
    const ak_product product = {parts, out, ldo, act, weight, bias, panels, panel_count, blocks, listed, flags, upcoming, scratch};
    const ak_one_token_function one = one_token_function(parts, act, weight);
    if (one != NULL) multiply_one_token(one, &product);
    else if (set->run_any != NULL && act->tokens > AK_FEW_TOKENS)
        ak_multiply_groups(parts, set, out, ldo, act, weight, bias, panels, panel_count, blocks, listed, flags, upcoming, scratch);
    else multiply_tiles(&product, set, form, prefetches);
}
