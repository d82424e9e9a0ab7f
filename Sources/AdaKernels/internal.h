// Shared by the files of AdaKernels: the tile of a matrix product, the parts of attention, and the kernels of each instruction set.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "AdaKernels.h"

#define AK_INLINE static inline __attribute__((always_inline))

// ----------------------------------------------------------------------------------------------------------- matrix product

#define AK_LINE 64          // bytes of a cache line
#define AK_TILE_PANELS 4    // most panels of a tile
#define AK_TILE_TOKENS 12   // most tokens of a register tile
#define AK_MOST_TOKENS 32   // most tokens of any tile
#define AK_SOME_TOKENS 24   // up to so many tokens a product is bound by memory about as much as by arithmetic, and its tiles prefetch
#define AK_FEW_TOKENS 3     // up to so many tokens a product is bound by memory, and tiles of any number of tokens prefetch

// Bytes of one block of a packed panel, and of its scales and minima: 0 for the float types.
AK_INLINE size_t ak_block_bytes(ak_type type) {
    const size_t values = (size_t)AK_BLOCK * AK_PANEL;
    switch (type) {
        case AK_F32: return values * 4;
        case AK_F16: case AK_BF16: return values * 2;
        case AK_Q4_0: case AK_Q4_1: return values / 2;
        default: return values;
    }
}
AK_INLINE size_t ak_block_scale_bytes(ak_type type) {
    if (type == AK_F32 || type == AK_F16 || type == AK_BF16 || type == AK_I8) return 0;
    return (size_t)AK_PANEL * 2 * (type == AK_Q4_1 ? 2 : 1);
}

// Bytes from one block of a packed panel to the next.
AK_INLINE size_t ak_block_step(ak_type type) { return ak_block_bytes(type) + ak_block_scale_bytes(type); }

enum {
    // The first values are the public flags.
    AK_TILE_RESUME = 1 << 8,    // sums start from `partial` instead of zero
    AK_TILE_SUSPEND = 1 << 9,   // sums are written to `partial`; out is not touched
    AK_TILE_DENSE = 1 << 10,    // the weights are the tile's blocks only, one after another
};

// The 6-bit scale and minimum of 32-value group `group` of Q4_K and Q5_K, out of their 12 packed bytes.
AK_INLINE void ak_group_scale(const uint8_t *packed, int group, int *scale, int *minimum) {
    if (group < 4) {
        *scale = packed[group] & 63;
        *minimum = packed[group + 4] & 63;
    } else {
        *scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
        *minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
    }
}

// The half-precision scale of a block's group of 32 values, if the values are 8-bit integers times a scale of the group: Q8_0 stores those exactly
// (IQ4_XS except for the scale's rounding). Returns 0 for types without such a scale, and for scales that no half represents.
int ak_own_scale(uint16_t *scale, ak_type type, const uint8_t *block, int group);

// A register tile: a few tokens times a few panels, over the listed blocks first ..< last.
typedef struct {
    int32_t tokens, panels;
    float *out;                             // row of the tile's first token
    size_t ldo;
    const void *act;                        // row of the tile's first token
    size_t stride;                          // elements from one token to the next
    const float *act_scales;                // (tokens, act_blocks), Q8_0 only
    const int32_t *act_sums;                // (tokens, act_blocks), Q8_0 only
    size_t act_blocks;
    const uint8_t *weight[AK_TILE_PANELS];  // packed panels: their first blocks
    const uint8_t *scales[AK_TILE_PANELS];  // the first blocks' scales (and minima), quantized types only
    size_t step;                            // bytes from one block, and from its scales, to the next
    const uint8_t *next[AK_TILE_PANELS];    // first blocks of the panels after this tile, to prefetch, or NULL; laid out as `weight`
    int32_t panel[AK_TILE_PANELS];          // their indices: panel p writes out[16p …]
    const int32_t *blocks;                  // NULL: block i is i
    int32_t first, last;
    const float *bias;
    int32_t flags;
    float *partial;                         // (tokens, panels, 16): sums between two calls over parts of the blocks
} ak_tile;

typedef void (*ak_tile_function)(const ak_tile *tile);

