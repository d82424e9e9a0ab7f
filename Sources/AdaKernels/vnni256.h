// Tiles of 256-bit vpdpbusd with Q8_0 activations, for a file that defines
//   VNNI_TARGET, VNNI_INLINE    the attributes of its functions
//   DOT(sums, weights, inputs)  the instruction: eight 32-bit sums plus four products each, of unsigned weights and signed inputs
//   VNNI_PARTS                  the name of the ak_vnni256 that it defines
#pragma once
#include <string.h>

#include "avx2.h"

#if AK_X86
#include "tiles.h"

#define VNNI_TOKENS 6   // tokens of a tile: two registers of sums each, two of weights and one of inputs fit 16 registers

// A block's sums of all tokens, [tokens][2].
VNNI_INLINE void block_dots(__m256i dots[][2], const ak_tile *tile, size_t block, const uint8_t *weight, const uint8_t *ahead, const int tokens,
                            const ak_type type, const int asks) {
    const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma unroll
    for (int t = 0; t < tokens; t++) {
        const size_t at = (size_t)t * tile->act_blocks + block;
        dots[t][0] = dots[t][1] = _mm256_set1_epi32(type == AK_Q8_0 ? tile->act_sums[at] : type == AK_Q4_0 ? ak_tile_q4_0_sum(tile, at) : 0);
    }
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < (type == AK_Q8_0 ? 8 : 4); k++) {
        if (asks) _mm_prefetch((const char *)ahead + k * AK_LINE, _MM_HINT_T1);
        const __m256i *line = (const __m256i *)(weight + k * AK_LINE);
        const __m256i low = _mm256_loadu_si256(line), high = _mm256_loadu_si256(line + 1);
#pragma unroll
        for (int part = 0; part < (type == AK_Q8_0 ? 1 : 2); part++) {
            const __m256i first = type == AK_Q8_0 ? low : _mm256_and_si256(part ? _mm256_srli_epi16(low, 4) : low, nibble);
            const __m256i second = type == AK_Q8_0 ? high : _mm256_and_si256(part ? _mm256_srli_epi16(high, 4) : high, nibble);
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                int32_t four;
                memcpy(&four, act + (size_t)t * tile->stride + 4 * k + 16 * (size_t)part, sizeof four);
                const __m256i inputs = _mm256_set1_epi32(four);
                dots[t][0] = DOT(dots[t][0], first, inputs);
                dots[t][1] = DOT(dots[t][1], second, inputs);
            }
        }
    }
}

VNNI_INLINE void vnni_tile(const ak_tile *tile, const int tokens, const ak_type type, const int asks) {
    _Alignas(32) float sums[VNNI_TOKENS][AK_TILE_PANELS][AK_PANEL];
    const int panels = tile->panels;
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) ak_tile_start(sums[t][p], tile, t, p);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block);
#pragma clang loop unroll(disable)
        for (int p = 0; p < panels; p++) {
            const uint8_t *ahead = NULL;
            if (asks) {
                ahead = ak_tile_ahead(tile, p, i, AK_AHEAD, AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2), panels);
                _mm_prefetch((const char *)ak_tile_scales_ahead(tile, p, ahead), _MM_HINT_T1);
            }
            __m256i dots[VNNI_TOKENS][2];
            block_dots(dots, tile, block, tile->weight[p] + stored * tile->step, ahead, tokens, type, asks);
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const size_t at = (size_t)t * tile->act_blocks + block;
                const float act_sum = type == AK_Q4_1 ? (float)tile->act_sums[at] : 0;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float *sum = sums[t][p] + 8 * h;
                    _mm256_store_ps(sum, ak_add_dots256(_mm256_load_ps(sum), dots[t][h], ak_tile_scales(tile, p, stored), h, _mm256_set1_ps(tile->act_scales[at]),
                                                  act_sum, type));
                }
            }
            ak_settle();
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++)
            for (int h = 0; h < 2; h++) ak_finish_half256(_mm256_load_ps(&sums[t][p][8 * h]), tile, t, p, h);
}

#define VNNI_TILES(kind, type) \
    VNNI_INLINE void kind(const ak_tile *tile, const int tokens) { vnni_tile(tile, tokens, type, 0); } \
    VNNI_INLINE void kind##_stream(const ak_tile *tile, const int tokens) { vnni_tile(tile, tokens, type, 1); } \
    AK_TILES_6_OF(VNNI_TARGET, kind##_stream) \
    AK_TILES_6_OF(VNNI_TARGET, kind) \
    static const ak_tile_set kind##_stream_set = AK_TILE_SET_6(kind##_stream); \
    static const ak_tile_set kind##_set = AK_TILE_SET_6(kind, .some = &kind##_stream_set)

VNNI_TILES(q8, AK_Q8_0);
VNNI_TILES(q4_0, AK_Q4_0);
VNNI_TILES(q4_1, AK_Q4_1);

const ak_vnni256 VNNI_PARTS = {.q8 = &q8_set, .q4_0 = &q4_0_set, .q4_1 = &q4_1_set};
#endif
