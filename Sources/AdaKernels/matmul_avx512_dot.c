// AVX-512 tiles with 8-bit and bfloat16 activations, multiplied by the VNNI and BF16 dot products where the processor has them.
#include "avx512.h"

#if AK_X86
#include <string.h>

#include "avx2.h"
#include "tiles.h"

#define VNNI __attribute__((target(AK_AVX512_FEATURES ",avx512vnni")))
#define VNNI_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512vnni")))
#define BF16 __attribute__((target(AK_AVX512_FEATURES ",avx512bf16")))
#define BF16_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512bf16")))

// ------------------------------------------------------------------------------------------------------------------- Q8_0

VNNI_INLINE void q8(const ak_tile *tile, const int tokens, const int panels) {
    const size_t line = tile->line;
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i);
        const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
        // The integer sums of a block start from what the +128 of its weights will have added too much.
        __m512i dots[AK_TILE_TOKENS][AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + block * tile->step;
            ahead[p] = tokens <= 3 ? ak_tile_ahead(tile, p, i, AK_BLOCK * AK_PANEL) : NULL;
#pragma unroll
            for (int t = 0; t < tokens; t++) dots[t][p] = _mm512_set1_epi32(tile->act_sums[(size_t)t * tile->act_blocks + block]);
        }
#pragma unroll
        for (int k = 0; k < AK_BLOCK / 4; k++) {
            __m512i weights[AK_TILE_PANELS];
#pragma unroll
            for (int p = 0; p < panels; p++) {
                weights[p] = _mm512_loadu_si512(weight[p] + (size_t)k * line);
                if (tokens <= 3) _mm_prefetch((const char *)ahead[p] + (size_t)k * line, _MM_HINT_T0);
            }
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                int32_t four;
                memcpy(&four, act + (size_t)t * tile->stride + k * 4, sizeof four);
                const __m512i values = _mm512_set1_epi32(four);
#pragma unroll
                for (int p = 0; p < panels; p++) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], weights[p], values);
            }
        }
#pragma unroll
        for (int p = 0; p < panels; p++) {
            const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(tile->scales[p] + block * tile->scale_step)));
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(tile->act_scales[(size_t)t * tile->act_blocks + block]));
                sums.of[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][p]), scale, sums.of[t][p]);
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

AK_TILES_6X2(VNNI, q8);

// ------------------------------------------------------------------------------------------------------------------- BF16

// How BF16 activations and panels multiply: pairs of inputs by a dot product, or one after the other.
BF16_INLINE void bf16_dot(const ak_tile *tile, const int tokens, const int panels) {
    const size_t line = tile->line;
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const uint16_t *act = (const uint16_t *)tile->act + (size_t)block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + (size_t)block * tile->step;
            ahead[p] = tokens <= 3 ? ak_tile_ahead(tile, p, i, AK_BLOCK * AK_PANEL * 2) : NULL;
        }
#pragma clang loop unroll_count(8)
        for (int k = 0; k < AK_BLOCK; k += 2) {
            __m512i weights[AK_TILE_PANELS];
#pragma unroll
            for (int p = 0; p < panels; p++) {
                weights[p] = _mm512_loadu_si512(weight[p] + (size_t)(k / 2) * line);
                if (tokens <= 3) _mm_prefetch((const char *)ahead[p] + (size_t)(k / 2) * line, _MM_HINT_T0);
            }
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                int32_t pair;
                memcpy(&pair, act + (size_t)t * tile->stride + k, sizeof pair);
                const __m512i values = _mm512_set1_epi32(pair);
#pragma unroll
                for (int p = 0; p < panels; p++)
                    sums.of[t][p] = _mm512_dpbf16_ps(sums.of[t][p], (__m512bh)weights[p], (__m512bh)values);
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

AK_AVX512_INLINE __m512 even_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
AK_AVX512_INLINE __m512 odd_half(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

AK_AVX512_INLINE void bf16_widen(const ak_tile *tile, const int tokens, const int panels) {
    const size_t line = tile->line;
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const uint16_t *act = (const uint16_t *)tile->act + (size_t)block * AK_BLOCK;
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int p = 0; p < panels; p++) {
                const __m512i weights = _mm512_loadu_si512(tile->weight[p] + (size_t)block * tile->step + (size_t)(k / 2) * line);
#pragma unroll
                for (int t = 0; t < tokens; t++) {
                    int32_t pair;
                    memcpy(&pair, act + (size_t)t * tile->stride + k, sizeof pair);
                    const __m512i values = _mm512_set1_epi32(pair);
                    sums.of[t][p] = _mm512_fmadd_ps(even_half(weights), even_half(values), sums.of[t][p]);
                    sums.of[t][p] = _mm512_fmadd_ps(odd_half(weights), odd_half(values), sums.of[t][p]);
                }
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

AK_TILES_8X3(BF16, bf16_dot);
AK_TILES_6X2(AK_AVX512, bf16_widen);

// ------------------------------------------------------------------------------------------------------------- the product

void ak_avx512_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                      const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                      const ak_upcoming *upcoming, void *scratch) {
    const ak_matmul_parts parts = {
        .f32 = ak_avx512_float_sets[0], .f16 = ak_avx512_float_sets[1], .bf16 = ak_avx512_float_sets[2],
        .bf16_dot = ak_avx512_has_bf16() ? &bf16_dot_set : &bf16_widen_set,
        .q8 = ak_avx512_has_vnni() ? &q8_set : ak_avx2_q8_set,
        .rows = ak_avx512_rows,
    };
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