// The tiles of one pair of activation and weight type.
typedef struct ak_tile_set {
    int32_t tokens;                            // of the largest tile
    int32_t panels[AK_TILE_TOKENS + 1];        // [t]: panels that tiles of t tokens take at once, and the last, smaller one of a product
    ak_tile_function run[AK_TILE_PANELS][AK_TILE_TOKENS];   // [panels - 1][tokens - 1]
    ak_tile_function run_any;                  // or one for every number of tokens, up to AK_MOST_TOKENS, which takes panels[0] panels
    const struct ak_tile_set *some;            // tiles that prefetch, for AK_SOME_TOKENS or fewer; NULL: these do
} ak_tile_set;

// Dequantizes listed blocks first ..< last of panel `panel` of a matrix in AK_ROWS layout: out [last - first][32][16].
typedef void (*ak_rows_function)(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last);

// Packs listed blocks first ..< last of panel `panel` of a Q8_0, Q4_0 or Q4_1 matrix in AK_ROWS layout: out holds them as AK_PANELS does.
// 16 rows are read at once, more streams than the hardware prefetchers follow, so the 16 rows at `ahead`, which are read later, are prefetched. All 16
// rows of the panel exist; ak_portable_panel packs a last panel of fewer.
typedef void (*ak_panel_function)(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                                  int32_t first, int32_t last, const uint8_t *ahead);

// Calls f(…, type) with the type of rows that are multiplied or packed, Q8_0, Q4_0 or Q4_1, as a constant.
#define AK_FOR_ROW_TYPE(type, f, ...) \
    switch (type) { \
        case AK_Q8_0: f(__VA_ARGS__, AK_Q8_0); break; \
        case AK_Q4_0: f(__VA_ARGS__, AK_Q4_0); break; \
        default: f(__VA_ARGS__, AK_Q4_1); \
    }

// An ak_panel_function made of a file's `panel_of`, which takes the type as a constant: one copy for each type, so that its loop has no branch on it.
#define AK_PANEL_FUNCTION(target, name) \
    target void name(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last, \
                     const uint8_t *ahead) { \
        AK_FOR_ROW_TYPE(weight->type, panel_of, out, weight, panel, blocks, first, last, ahead) \
    }

// Rounds a block of an F32, F16, Q8_0, Q4_0 or Q4_1 panel from float32 to BF16 (to nearest even): out [16][16][2], as in a BF16 panel. A quantized
// block's scales (and minima) are at `scales`.
typedef void (*ak_pairs_function)(uint16_t *out, ak_type type, const uint8_t *block, const uint16_t *scales);

// A widened block of a panel: 16-bit integers, in pairs of inputs; 4-bit weights as bytes, in fours of inputs.
typedef struct {
    union {
        int16_t pairs[AK_BLOCK / 2][AK_PANEL][2];
        uint8_t fours[AK_BLOCK / 4][AK_PANEL][4];
    };
    float scales[AK_PANEL];
    union {
        int32_t products[AK_PANEL];   // Q8_0: the sum of a row's products of inputs 4k and 4k + 2, and of 4k + 1 and 4k + 3
        float minima[AK_PANEL];       // Q4_1: times AK_SUM_UNIT
    };
} ak_wide_block;

// Widens the block of an F16, BF16, Q8_0, Q4_0 or Q4_1 panel at `block`; a quantized block's scales (and minima) are at `scales`. Quantized weights
// keep their values; a float row's 32 weights are rounded to multiples of 1 / AK_WIDE_MAX of the largest.
typedef void (*ak_wide_function)(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales);

// GEMV with Q8_0, Q4_0 and Q4_1 rows in AK_ROWS layout, read in place. `arrange` writes the token's activations to scratch in the order of `dots`, which
// computes the sums of a panel's 16 rows, with the same bits as packed panels.
// All 16 rows exist. After `end` the thread reads at `next`, which is prefetched. Scratch: AK_ROW_CHUNK_BYTES for every AK_ROW_CHUNK blocks.
typedef struct {
    void (*arrange)(void *scratch, const ak_activations *act, const ak_matrix *weight);
    void (*dots)(float *out, const ak_matrix *weight, int32_t panel, const uint8_t *end, const uint8_t *next, void *scratch);
} ak_row_products;

