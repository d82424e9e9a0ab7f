// AdaKernels: the compute kernels of AdaLLaVA.
//
// Every operation exists as portable C (always compiled, the reference of the tests) and, where it pays, as AVX2, AVX-512 and NEON
// versions. One table of function pointers (`ak_kernels`) is chosen once per process; see ak_kernels_named.
//
// Conventions: outputs come first, then inputs, weights, sizes. Arrays are row-major, strides are counted in elements. Activation
// rows are padded: their stride is a multiple of AK_BLOCK and the elements from the logical length to the stride are zero (a
// kernel may read them, and a matmul writes zeros there), so that no kernel needs a tail. A kernel runs on the calling thread;
// work is shared out by ak_pool (ak_pool.h). No kernel allocates, traps or exits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "ak_ceilings.h"
#include "ak_pool.h"
#include "ak_quants.h"

#define AK_PANEL 16  // output rows of a weight panel
#define AK_MIDDLE_BLOCKS 192   // most blocks of inputs that ak_kernels.middle takes
#define AK_WIDE_TOKENS 24  // tokens from which widening weights to 16-bit integers, or converting them to BF16, pays for itself
#define AK_GROUP 256  // inputs that share a scale in AK_I8
#define AK_BLOCK 32  // inputs of a weight block: the step in which input columns can be left out of a product

// ---------------------------------------------------------------------------------------------------------------- weights

// Layout of a weight matrix in memory.
//   AK_PANELS: packed for the kernels by ak_pack_panels. Panel p holds output rows 16p … 16p+15 (missing rows are zero) and all
//     inputs padded with zeros to whole blocks of 32:
//       F32   float    [blocks*32][16]
//       F16   half     [blocks*32][16]
//       BF16  bfloat16 [blocks*16][16][2]            pairs of inputs, the operand of a BF16 dot product
//       Q8_0  for each block uint8 [8][16][4], then its half scales [16];   the byte is the quantized value + 128
//       Q4_0  for each block uint8 [4][16][4], then its half scales [16];   byte [b][j][r][i] holds the file's 4 bits of input
//                      32b + 4j + i of row r in its low half and of input 32b + 16 + 4j + i in its high half
//       Q4_1  for each block uint8 [4][16][4] as Q4_0, then half [2][16]: 16 scales, then the 16 rows' minima
//       I8    for each block int8 [8][16][4], and after all blocks for each group of 256 inputs its float scales [16]. For GEMM: with one scale for
//                      256 inputs, 8-bit sums stay in tile registers that long. Inputs are a multiple of 64, a line of a tile register. Only in
//                      bundles of 1
//     Scales follow their block, so that GEMV reads memory as one stream: a second stream costs up to half of the bandwidth.
//     Panels follow each other (bundle 1), or are interleaved `bundle` at a time: block 0 of each in turn, each with its scales, then block 1 of
//     each … Panels are allocated in whole bundles. Bundles are for matrices of which a plan reads some blocks: runs of blocks are `bundle` times as
//     long, and the memory stream restarts after a gap once per bundle (see ak_tuning.bundle_panels).
//   AK_ROWS: as in the file, row after row in the type's own blocks (any ak_type, usually memory-mapped). Correct for every type; fast for Q8_0, Q4_0
//     and Q4_1, which GEMV reads in place (see ak_tuning.mapped_rows) and GEMM packs. Rows of other types are dequantized.
typedef enum { AK_PANELS = 0, AK_ROWS = 1 } ak_layout;

typedef struct {
    ak_type type;       // element type (ak_quants.h)
    ak_layout layout;
    int32_t rows;       // output features
    int32_t inputs;     // input features
    int32_t panels;     // ceil(rows / 16)
    int32_t blocks;     // ceil(inputs / 32)
    int32_t bundle;     // interleaved panels, 1 or more (AK_PANELS)
    size_t stride;      // bytes of one panel (a bundle's by its panels), or from one row (AK_ROWS) to the next
    const void *data;
} ak_matrix;

// Bytes of one packed panel of `inputs` inputs. Zero for types that have no packed form (those of ak_packs_as_q8, Q4_K and the 8-bit floats),
// and for I8 where the inputs are no multiple of 64.
size_t ak_panel_bytes(ak_type type, int32_t inputs);

