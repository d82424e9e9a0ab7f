// The loops of GEMV with packed 8-bit and 4-bit panels (ak_one_token_function). Decode is bound by memory, so each panel or bundle is read as one
// stream, with as few instructions as possible, because a processor's out-of-order window is counted in instructions.
//
// An instruction set's file defines before it includes this:
//   ONE_TARGET, ONE_INLINE   the attributes of its functions
//   panel_sums               the sums of a panel's 16 rows in registers; zero_sums, load_sums and store_sums
//   token_block, token_at    a block of the token's activations in registers, for all panels
//   bytes_ahead              least prefetch distance for a type of weights: it covers the latency of memory, also after a gap in the listed blocks
//   add_block                adds the products of a panel's block to its sums, and prefetches the block at `later`
#pragma once
#include "internal.h"

// Prefetch distance in blocks of `bytes`.
AK_INLINE int32_t blocks_ahead(size_t bytes, const ak_type type) { return (int32_t)((bytes_ahead(type) + bytes - 1) / bytes); }

// Address of the block that is read `distance` listed blocks after block i: in the same panels, or in the next.
AK_INLINE const uint8_t *later_block(const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t i, int32_t count, size_t step,
                                     const int32_t distance) {
    const int32_t later = i + distance, after = later - count;
    if (after < 0) return panels + (size_t)(blocks ? blocks[later] : later) * step;
    return next + (size_t)(blocks ? blocks[after < count ? after : 0] : after) * step;
}

ONE_INLINE void alone(float *out, const ak_activations *act, const uint8_t *panel, const uint8_t *next, const int32_t *blocks, int32_t count,
                      const ak_type type) {
    const size_t step = ak_block_step(type);
    panel_sums sums = zero_sums();
    for (int32_t i = 0; i < count; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i);
        const token_block token = token_at(act, at, type);
        sums = add_block(sums, &token, panel + at * step, later_block(panel, next, blocks, i, count, step, blocks_ahead(step, type)), type);
    }
    store_sums(out, sums);
}

ONE_INLINE void together(float *out, const ak_activations *act, const uint8_t *panels, size_t step, size_t member_step, int32_t members,
                         const uint8_t *next, const int32_t *blocks, int32_t count, const ak_type type) {
    const int32_t distance = blocks_ahead((size_t)members * ak_block_step(type), type);
    for (int32_t m = 0; m < members; m++) store_sums(out + m * AK_PANEL, zero_sums());
    for (int32_t i = 0; i < count; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i);
        const token_block token = token_at(act, at, type);
        const uint8_t *block = panels + at * step, *later = later_block(panels, next, blocks, i, count, step, distance);
        for (int32_t m = 0; m < members; m++, block += member_step, later += member_step) {
            float *sums = out + m * AK_PANEL;   // which stay in the first-level cache
            store_sums(sums, add_block(load_sums(sums), &token, block, later, type));
        }
    }
}

// Without a list of blocks the loop has no branch.
#define ONE_TOKEN(kind, type) \
    static ONE_TARGET void kind(float *out, const ak_activations *act, const uint8_t *panels, size_t step, size_t member_step, int32_t members, \
                                const uint8_t *next, const int32_t *blocks, int32_t count) { \
        if (members == 1 && step == ak_block_step(type)) { \
            if (blocks) alone(out, act, panels, next, blocks, count, type); \
            else alone(out, act, panels, next, NULL, count, type); \
        } else { \
            if (blocks) together(out, act, panels, step, member_step, members, next, blocks, count, type); \
            else together(out, act, panels, step, member_step, members, next, NULL, count, type); \
        } \
    }