// GEMV of Q8_0 activations with adjacent packed panels, over listed blocks (NULL: the first `count`): the sums of 16 rows each, out (members, 16), with
// the same bits as tiles.
//   panels: first block of the first panel. step: bytes from one block to the next. member_step: bytes from one panel to the next, a block in a
//   bundle, which is one memory stream; otherwise a panel, and there are as many streams as members.
//   next: the panels that are read afterwards, with the same steps, to prefetch.
typedef void (*ak_one_token_function)(float *out, const ak_activations *act, const uint8_t *panels, size_t step, size_t member_step, int32_t members,
                                      const uint8_t *next, const int32_t *blocks, int32_t count);
typedef struct { ak_one_token_function q8, q4_0, q4_1; } ak_one_token;

#define AK_BUNDLE_PANELS 12   // most panels of one ak_one_token call: more are not read faster, and threads wait longer for the last call

#define AK_ROW_CHUNK 16
#define AK_ROW_CHUNK_BYTES ((size_t)(AK_ROW_CHUNK * (AK_BLOCK + 8) + 2 * AK_PANEL * AK_ROW_CHUNK * 4))

#define AK_ROWS_BLOCKS 64      // blocks of a panel that are dequantized or widened at once
#define AK_WIDE_MAX 8191       // 32 products of such numbers stay below 2^31

// The product of I8 activations and panels (ak_kernels.matmul), all blocks.
typedef void (*ak_i8_function)(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                               const int32_t *panels, int32_t panel_count, int32_t flags, const ak_upcoming *upcoming);

// The scales of a group of an I8 panel's 16 rows.
AK_INLINE const float *ak_i8_scales(const ak_matrix *weight, int32_t panel, int32_t group) {
    const uint8_t *blocks = (const uint8_t *)weight->data + (size_t)panel * weight->stride;
    return (const float *)(blocks + (size_t)weight->blocks * AK_BLOCK * AK_PANEL) + (size_t)group * AK_PANEL;
}

// The end of a group, in blocks.
AK_INLINE int32_t ak_group_end(int32_t group, int32_t blocks) {
    const int32_t end = (group + 1) * (AK_GROUP / AK_BLOCK);
    return end < blocks ? end : blocks;
}

// The parts of the matrix product that an instruction set implements. bf16 is BF16 panels with F32 activations, bf16_dot with BF16 activations; q8,
// q4_0 and q4_1 are panels of those types with Q8_0 activations. i16 is ak_wide_block with I16 activations, wide_q8, wide_q4_0 and wide_q4_1 the same
// with Q8_0 activations (NULL if q8, q4_0 and q4_1 are faster for any number of tokens).
typedef struct {
    const ak_tile_set *f32, *f16, *bf16, *bf16_dot, *q8, *q4_0, *q4_1, *i16, *wide_q8, *wide_q4_0, *wide_q4_1;
    ak_pairs_function pairs;
    ak_rows_function rows;
    ak_panel_function panel;
    ak_wide_function widen;
    const ak_row_products *row_products;   // NULL: rows are packed for one token too
    const ak_one_token *one_token;         // NULL: tiles are as fast
    ak_i8_function i8;                     // NULL: the portable one
    int32_t streams;                       // panels outside bundles that one_token reads at once; 0 as 1
} ak_matmul_parts;

void ak_matmul_with(const ak_matmul_parts *parts, float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight,
                    const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count,
                    int32_t flags, const ak_upcoming *upcoming, void *scratch);

// GEMM of BF16 activations with tiles of any number of tokens, over `listed` blocks (matmul_groups.c).
void ak_multiply_groups(const ak_matmul_parts *parts, const ak_tile_set *set, float *out, size_t ldo, const ak_activations *act,
                        const ak_matrix *weight, const float *bias, const int32_t *panels, int32_t panel_count, const int32_t *blocks,
                        int32_t listed, int32_t flags, const ak_upcoming *upcoming, void *scratch);