// Packs `count` panels starting at panel `first`: out (count, ak_panel_bytes) from source rows (rows, inputs) of `source_type`,
// `row_bytes` bytes apart. F32, F16 and BF16 panels take any F32, F16 or BF16 source, converting by round-to-nearest-even;
// Q8_0 panels take a Q8_0 source as it is (bit-exact) and F32/F16/BF16 sources and those of ak_packs_as_q8 quantized as ak_quantize does (IQ4_NL,
// IQ4_XS, TQ1_0, TQ2_0 and MXFP4 keep their whole numbers and scales, IQ4_XS's rounded to half precision); Q4_0
// and Q4_1 panels take a source of their own type as it is; I8 panels take any F32, F16 or BF16 source (scales = max|x|/127 of a row's group, to
// nearest even; NaN becomes 0); Q4_1 panels take Q4_K sources, whose 4 bits stay and whose groups' scales and minima
// are rounded to half precision.
// Bundles are packed whole: `first` and `count` are multiples of `bundle`.
// Returns 0, or -1 if the pair of types is not supported or a bundle would not be whole.
int ak_pack_panels(void *out, ak_type type, int32_t bundle, const void *source, ak_type source_type, size_t row_bytes,
                   int32_t rows, int32_t inputs, int32_t first, int32_t count);

// ------------------------------------------------------------------------------------------------------------ activations

// Activations of a matmul: AK_F32 (data float, stride ld), AK_BF16 (data uint16), AK_I16: int16 values with one float scale per token and block,
// AK_I8: int8 values with one for each 256 inputs, or AK_Q8_0: int8 values with a scale per token and block, and the sum of the block's int8 values
// times -128 (the contribution of the weights' +128, negative).
typedef struct {
    ak_type type;
    int32_t tokens;
    int32_t blocks;        // blocks of 32 inputs
    size_t stride;         // elements from one token to the next in data (blocks * 32 or more)
    const void *data;
    const float *scales;   // (tokens, blocks), Q8_0 and I16; (tokens, ak_groups(blocks)), I8
    const int32_t *sums;   // (tokens, blocks), Q8_0 only
} ak_activations;

// Scale groups of AK_GROUP inputs in so many blocks; the last may be smaller.
static inline int32_t ak_groups(int32_t blocks) { return (blocks + AK_GROUP / AK_BLOCK - 1) / (AK_GROUP / AK_BLOCK); }

// The panels that the calling thread will probably multiply next, with the same activations and blocks. Their first lines are prefetched while the last
// of the current panels are multiplied, so that decode does not wait for memory at the start of every work item.
typedef struct {
    const ak_matrix *weight;
    const int32_t *panels;
    int32_t panel_count;
} ak_upcoming;

enum {
    AK_ACCUMULATE = 1,     // add to out instead of overwriting it
    AK_RELU6 = 2,          // then min(6, max(0, out)); NaN stays NaN
};

// A depthwise convolution of a map with channels last: every channel with its own kernel x kernel filter.
typedef struct {
    int32_t height, width, channels;   // of the input
    int32_t out_width;
    int32_t kernel, stride;            // taps of a side (odd), input positions from one output to the next
    int32_t top, left;                 // rows and columns of zeros before the input; after it there are as many as the outputs need
} ak_depthwise;

// -------------------------------------------------------------------------------------------------------- keys and values

#define AK_ATTENTION_SPAN 256   // positions of a page of keys and values: attention can be split between pages without a change in any result

// Keys and values of one head, in pages of AK_ATTENTION_SPAN positions: position s lies in pages[s / AK_ATTENTION_SPAN], at place s % AK_ATTENTION_SPAN.
typedef struct {
    const void *const *pages;   // a page that no query sees (left behind by a sliding window) may be NULL
    size_t keys, values;        // bytes from a page's address to this head's keys and values
    ak_type type;
    int32_t head_dim;
} ak_paged_head;

// How a head's keys and values lie in a page:
//   AK_F32, AK_F16  keys [256/16][head_dim][16], values [256][ak_value_width(head_dim)]
//   AK_Q8_0         8 bits, with a half scale (max|x|/127) for each position's keys and one for its values. Keys: for each 16 positions
//                   uint8 [ceil(head_dim/4)][16][4], the quantized value + 128, four neighbours side by side as 8-bit dot products want them; then
//                   their scales [256]. Values: for each two positions int8 [ak_value_width(head_dim)][2], then their scales [256]. NaN becomes 0, and what
//                   the largest half cannot scale its greatest value. Queries are quantized alike, and the weights of a page's values in 16 bits, so
//                   that scores and results are sums of whole numbers
//   AK_BF16         pairs of BF16; see attention_pairs
// Bytes of one head's keys, and of its values, in a page.
size_t ak_key_bytes(ak_type type, int32_t head_dim);
size_t ak_value_bytes(ak_type type, int32_t head_dim);

