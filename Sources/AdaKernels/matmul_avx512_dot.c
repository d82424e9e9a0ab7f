// AVX-512 tiles with 8-bit and bfloat16 activations, multiplied by the VNNI and BF16 dot products where the processor has them.
#include "avx512.h"

#if AK_X86
#include <string.h>

#include "avx2.h"
#include "tiles.h"

#define VNNI AK_AVX512_VNNI
#define VNNI_INLINE AK_AVX512_VNNI_INLINE
#define BF16 AK_AVX512_BF16
#define BF16_INLINE AK_AVX512_BF16_INLINE

// Prefetch distance in bytes of tiles of one panel: it covers the latency of memory while the dot products keep the processor busy.
#define STREAM_AHEAD 8192

// ------------------------------------------------------------------------------------------------------------------- Q8_0

// ahead_bytes: prefetch distance, of all panels together; 0: no prefetch.
VNNI_INLINE void q8_tile(const ak_tile *tile, const int tokens, const int panels, const size_t ahead_bytes) {
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block);
        const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
        // The integer sums of a block start from a value that cancels the +128 of its weights.
        __m512i dots[AK_TILE_TOKENS][AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + stored * tile->step;
            ahead[p] = ahead_bytes > 0 ? ak_tile_ahead(tile, p, i, ahead_bytes, AK_BLOCK * AK_PANEL, panels) : NULL;
            if (ahead_bytes > 0) _mm_prefetch((const char *)ak_tile_scales_ahead(tile, p, ahead[p]), _MM_HINT_T1);
#pragma unroll
            for (int t = 0; t < tokens; t++) dots[t][p] = _mm512_set1_epi32(tile->act_sums[(size_t)t * tile->act_blocks + block]);
        }
#pragma unroll
        for (int k = 0; k < AK_BLOCK / 4; k++) {
            __m512i weights[AK_TILE_PANELS];
#pragma unroll
            for (int p = 0; p < panels; p++) {
                weights[p] = _mm512_loadu_si512(weight[p] + (size_t)k * AK_LINE);
                if (ahead_bytes > 0) _mm_prefetch((const char *)ahead[p] + (size_t)k * AK_LINE, _MM_HINT_T1);
            }
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const __m512i values = ak_four_inputs512(act + (size_t)t * tile->stride + k * 4);
#pragma unroll
                for (int p = 0; p < panels; p++) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], weights[p], values);
            }
        }
#pragma unroll
        for (int p = 0; p < panels; p++) {
            const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)ak_tile_scales(tile, p, stored)));
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(tile->act_scales[(size_t)t * tile->act_blocks + block]));
                sums.of[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][p]), scale, sums.of[t][p]);
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

VNNI_INLINE void q8(const ak_tile *tile, const int tokens, const int panels) { q8_tile(tile, tokens, panels, tokens <= 3 ? AK_AHEAD : 0); }
VNNI_INLINE void q8_stream(const ak_tile *tile, const int tokens, const int panels) { q8_tile(tile, tokens, panels, STREAM_AHEAD); }

AK_TILES_12X1(VNNI, q8_stream);
AK_TILES_6X2(VNNI, q8, .some = &q8_stream_set);

// ------------------------------------------------------------------------------------------------------------- Q4_0 and Q4_1

VNNI_INLINE void q4(const ak_tile *tile, const int tokens, const int panels, const ak_type type, const size_t ahead_bytes) {
    const __m512i halves = _mm512_set1_epi8(15);
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block);
        const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
        __m512i dots[AK_TILE_TOKENS][AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + stored * tile->step;
            ahead[p] = ahead_bytes > 0 ? ak_tile_ahead(tile, p, i, ahead_bytes, AK_BLOCK * AK_PANEL / 2, panels) : NULL;
            if (ahead_bytes > 0) _mm_prefetch((const char *)ak_tile_scales_ahead(tile, p, ahead[p]), _MM_HINT_T1);
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const size_t at = (size_t)t * tile->act_blocks + block;
                dots[t][p] = type == AK_Q4_0 ? _mm512_set1_epi32(ak_tile_q4_0_sum(tile, at)) : _mm512_setzero_si512();
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            __m512i pairs[AK_TILE_PANELS], weights[AK_TILE_PANELS];
#pragma unroll
            for (int p = 0; p < panels; p++) {
                pairs[p] = _mm512_loadu_si512(weight[p] + (size_t)j * AK_LINE);
                if (ahead_bytes > 0) _mm_prefetch((const char *)ahead[p] + (size_t)j * AK_LINE, _MM_HINT_T1);
                weights[p] = _mm512_and_si512(pairs[p], halves);
            }
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const __m512i values = ak_four_inputs512(act + (size_t)t * tile->stride + j * 4);
#pragma unroll
                for (int p = 0; p < panels; p++) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], weights[p], values);
            }
