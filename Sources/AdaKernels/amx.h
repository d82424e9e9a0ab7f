// Shared by the AMX files (Intel's Advanced Matrix Extensions): products of tiles of 16 rows, in BF16 or 8-bit integers. They are many times as fast
// as AVX-512's dot products.
#pragma once
#include "avx512.h"

#if AK_X86
#define AK_AMX __attribute__((target(AK_AVX512_FEATURES ",avx512bf16,amx-tile,amx-bf16")))
#define AK_AMX_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512bf16,amx-tile,amx-bf16")))

#define AK_AMX_ROWS 16   // rows of a tile register, 64 bytes each

// 1 if the processor has BF16 tiles and the system lets this process use them.
int ak_amx_available(void);
int ak_amx_has_int8(void);

extern const ak_kernels ak_amx_kernels;
extern const ak_tuning ak_amx_tuning;

void ak_amx_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                   const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                   const ak_upcoming *upcoming, void *scratch);
// I8 activations and panels; for processors whose tiles multiply 8-bit integers (ak_amx_has_int8).
void ak_amx_i8(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias, const int32_t *panels,
               int32_t panel_count, int32_t flags, const ak_upcoming *upcoming);
void ak_amx_middle(uint16_t *out, size_t ldo, const ak_activations *act, const ak_matrix *gate, const ak_matrix *up, const float *bias,
                   void (*activation)(float *, size_t), const int32_t *panels, int32_t panel_count, int32_t following, void *scratch);
void ak_amx_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                      int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_amx_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                           int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);

// A tile's products: sums 0 to 3 of tokens in registers 4 (and 5, the second group of 16) and weights in 6 (and 7, the second panel). Registers' numbers
// are part of the instructions, so these are macros. f(sums, group, panel):
#define AK_AMX_FOR_SUMS(panels, groups, f) \
    f(0, 0, 0) \
    if (panels > 1) { f(1, 0, 1) } \
    if (groups > 1) { f(2, 1, 0) } \
    if (groups > 1 && panels > 1) { f(3, 1, 1) }
// load_tokens(register, group) and load_weights(register, panel) of the first step;
#define AK_AMX_LOAD(panels, groups, load_tokens, load_weights) \
    load_tokens(4, 0) \
    load_weights(6, 0) \
    if (panels > 1) { load_weights(7, 1) } \
    if (groups > 1) { load_tokens(5, 1) }
// and a step's products. The next step's operands are loaded as soon as a register has been read for the last time: if another hardware thread shares
// the core, there are no registers to rename these to, and a load waits for the product before it.
#define AK_AMX_STEP(product, panels, groups, goes_on, load_tokens, load_weights) \
    product(0, 4, 6); \
    if (panels > 1) product(1, 4, 7); \
    if (goes_on) { load_tokens(4, 0) } \
    if (groups > 1) product(2, 5, 6); \
    if (goes_on) { load_weights(6, 0) } \
    if (groups > 1 && panels > 1) product(3, 5, 7); \
    if (goes_on && groups > 1) { load_tokens(5, 1) } \
    if (goes_on && panels > 1) { load_weights(7, 1) }

// Gives the thread's tile registers their shapes: sums (0 to 3) and rows of activations (4, 5) of `first` and of `second` rows, 16 at most, and
// columns (6, 7). From here to _tile_release the thread's state is 8 KB larger, and the system saves that whenever it preempts the thread.
AK_AMX_INLINE void ak_amx_shape(int first, int second) {
    struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape = {.palette = 1};
    const int rows[8] = {first, first, second, second, first, second, AK_AMX_ROWS, AK_AMX_ROWS};
    for (int i = 0; i < 8; i++) {
        shape.rows[i] = (uint8_t)rows[i];
        shape.bytes[i] = rows[i] > 0 ? AK_LINE : 0;
    }
    _tile_loadconfig(&shape);
}
#endif
