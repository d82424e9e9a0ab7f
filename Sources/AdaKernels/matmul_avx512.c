// AVX-512 tiles with F32 activations: a register holds one input's weights of a panel's 16 rows.
#include "avx512.h"

#if AK_X86
#include "tiles.h"

AK_AVX512_INLINE __m512 load_f32(const uint8_t *weights) { return _mm512_loadu_ps((const float *)weights); }
AK_AVX512_INLINE __m512 load_f16(const uint8_t *weights) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)weights)); }
AK_AVX512_INLINE __m512 even_bf16(const uint8_t *weights) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(weights), 16));
}
AK_AVX512_INLINE __m512 odd_bf16(const uint8_t *weights) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(weights), _mm512_set1_epi32((int)0xffff0000)));
}

// Inputs k and k+1 of 16 rows are at `pair`.
AK_AVX512_INLINE __m512 load_weights(const uint8_t *pair, const ak_type type, const int odd) {
    if (type == AK_F32) return load_f32(pair + AK_LINE * (size_t)odd);
    if (type == AK_F16) return load_f16(pair + 32 * odd);
    return odd ? odd_bf16(pair) : even_bf16(pair);
}

AK_AVX512_INLINE void float_tile(const ak_tile *tile, const int tokens, const int panels, const ak_type type) {
    const size_t pair_bytes = type == AK_F32 ? 2 * AK_LINE : AK_LINE;
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const size_t offset = (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
        const float *act = (const float *)tile->act + (size_t)block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + offset;
            ahead[p] = tokens <= 3 ? ak_tile_ahead(tile, p, i, AK_AHEAD, AK_BLOCK * AK_PANEL * (type == AK_F32 ? 4 : 2), panels) : NULL;
        }
        // Not unrolled further: a compiler that moves the loads of later inputs ahead runs out of registers for the sums.
#pragma clang loop unroll(disable)
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int odd = 0; odd < 2; odd++) {
                __asm__ volatile("" ::: "memory");   // nor are the loads of an odd input moved ahead of its even one
                __m512 weights[AK_TILE_PANELS];
#pragma unroll
                for (int p = 0; p < panels; p++) {
                    weights[p] = load_weights(weight[p] + (size_t)(k / 2) * pair_bytes, type, odd);
                    if (tokens <= 3 && (odd || type == AK_F32))
                        _mm_prefetch((const char *)ahead[p] + (size_t)(k / 2) * pair_bytes + (type == AK_F32 ? AK_LINE * (size_t)odd : 0), _MM_HINT_T1);
                }
#pragma unroll
                for (int t = 0; t < tokens; t++) {
                    const __m512 value = _mm512_set1_ps(act[(size_t)t * tile->stride + (size_t)(k + odd)]);
#pragma unroll
                    for (int p = 0; p < panels; p++) sums.of[t][p] = _mm512_fmadd_ps(weights[p], value, sums.of[t][p]);
                }
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

AK_AVX512_INLINE void f32(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32); }
AK_AVX512_INLINE void f16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F16); }
AK_AVX512_INLINE void bf16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_BF16); }

AK_TILES_8X3(AK_AVX512, f32, 4);
AK_TILES_8X3(AK_AVX512, f16, 1);
AK_TILES_8X3(AK_AVX512, bf16, 4);

const ak_tile_set *const ak_avx512_float_sets[3] = {&f32_set, &f16_set, &bf16_set};
#endif