#pragma unroll
            for (int p = 0; p < panels; p++) weights[p] = _mm512_and_si512(_mm512_srli_epi32(pairs[p], 4), halves);
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const __m512i values = ak_four_inputs512(act + (size_t)t * tile->stride + 16 + j * 4);
#pragma unroll
                for (int p = 0; p < panels; p++) dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], weights[p], values);
            }
        }
#pragma unroll
        for (int p = 0; p < panels; p++) {
            const __m256i *halves16 = (const __m256i *)ak_tile_scales(tile, p, stored);
            const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256(halves16));
            const __m512 minima = type == AK_Q4_1
                ? _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256(halves16 + 1)), _mm512_set1_ps(AK_SUM_UNIT)) : _mm512_setzero_ps();
#pragma unroll
            for (int t = 0; t < tokens; t++) {
                const size_t at = (size_t)t * tile->act_blocks + block;
                const __m512 act_scale = _mm512_set1_ps(tile->act_scales[at]), whole = _mm512_cvtepi32_ps(dots[t][p]);
                if (type == AK_Q4_0) {
                    sums.of[t][p] = _mm512_fmadd_ps(whole, _mm512_mul_ps(scales, act_scale), sums.of[t][p]);
                } else {
                    const __m512 shift = _mm512_mul_ps(minima, _mm512_cvtepi32_ps(_mm512_set1_epi32(tile->act_sums[at])));
                    sums.of[t][p] = _mm512_fmadd_ps(_mm512_fmadd_ps(whole, scales, shift), act_scale, sums.of[t][p]);
                }
            }
        }
    }
    ak_sums512_finish(&sums, tile, tokens, panels);
}

#define Q4_TILES(kind, type) \
    VNNI_INLINE void kind(const ak_tile *tile, const int tokens, const int panels) { q4(tile, tokens, panels, type, tokens <= 3 ? AK_AHEAD : 0); } \
    VNNI_INLINE void kind##_stream(const ak_tile *tile, const int tokens, const int panels) { q4(tile, tokens, panels, type, STREAM_AHEAD); } \
    AK_TILES_12X1(VNNI, kind##_stream); \
    AK_TILES_6X2(VNNI, kind, .some = &kind##_stream_set)

Q4_TILES(q4_0, AK_Q4_0);
Q4_TILES(q4_1, AK_Q4_1);

// ------------------------------------------------------------------------------------------------------------------- BF16

// How BF16 activations and panels multiply: pairs of inputs by a dot product, or one after the other.
BF16_INLINE void bf16_dot(const ak_tile *tile, const int tokens, const int panels) {
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const uint16_t *act = (const uint16_t *)tile->act + (size_t)block * AK_BLOCK;
        const uint8_t *weight[AK_TILE_PANELS], *ahead[AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++) {
            weight[p] = tile->weight[p] + (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
            ahead[p] = tokens <= 3 ? ak_tile_ahead(tile, p, i, AK_AHEAD / 2, AK_BLOCK * AK_PANEL * 2, panels) : NULL;
        }
        // Not unrolled: a compiler that moves the loads of later inputs ahead runs out of registers for the sums.
#pragma clang loop unroll(disable)
        for (int k = 0; k < AK_BLOCK; k += 2) {
            __m512i weights[AK_TILE_PANELS];
#pragma unroll
            for (int p = 0; p < panels; p++) {
                weights[p] = _mm512_loadu_si512(weight[p] + (size_t)(k / 2) * AK_LINE);
                if (tokens <= 3) _mm_prefetch((const char *)ahead[p] + (size_t)(k / 2) * AK_LINE, _MM_HINT_T1);
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
    ak_sums512 sums;
    ak_sums512_start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const uint16_t *act = (const uint16_t *)tile->act + (size_t)block * AK_BLOCK;
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int p = 0; p < panels; p++) {
                const __m512i weights = _mm512_loadu_si512(tile->weight[p] + (size_t)ak_tile_weight_block(tile, i, block) * tile->step + (size_t)(k / 2) * AK_LINE);
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

AK_TILES_8X3(BF16, bf16_dot, 4);

// Converts a block of an F32 or F16 panel, input after input with 16 rows each, to BF16 pairs: a line of out holds a pair of each row.
BF16_INLINE void float_pairs(uint16_t *out, const ak_type type, const uint8_t *block) {
#pragma unroll
    for (int k = 0; k < AK_BLOCK; k += 2, out += 2 * AK_PANEL) {
        const uint8_t *even = block + (size_t)(type == AK_F32 ? k : k / 2) * AK_LINE, *odd = even + (type == AK_F32 ? AK_LINE : AK_LINE / 2);
        _mm512_storeu_si512(out, type == AK_F32
            ? ak_bf16_pairs512(_mm512_loadu_ps(even), _mm512_loadu_ps(odd))
            : ak_bf16_pairs512(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)even)), _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)odd))));
    }
}