// out [head_dim][16] = the keys of panel `panel` (of 256/16) of one head's page, of any type but AK_BF16.
void ak_page_keys(float *out, const void *k, ak_type type, int32_t head_dim, int32_t panel);

// ------------------------------------------------------------------------------------------------------------- the kernels

typedef struct {
    const char *name;   // "portable", "avx2", "avxvnni", "avx512", "amx", "neon"

    // out[t*ldo + r] (+)= sum_k act[t][k] * weight[r][k] + bias[r]   for every row r of the listed panels.
    //   panels: `panel_count` panel indices, ascending. blocks: `block_count` input blocks to include, ascending; NULL = all.
    //   bias: (panels * 16, padded with zeros) or NULL. out rows are written 16 at a time; ldo >= weight.panels * 16.
    //   Supported (act, weight) pairs: F32 and BF16 act with every weight type but I8, in every layout; I16 act with BF16 and F16 panels; Q8_0 act with
    //   Q8_0, Q4_0 and Q4_1 in every layout; I8 act with I8 panels, over all blocks (blocks NULL). All weights are exact under F32
    //   activations and rounded to BF16 under BF16 activations; under I16 activations a row's 32 weights of a block are rounded to multiples of 1 / 8191
    //   of their largest.
    //   upcoming: a hint, or NULL; it never changes a result.
    //   scratch: ak_matmul_scratch(weight) bytes, 64-byte aligned (may be NULL when that is 0).
    //   For one type of activations, each output element is summed in an order that does not depend on tokens, panels or the thread.
    void (*matmul)(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                   const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                   const ak_upcoming *upcoming, void *scratch);

    // The middle of a feed-forward network, some panels of it, in BF16: out[t*ldo + r] = silu(gate) * up, or with up NULL activation(gate + bias).
    //   act: BF16. bias: of gate (panels * 16, padded with zeros) or NULL; NULL with up. activation: takes so many values, as gelu_quick does.
    //   panels: as in matmul, followed by `following` more that the calling thread will probably compute next.
    //   gate and up have the same blocks, at most AK_MIDDLE_BLOCKS. scratch: ak_matmul_scratch(gate) bytes, as in matmul.
    //   Sums are those of matmul. NULL if separate products and activation functions are as fast.
    void (*middle)(uint16_t *out, size_t ldo, const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias,
                   void (*activation)(float *x, size_t n), const int32_t *panels, int32_t panel_count, int32_t following, void *scratch);

    // Activations for a matmul: `tokens` rows of whole blocks, or `count` values, of src (stride ld) to Q8_0 (scales = max|x|/127 rounded to half
    // precision, round half away from zero as ggml does), to I16 (scales = max|x|/8191, round to nearest even; NaN becomes 0), to I8 (scales =
    // max|x|/127 of each 256 values, rounded likewise) or to BF16 (round to nearest even). The stride ldo is in values, of whole blocks; rows of scales
    // and sums are ldo/32 apart, those of I8's scales ak_groups(ldo/32).
    void (*quantize_q8)(int8_t *out, size_t ldo, float *scales, int32_t *sums, const float *src, size_t ld, int32_t tokens, int32_t blocks);
    void (*quantize_i16)(int16_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks);
    void (*quantize_i8)(int8_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks);
    void (*to_bf16)(uint16_t *out, size_t ldo, const float *src, size_t ld, int32_t tokens, int32_t count);

    // out = x / sqrt(mean(x^2) + eps) * weight;  rows (tokens, n), stride ldo / ldx.
    void (*rms_norm)(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, float eps, int32_t tokens, int32_t n);
    // out = (x - mean) / sqrt(var + eps) * weight + bias
    void (*layer_norm)(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, const float *bias, float eps, int32_t tokens, int32_t n);

    // gate = silu(gate) * up, n values.
    void (*silu_mul)(float *gate, const float *up, size_t n);
    // gate = gelu_tanh(gate) * up, n values (GeGLU).
    void (*gelu_tanh_mul)(float *gate, const float *up, size_t n);
    void (*gelu_erf)(float *x, size_t n);      // x * 0.5 * (1 + erf(x / sqrt 2))
    void (*gelu_tanh)(float *x, size_t n);     // the tanh approximation
    void (*gelu_quick)(float *x, size_t n);    // x * sigmoid(1.702 x)
    void (*silu)(float *x, size_t n);          // x * sigmoid(x)
    void (*add)(float *x, const float *y, size_t n);   // x += y

    // Rotary position embedding of `heads` heads of head_dim values in place; cos/sin (head_dim / 2) of this token's position.
    //   interleaved 0: pairs (i, i + head_dim/2) as Hugging Face; 1: pairs (2i, 2i+1) as GGUF's llama tensors need.
    void (*rope)(float *x, const float *cos, const float *sin, int32_t heads, int32_t head_dim, int32_t interleaved);

    // Attention of one head: out[t] = softmax(scale * q[t] . k[s]) v[s] over the keys s that query t sees: keys 0 … first + t, or all `positions`
    // if first < 0. With window > 0 only the last `window` of those (the query's own included); 0: all.
    //   out (queries, head_dim) stride ldo; q stride ldq.
    //   scratch: ak_attention_scratch(positions, head_dim) bytes, 64-byte aligned.
    // A page that no query of a tile sees is not read. A key that a query does not see weighs exactly zero, as long as its value is finite.
    void (*attention)(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions, int32_t queries,
                      int32_t first, int32_t window, float scale, void *scratch);

    // The part of attention over the keys skip ..< keys of one page, whose keys begin at k and values at v; all queries see them.
    //   skip: 0 unless a window begins in this page; skip >= keys gives logs of -infinity and zeros.
    //   logs (queries): natural logarithm of the sum of the part's weights, for ak_attention_merge.
    //   next: the keys that the thread will probably read next, prefetched; or NULL.
    //   scratch: ak_attention_scratch(keys, head_dim) bytes, 64-byte aligned.
    void (*attention_span)(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                           int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);

    // Keys and values of the positions first ..< end of one head's page (of any type but BF16) as pairs of BF16, for many queries: `attention`
    // and `attention_span` multiply such pairs by BF16 dot products when their type is AK_BF16, rounding queries and weights as well.
    //   k_out [ceil(end/16)][head_dim/2][16][2], v_out [ceil(end/16)*8][ak_value_width(head_dim)][2]; first is a multiple of 16, head_dim is even
    //   and at most AK_PAIR_HEAD_DIM. NULL where the kernels have no such products, and only for processors that do (ak_has_bf16_dot).
    void (*attention_pairs)(uint16_t *k_out, uint16_t *v_out, const void *k, const void *v, ak_type kv_type, int32_t head_dim, int32_t first,
                            int32_t end);

    // Stores the keys and values of `count` tokens of one head at the places first … first+count-1 of a page whose keys and values of this head begin
    // at k and v; padding is zero. Any type but BF16.
    void (*store_kv)(void *k, void *v, ak_type kv_type, const float *key, size_t ldk, const float *value, size_t ldv,
                     int32_t head_dim, int32_t first, int32_t count);

    // out[y][x][c] = min(6, max(0, bias[c] + sum over r, s of in[y*stride + r - top][x*stride + s - left][c] * weight[r*kernel + s][c]))
    // for the output rows first ..< first + rows; out, the input and the weights have strides ldo, ldx and ldw from position to position
    // (tap to tap), out and in point at the first row of their maps. NaN stays NaN. Channels from `channels` on are not touched.
    void (*depthwise_relu6)(float *out, size_t ldo, const float *in, size_t ldx, const float *weight, size_t ldw, const float *bias,
                            const ak_depthwise *shape, int32_t first, int32_t rows);

    // Index of the largest value; the first one wins a tie. NaN never wins. n >= 1.
    int32_t (*argmax)(const float *x, int32_t n);

    // Choosing among n logits without sorting them. NaN counts as absent.
    // maxima (ceil(n / AK_LOGIT_GROUP)): the largest of each group of AK_LOGIT_GROUP values, -infinity where there is none.
    void (*group_maxima)(float *maxima, const float *x, int32_t n);
    // indices (n) = the ascending indices of values >= threshold; returns how many. maxima as above: groups below the threshold are skipped.
    int32_t (*at_least)(int32_t *indices, const float *x, int32_t n, const float *maxima, float threshold);
    // The sum of exp((x - shift) * scale); each term with a relative error below 3e-7.
    double (*exp_sum)(const float *x, int32_t n, float shift, float scale);
} ak_kernels;