// ak_kernels.middle with such tiles. `combine` reads the sums (tokens, AK_MIDDLE_PANELS, 16) of a tile's one or two panels and writes the output panels
// `made`: without `activation` silu(first) * second as the first of them, otherwise `activation` of each.
#define AK_MIDDLE_PANELS 2
typedef void (*ak_middle_function)(uint16_t *out, size_t ldo, float *sums, int32_t tokens, const int32_t *made, int32_t panels,
                                   void (*activation)(float *, size_t));
void ak_multiply_middle(const ak_matmul_parts *parts, const ak_tile_set *set, ak_middle_function combine, uint16_t *out, size_t ldo,
                        const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias, void (*activation)(float *, size_t),
                        const int32_t *panels, int32_t panel_count, int32_t following, void *scratch);

// Input block of listed block i, and its index in the weights.
AK_INLINE int32_t ak_tile_block(const ak_tile *tile, int32_t i) { return tile->blocks ? tile->blocks[i] : i; }
AK_INLINE int32_t ak_tile_weight_block(const ak_tile *tile, int32_t i, int32_t block) {
    return tile->flags & AK_TILE_DENSE ? i - tile->first : block;
}

// The initial 16 sums of token t and panel p.
AK_INLINE void ak_tile_start(float *sums, const ak_tile *tile, int32_t t, int32_t p) {
    if (tile->flags & AK_TILE_RESUME) memcpy(sums, tile->partial + (t * tile->panels + p) * AK_PANEL, AK_PANEL * sizeof(float));
    else memset(sums, 0, AK_PANEL * sizeof(float));
}

// A 4-bit weight w has the value (w - 8) * scale (Q4_0) or w * scale + minimum (Q4_1). The activations' sums are stored times -128, so Q4_0's -8
// contributes sums / 16, which is exact, and a minimum contributes itself times sums * AK_SUM_UNIT.
#define AK_SUM_UNIT (-1.0f / 128)
AK_INLINE int32_t ak_tile_q4_0_sum(const ak_tile *tile, size_t at) { return tile->act_sums[at] / 16; }

// Prefetch distance of decode in bytes, of all panels of a tile together: it covers the latency of memory, and the ends of pages, where the hardware's
// prefetchers stop.
#define AK_AHEAD 8192

// A compiler barrier: keeps the compiler from moving sums and scales between registers and the stack from one block to the next.
AK_INLINE void ak_settle(void) { __asm__ volatile("" ::: "memory"); }

// Address of the block of `step` bytes that is read `distance` listed blocks after listed block i: in the panel at `base`, or in the next tile's at
// `next`. Blocks that a plan leaves out are not prefetched.
AK_INLINE const uint8_t *ak_tile_later(const ak_tile *tile, const uint8_t *base, const uint8_t *next, size_t step, int32_t i,
                                       int32_t distance) {
    const int32_t count = tile->last - tile->first, later = i + (distance < count ? distance : count);
    if (later < tile->last) return base + (size_t)ak_tile_weight_block(tile, later, ak_tile_block(tile, later)) * step;
    // In the cache already, so its prefetch is free.
    if (next == NULL) return base + (size_t)ak_tile_weight_block(tile, i, ak_tile_block(tile, i)) * step;
    return next + (size_t)ak_tile_block(tile, tile->first + later - tile->last) * step;
}

// Address of panel p's weights that the tile reads `bytes` bytes (of all its panels) after listed block i; block_bytes: of the type.
AK_INLINE const uint8_t *ak_tile_ahead(const ak_tile *tile, int p, int32_t i, size_t bytes, size_t block_bytes, int panels) {
    return ak_tile_later(tile, tile->weight[p], tile->next[p], tile->step, i, (int32_t)(bytes / block_bytes) / panels);
}
// Scales of panel p's block at index `stored`, and of the block whose values are at `ahead`.
AK_INLINE const uint8_t *ak_tile_scales(const ak_tile *tile, int p, size_t stored) { return tile->scales[p] + stored * tile->step; }
AK_INLINE const uint8_t *ak_tile_scales_ahead(const ak_tile *tile, int p, const uint8_t *ahead) {
    return ahead + (tile->scales[p] - tile->weight[p]);
}