// The same for a block of a quantized panel: a line holds four inputs of each row in the bytes of its 32 bits, and for 4-bit weights also four inputs
// of the second half.
BF16_INLINE void quantized_pairs(uint16_t *out, const uint8_t *block, const uint16_t *scales, const ak_type type) {
    const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales));
    // The weights' offset, or their minimum.
    const __m512 shift = type == AK_Q4_1 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales + 1))
                                         : _mm512_mul_ps(scale, _mm512_set1_ps(type == AK_Q8_0 ? -128.0f : -8.0f));
    const __m512i mask = _mm512_set1_epi32(type == AK_Q8_0 ? 255 : 15);
    const int halves = type == AK_Q8_0 ? 1 : 2;
#pragma unroll
    for (int k = 0; k < 8 / halves; k++) {
        const __m512i fours = _mm512_loadu_si512(block + (size_t)k * AK_LINE);
#pragma unroll
        for (int half = 0; half < halves; half++) {
            __m512 values[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const __m512 whole = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(fours, (unsigned)(8 * i + 4 * half)), mask));
                // One rounding gives the same result as two: except for Q4_1 the product is exact.
                values[i] = type == AK_Q4_1 ? _mm512_add_ps(_mm512_mul_ps(whole, scale), shift) : _mm512_fmadd_ps(whole, scale, shift);
            }
            uint16_t *pairs = out + (4 * k + 16 * half) * AK_PANEL;
            _mm512_storeu_si512(pairs, ak_bf16_pairs512(values[0], values[1]));
            _mm512_storeu_si512(pairs + 2 * AK_PANEL, ak_bf16_pairs512(values[2], values[3]));
        }
    }
}

static BF16 void pairs(uint16_t *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    switch (type) {
        case AK_F32: float_pairs(out, AK_F32, block); break;
        case AK_F16: float_pairs(out, AK_F16, block); break;
        default: AK_FOR_ROW_TYPE(type, quantized_pairs, out, block, scales)
    }
}

AK_TILES_6X2(AK_AVX512, bf16_widen);

// ------------------------------------------------------------------------------------------------------------- the product

ak_matmul_parts ak_avx512_matmul_parts(void) {
    const int vnni = ak_avx512_has_vnni();
    return (ak_matmul_parts){
        .f32 = ak_avx512_float_sets[0], .f16 = ak_avx512_float_sets[1], .bf16 = ak_avx512_float_sets[2],
        .bf16_dot = ak_avx512_has_bf16() ? &bf16_dot_set : &bf16_widen_set,
        .q8 = vnni ? &q8_set : ak_avx2_quantized_sets[0],
        .q4_0 = vnni ? &q4_0_set : ak_avx2_quantized_sets[1],
        .q4_1 = vnni ? &q4_1_set : ak_avx2_quantized_sets[2],
        .pairs = ak_avx512_has_bf16() ? pairs : ak_portable_pairs, .rows = ak_avx512_rows, .panel = ak_avx512_panel,
        .i16 = &ak_avx2_wide_sets[0], .wide_q8 = vnni ? NULL : &ak_avx2_wide_sets[1], .wide_q4_0 = vnni ? NULL : &ak_avx2_wide_sets[2],
        .wide_q4_1 = vnni ? NULL : &ak_avx2_wide_sets[3], .widen = ak_avx2_widen,
        .row_products = ak_avx512_multiplies_rows() ? &ak_avx512_row_products : NULL, .one_token = vnni ? &ak_avx512_one_token : NULL,
    };
}

void ak_avx512_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                      const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                      const ak_upcoming *upcoming, void *scratch) {
    const ak_matmul_parts parts = ak_avx512_matmul_parts();
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
