// AVX2 tiles of products in 16-bit integers (ak_wide_block): Q8_0 weights under many tokens, and F16 and BF16 weights under I16 activations.
//
// vpmaddwd multiplies twice as many numbers as a fused multiply-add of floats does; what 8-bit weights need to get there is done once
// for all tokens instead of once for each tile.
#include "avx2.h"

#if AK_X86
#include "tiles.h"

#define WIDE_TOKENS 6   // of a tile: with two registers of sums each, and two of weights, what 16 registers hold

// A block of the tile's activations, at fixed places.
typedef struct {
    _Alignas(32) int32_t pairs[WIDE_TOKENS][AK_BLOCK / 2];   // of 16-bit inputs
    float scale[WIDE_TOKENS];
} staged;

AK_AVX2_INLINE void stage(staged *out, const ak_tile *tile, size_t block, const int tokens, const ak_type act_type) {
#pragma unroll
    for (int t = 0; t < tokens; t++) {
        const size_t at = (size_t)t * tile->stride + block * AK_BLOCK;
        __m256i *pairs = (__m256i *)out->pairs[t];
        out->scale[t] = tile->act_scales[(size_t)t * tile->act_blocks + block];
#pragma unroll
        for (int h = 0; h < 2; h++)
            _mm256_store_si256(pairs + h, act_type == AK_I16
                ? _mm256_loadu_si256((const __m256i *)((const int16_t *)tile->act + at) + h)
                : _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)((const int8_t *)tile->act + at) + h)));
    }
}

// sums [tokens][16] += the products of a block.
AK_AVX2_INLINE void add_block(float *sums, const staged *act, const ak_wide_block *weight, const int tokens) {
    __m256i dots[WIDE_TOKENS][2];
#pragma unroll
    for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = _mm256_setzero_si256();
    // Two steps at a time: more, and the compiler loads so far ahead that sums leave the registers.
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 2; k++) {
        const __m256i *pairs = (const __m256i *)weight->pairs[k];
        const __m256i low = _mm256_load_si256(pairs), high = _mm256_load_si256(pairs + 1);
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i pair = _mm256_set1_epi32(act->pairs[t][k]);
            dots[t][0] = _mm256_add_epi32(dots[t][0], _mm256_madd_epi16(low, pair));
            dots[t][1] = _mm256_add_epi32(dots[t][1], _mm256_madd_epi16(high, pair));
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256 weight_scales = _mm256_load_ps(weight->scales + 8 * h);
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            float *sum = sums + (size_t)t * AK_PANEL + 8 * h;
            const __m256 scales = _mm256_mul_ps(weight_scales, _mm256_broadcast_ss(&act->scale[t]));
            _mm256_store_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][h]), scales, _mm256_load_ps(sum)));
        }
    }
}

AK_AVX2_INLINE void wide_tile(const ak_tile *tile, const int tokens, const ak_type act_type) {
    staged act[AK_ROWS_BLOCKS];
    for (int32_t i = tile->first; i < tile->last; i++) stage(&act[i - tile->first], tile, (size_t)ak_tile_block(tile, i), tokens, act_type);
    for (int p = 0; p < tile->panels; p++) {
        _Alignas(32) float sums[WIDE_TOKENS][AK_PANEL];
        for (int t = 0; t < tokens; t++) ak_tile_start(sums[t], tile, t, p);
        const uint8_t *weight = tile->weight[p];
        for (int32_t i = 0; i < tile->last - tile->first; i++, weight += tile->step) {
            ak_settle();
            add_block(sums[0], &act[i], (const ak_wide_block *)weight, tokens);
        }
        ak_settle();
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++) ak_finish_half256(_mm256_load_ps(&sums[t][8 * h]), tile, t, p, h);
    }
}

AK_AVX2_INLINE void i16(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_I16); }
AK_AVX2_INLINE void q8(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_Q8_0); }

AK_TILES_6_OF(AK_AVX2, i16)
AK_TILES_6_OF(AK_AVX2, q8)

const ak_tile_set ak_avx2_wide_sets[2] = {AK_TILE_SET_6(i16), AK_TILE_SET_6(q8)};

// ------------------------------------------------------------------------------------------------------------- widening

static AK_AVX2 void widen_q8(ak_wide_block *out, const uint8_t *block, const uint16_t *scales) {
    // Of each row's four bytes the first two, or the last two, each followed by a zero.
    const __m256i first = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m256i second = _mm256_add_epi8(first, _mm256_set1_epi16(2)), zero = _mm256_set1_epi16(128);
    for (size_t k = 0; k < AK_BLOCK / 4; k++, block += AK_LINE)
        for (size_t h = 0; h < 2; h++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)block + h);
            _mm256_store_si256((__m256i *)out->pairs[2 * k] + h, _mm256_sub_epi16(_mm256_shuffle_epi8(bytes, first), zero));
            _mm256_store_si256((__m256i *)out->pairs[2 * k + 1] + h, _mm256_sub_epi16(_mm256_shuffle_epi8(bytes, second), zero));
        }
    for (size_t h = 0; h < 2; h++) _mm256_store_ps(out->scales + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)scales + h)));
}

AK_AVX2_INLINE void widen_float(ak_wide_block *out, const ak_type type, const uint8_t *block) {
    const __m256 sign = _mm256_set1_ps(-0.0f), limit = _mm256_set1_ps(3.4028235e38f);
    for (int h = 0; h < 2; h++) {
        __m256 largest = _mm256_setzero_ps();
        for (int k = 0; k < AK_BLOCK; k++)
            largest = _mm256_max_ps(_mm256_andnot_ps(sign, ak_weights256(block + (size_t)(k / 2) * AK_LINE, type, k % 2, h)), largest);
        const __m256 scale = _mm256_div_ps(largest, _mm256_set1_ps(AK_WIDE_MAX)), exact = _mm256_div_ps(_mm256_set1_ps(1), scale);
        const __m256 inverse = _mm256_and_ps(exact, _mm256_cmp_ps(exact, limit, _CMP_LE_OQ));   // ak_inverse_scale
        _mm256_store_ps(out->scales + 8 * h, scale);
        for (size_t k = 0; k < AK_BLOCK / 2; k++) {
            const uint8_t *pair = block + k * AK_LINE;
            const __m256i even = ak_wide_values256(_mm256_mul_ps(ak_weights256(pair, type, 0, h), inverse));
            const __m256i odd = ak_wide_values256(_mm256_mul_ps(ak_weights256(pair, type, 1, h), inverse));
            _mm256_store_si256((__m256i *)out->pairs[k] + h, _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa));
        }
    }
}

static AK_AVX2 void widen_f16(ak_wide_block *out, const uint8_t *block) { widen_float(out, AK_F16, block); }
static AK_AVX2 void widen_bf16(ak_wide_block *out, const uint8_t *block) { widen_float(out, AK_BF16, block); }

void ak_avx2_widen(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    if (type == AK_Q8_0) widen_q8(out, block, scales);
    else if (type == AK_F16) widen_f16(out, block);
    else widen_bf16(out, block);
}
#endif