// ----------------------------------------------------------------------------------------------------------------- attention

#define AK_QUERY_TILE 12   // queries whose scores are held at once
#define AK_MOST_QUERIES 32 // the same where matrix tiles take more

// Calls f(…, queries), one to six of them, with the number as a constant.
#define AK_FOR_QUERIES(f, queries, ...) \
    switch (queries) { \
        case 1: f(__VA_ARGS__, 1); break; \
        case 2: f(__VA_ARGS__, 2); break; \
        case 3: f(__VA_ARGS__, 3); break; \
        case 4: f(__VA_ARGS__, 4); break; \
        case 5: f(__VA_ARGS__, 5); break; \
        default: f(__VA_ARGS__, 6); break; \
    }

// The sum of a row's weights, and its largest scaled score (natural logarithm's unit).
typedef struct { float sum, largest; } ak_softmax;

// What an instruction set brings to attention. Scores are rows of `stride` floats in scratch; key panels and value rows as in AdaKernels.h.
typedef struct {
    // scores[t][s] = q[t] . k[s] for the keys of panels 0 ..< panels. scales (16 * panels): of AK_Q8_0. next: what is read after them.
    void (*scores)(float *scores, size_t stride, const float *q, size_t ldq, const void *k, const uint16_t *scales, ak_type kv_type, int32_t head_dim,
                   int32_t panels, int32_t queries, const void *next);
    // scores = exp(scale * (scores - max)) over hidden ..< visible, zero before and from there to stride; hidden < visible
    ak_softmax (*softmax)(float *scores, size_t stride, int32_t hidden, int32_t visible, float scale);
    // out[t] = inverse[t] * sum of scores[t][s] v[s] over s < positions. scales (positions): of AK_Q8_0. next: what is read after them.
    void (*combine)(float *out, size_t ldo, const float *scores, size_t stride, const float *inverse, const void *v, const uint16_t *scales,
                    ak_type kv_type, int32_t head_dim, int32_t positions, int32_t queries, const void *next);
    int32_t queries;   // that are taken at once, at most AK_MOST_QUERIES
} ak_attention_parts;