#define AK_LOGIT_GROUP 64

// The k-th largest of n values without NaN, 1 <= k <= n; puts the values in another order.
float ak_kth_largest(float *values, int32_t n, int32_t k);

// Values a head's row of V takes: head_dim rounded up to whole panels of 16.
static inline int32_t ak_value_width(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }

#define AK_PAIR_HEAD_DIM 256   // the longest heads that attention_pairs takes

// Adds the part of attention over the next page: out, logs and part, part_logs as `attention_span` gives them. Merging all pages of a query in
// ascending order, beginning with the first page's results, gives what `attention` gives. A part without keys (logs of -infinity) changes nothing.
void ak_attention_merge(float *out, size_t ldo, float *logs, const float *part, size_t ldp, const float *part_logs, int32_t queries,
                        int32_t head_dim);

// x *= y, n values.
void ak_multiply(float *x, const float *y, size_t n);

// The channels first ..< end of one position of a gated convolution along positions: out[c] = gate[c] * (bias[c] + sum over k of taps[k][c] * rows[k][c]).
//   rows (count): the inputs at `count` positions, this one's last; NULL for positions before the first. taps (count, channels), stride ldt. bias or NULL.
void ak_gated_taps(float *out, const float *gate, const float *const *rows, const float *taps, size_t ldt, const float *bias, int32_t count,
                   int32_t first, int32_t end);

