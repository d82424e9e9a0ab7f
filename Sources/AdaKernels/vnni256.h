// Products of 256-bit vpdpbusd with Q8_0 activations, for a file that defines
//   VNNI_TARGET, VNNI_INLINE    the attributes of its functions
//   DOT(sums, weights, inputs)  the instruction: eight 32-bit sums plus four products each, of unsigned weights and signed inputs
//   VNNI_PARTS                  the name of the ak_vnni256 that it defines
#pragma once
#include "one_token_avx2.h"

#if AK_X86
#include "tiles.h"

#define ONE_TARGET VNNI_TARGET
#define ONE_INLINE VNNI_INLINE

// ----------------------------------------------------------------------------------------------------------------- one token

typedef struct {
    const int32_t *fours;   // four inputs each
    int32_t start;          // what the weights' offset adds
    float sum, scale;
} token_block;

VNNI_INLINE token_block token_at(const ak_activations *act, size_t at, const ak_type type) {
    const int32_t sum = act->sums[at];
    return (token_block){(const int32_t *)(const void *)((const int8_t *)act->data + at * AK_BLOCK),
                         type == AK_Q8_0 ? sum : type == AK_Q4_0 ? sum / 16 : 0, (float)sum, act->scales[at]};
}

// As the AVX-512 one: two chains for each half of a panel, and high halves of 4-bit weights at 16 times what they are.
VNNI_INLINE panel_sums add_block(panel_sums sums, const token_block *token, const uint8_t *block, const uint8_t *later, const ak_type type) {
    const size_t values = AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2);
    const __m256i low_half = _mm256_set1_epi8(15), high_half = _mm256_set1_epi8((char)0xf0);
    _mm_prefetch((const char *)later + values, _MM_HINT_T1);
    __m256i dots[2], others[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        dots[h] = _mm256_set1_epi32(token->start);
        others[h] = _mm256_setzero_si256();
    }
#pragma unroll
    for (size_t k = 0; k < 4; k++) {
        const __m256i first = _mm256_set1_epi32(token->fours[type == AK_Q8_0 ? 2 * k : k]);
        const __m256i second = _mm256_set1_epi32(token->fours[type == AK_Q8_0 ? 2 * k + 1 : 4 + k]);
        const uint8_t *line = block + (type == AK_Q8_0 ? 2 * k : k) * AK_LINE;
        _mm_prefetch((const char *)later + (line - block), _MM_HINT_T1);
        if (type == AK_Q8_0) _mm_prefetch((const char *)later + (line - block) + AK_LINE, _MM_HINT_T1);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)line + h);
            if (type == AK_Q8_0) {
                dots[h] = DOT(dots[h], weights, first);
                others[h] = DOT(others[h], _mm256_loadu_si256((const __m256i *)(line + AK_LINE) + h), second);
            } else {
                dots[h] = DOT(dots[h], _mm256_and_si256(weights, low_half), first);
                others[h] = DOT(others[h], _mm256_and_si256(weights, high_half), second);
            }
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256i all = _mm256_add_epi32(dots[h], type == AK_Q8_0 ? others[h] : _mm256_srai_epi32(others[h], 4));
        sums.half[h] = add_dots(sums.half[h], all, block + values, h, _mm256_set1_ps(token->scale), token->sum, type);
    }
    return sums;
}

#include "one_token.h"

ONE_TOKEN(one_q8, AK_Q8_0)
ONE_TOKEN(one_q4_0, AK_Q4_0)
ONE_TOKEN(one_q4_1, AK_Q4_1)

// --------------------------------------------------------------------------------------------------------------------- tiles

#define VNNI_TOKENS 6   // of a tile: with two registers of sums each, two of weights and one of inputs, what 16 registers hold

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
                    _mm256_store_ps(sum, add_dots(_mm256_load_ps(sum), dots[t][h], ak_tile_scales(tile, p, stored), h, _mm256_set1_ps(tile->act_scales[at]),
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

const ak_vnni256 VNNI_PARTS = {
    .q8 = &q8_set, .q4_0 = &q4_0_set, .q4_1 = &q4_1_set, .one_token = {.q8 = one_q8, .q4_0 = one_q4_0, .q4_1 = one_q4_1},
};
#endif