void ak_attention_with(const ak_attention_parts *parts, float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv,
                       int32_t positions, int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_attention_span_with(const ak_attention_parts *parts, float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k,
                            const void *v, ak_type kv_type, int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale,
                            const void *next, void *scratch);

// 8-bit keys and values (AK_Q8_0), and the queries that meet them.
#define AK_Q8_HEAD_DIM 4096   // the longest heads

// Values that a position's key takes: whole groups of four.
AK_INLINE size_t ak_q8_key_width(int32_t head_dim) { return ((size_t)head_dim + 3) / 4 * 4; }

// The scale, a half, of a row whose largest magnitude is `largest`: finite whatever that is.
AK_INLINE uint16_t ak_q8_row_scale(float largest) {
    const float scale = largest / 127;
    return scale < 65504.0f ? ak_float_to_half(scale) : 0x7bff;
}

// A scaled value as an 8-bit integer, to nearest even: 0 for NaN, ±127 for what the scale is too small for.
AK_INLINE int8_t ak_q8_value(float scaled) {
    if (scaled != scaled) return 0;
    return (int8_t)rintf(scaled > 127 ? 127 : scaled < -127 ? -127 : scaled);
}

// What the weights of a page's 8-bit values, their scales included, are multiplied to: 256 products of that and 127 stay below 2^31.
#define AK_Q8_WEIGHT_MAX 32767

// A query as 8-bit integers, zeros up to a whole group: what its sums of products with stored bytes are multiplied by, and what the bytes' +128 adds.
typedef struct { float scale; int32_t start; } ak_q8_query;

// --------------------------------------------------------------------------------------------------------------- convolution

// min(6, max(0, x)); NaN stays NaN.
AK_INLINE float ak_relu6(float x) { return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x; }

// The taps first ..< end of an axis that are inside the input if the first tap is at `at`.
AK_INLINE void ak_taps(int32_t at, int32_t kernel, int32_t size, int32_t *first, int32_t *end) {
    *first = at < 0 ? -at : 0;
    *end = size - at < kernel ? size - at : kernel;
}

// ------------------------------------------------------------------------------------------------------- the instruction sets

#if defined(__x86_64__) || defined(_M_X64)
#define AK_X86 1
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
#define AK_ARM 1
#endif

// The sizes of work items that every instruction set has.
#define AK_ITEM_TUNING \
    .few_tokens = 4, .item_bytes_few = 1 << 17, .item_bytes_few_rows = 1 << 19, .item_bytes_many = 1 << 16, .item_least_bytes = 1 << 14

extern const ak_kernels ak_portable_kernels;
extern const ak_tuning ak_portable_tuning;
extern const ak_matmul_parts ak_portable_matmul;
void ak_portable_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                           int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_portable_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                                int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);
void ak_portable_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last);
void ak_portable_panel(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                       int32_t first, int32_t last, const uint8_t *ahead);
// A block of a Q8_0, Q4_0 or Q4_1 panel as float32: out [32][16].
void ak_quantized_block(float *out, ak_type type, const uint8_t *block, const uint16_t *scales);
void ak_portable_pairs(uint16_t *out, ak_type type, const uint8_t *block, const uint16_t *scales);
void ak_portable_widen(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales);
extern const ak_tile_set ak_portable_i16_tiles;
void ak_portable_i8(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, int32_t flags, const ak_upcoming *upcoming);
void ak_portable_quantize_i8(int8_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks);
void ak_portable_quantize_i16(int16_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks);
void ak_portable_depthwise_relu6(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                                 const ak_depthwise *shape, int32_t first, int32_t rows);
// out (count) = weights * scales as whole numbers up to AK_Q8_WEIGHT_MAX, 0 for NaN; returns the unit that they are of.
float ak_portable_q8_weights(int16_t *out, const float *weights, const uint16_t *scales, size_t count);
void ak_portable_q8_query(int8_t *out, ak_q8_query *query, const float *q, int32_t head_dim);
void ak_portable_q8_store(void *k, void *v, const float *key, size_t ldk, const float *value, size_t ldv, int32_t head_dim, int32_t first, int32_t count);
void ak_portable_store_kv(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                          int32_t head_dim, int32_t first, int32_t count);

void ak_portable_group_maxima(float *maxima, const float *x, int32_t n);
int32_t ak_portable_at_least(int32_t *indices, const float *x, int32_t n, const float *maxima, float threshold);
double ak_portable_exp_sum(const float *x, int32_t n, float shift, float scale);

// The 16 rows of a panel, dequantized row by row: out [16][256], values first ..< first + count (a multiple of the type's block,
// at most 256) of rows 16 * panel …; zeros for rows and inputs that the matrix does not have.
void ak_panel_rows(float *out, const ak_matrix *weight, int32_t panel, int32_t first, int32_t count);

// The scale of a block of 8-bit activations, rounded to half precision if that loses little, as ggml stores it: sums then agree with those of other
// engines on the same Q8_0 weights.
AK_INLINE int ak_half_holds(float scale) { return scale >= 0x1p-14f && scale <= 65504.0f; }
AK_INLINE float ak_activation_scale(float scale) { return ak_half_holds(scale) ? ak_half_to_float(ak_float_to_half(scale)) : scale; }

// A scaled value as a 16-bit integer: to nearest even; 0 for values out of range and NaN.
AK_INLINE int16_t ak_wide_value(float scaled) {
    const float rounded = rintf(scaled);
    return (int16_t)(rounded >= -AK_WIDE_MAX && rounded <= AK_WIDE_MAX ? rounded : 0.0f);
}

// A scaled value as an 8-bit integer, likewise.
AK_INLINE int8_t ak_narrow_value(float scaled) {
    const float rounded = rintf(scaled);
    return (int8_t)(rounded >= -127 && rounded <= 127 ? rounded : 0.0f);
}

// 1 / d, the factor that quantizes, or 0 if that is not finite.
AK_INLINE float ak_inverse_scale(float d) {
    const float inverse = 1.0f / d;
    return inverse <= 3.4028235e38f && inverse >= -3.4028235e38f ? inverse : 0.0f;
}