size_t ak_matmul_scratch(const ak_matrix *weight);
size_t ak_attention_scratch(int32_t positions, int32_t head_dim);

// How the caller of the kernels chooses types and divides work into items: a constant of each instruction set, without features that this processor
// lacks. Results depend only on bf16_dot, bf16_tiles, int8_tiles and wide_int16, which decide the type that activations are rounded to.
typedef struct {
    int32_t bf16_dot;              // 1: BF16 activations are multiplied by BF16 dot products
    int32_t bf16_tiles;            // 1: matrix tiles of BF16; AK_WIDE_TOKENS rows or more are multiplied in BF16, with every type of weights except F32
    int32_t int8_tiles;            // 1: matrix tiles of I8 panels: the fastest type for GEMM
    int32_t wide_int16;            // 1: AK_WIDE_TOKENS rows or more of 16-bit float weights are multiplied as 16-bit integers (I16)
    int32_t mapped_rows;           // 1: GEMV with Q8_0, Q4_0 and Q4_1 rows in AK_ROWS layout is as fast as with panels
    int32_t bundle_panels;         // most panels of quantized types that are read as one stream; of float types AK_TILE_PANELS
    int32_t half_panels;           // panels of F16 and BF16 of a tile of more than few_tokens: work items are a multiple of it
    int32_t few_tokens;            // up to so many tokens a product is bound by memory, so work items are divided by bytes
    int32_t item_bytes_few;        // bytes of weights of a work item: up to few_tokens tokens,
    int32_t item_bytes_few_rows;   // the same in AK_ROWS layout,
    int32_t item_bytes_many;       // and for more tokens
    int32_t item_least_bytes;      // least bytes of a work item: its overhead is a fraction of reading these
    int32_t one_panel_at_a_time;   // 1: for one token, kernels of quantized types take one panel after the other, not up to AK_TILE_PANELS
    int32_t query_tile;            // queries of an attention work item
} ak_tuning;

ak_tuning ak_kernels_tuning(const ak_kernels *kernels);

// The kernels called `name`, or NULL if this build or this processor does not have them.
const ak_kernels *ak_kernels_named(const char *name);
// The best kernels that this processor runs.
const ak_kernels *ak_kernels_best(void);
// Features beyond the table "avx512" ("neon") that are used: 1 if AVX-512 VNNI (NEON dot products), BF16 dot products.
int ak_has_int8_dot(void);
int ak_has_bf16_dot(void);
// Single fields of ak_kernels_tuning, and its panels of one type.
int ak_has_int8_tiles(const ak_kernels *kernels);
int ak_multiplies_rows(const ak_kernels *kernels);
int32_t ak_bundle_panels(const ak_kernels *kernels, ak_type type);
