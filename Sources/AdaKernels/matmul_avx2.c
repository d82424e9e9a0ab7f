// AVX2 tiles of the matrix product: two registers hold one input's weights of a panel's 16 rows.
#include "avx2.h"

#if AK_X86
#include <string.h>

#include "tiles.h"

typedef struct { __m256 of[AK_TILE_TOKENS][AK_TILE_PANELS][2]; } sums256;

AK_AVX2_INLINE void start(sums256 *sums, const ak_tile *tile, const int tokens, const int panels) {
    const int resume = tile->flags & AK_TILE_RESUME;
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
        for (int p = 0; p < panels; p++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                sums->of[t][p][h] = resume ? _mm256_loadu_ps(tile->partial + (t * panels + p) * AK_PANEL + 8 * h) : _mm256_setzero_ps();
}

AK_AVX2_INLINE void finish(const sums256 *sums, const ak_tile *tile, const int tokens, const int panels) {
#pragma unroll
    for (int t = 0; t < tokens; t++)
#pragma unroll
        for (int p = 0; p < panels; p++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                __m256 value = sums->of[t][p][h];
                if (tile->flags & AK_TILE_SUSPEND) {
                    _mm256_storeu_ps(tile->partial + (t * panels + p) * AK_PANEL + 8 * h, value);
                    continue;
                }
                const size_t column = (size_t)tile->panel[p] * AK_PANEL + (size_t)(8 * h);
                float *out = tile->out + (size_t)t * tile->ldo + column;
                if (tile->bias) value = _mm256_add_ps(value, _mm256_loadu_ps(tile->bias + column));
                if (tile->flags & AK_ACCUMULATE) value = _mm256_add_ps(_mm256_loadu_ps(out), value);
                if (tile->flags & AK_RELU6) value = ak_relu6_256(value);
                _mm256_storeu_ps(out, value);
            }
}

// -------------------------------------------------------------------------------------------------------- floating point

AK_AVX2_INLINE __m256 even_half(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
AK_AVX2_INLINE __m256 odd_half(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

// Eight rows' weights of input k (even) or k + 1 (odd); the 16 rows' weights of both lie at `pair`.
AK_AVX2_INLINE __m256 load_weights(const uint8_t *pair, const size_t line, const ak_type type, const int odd, const int half) {
    if (type == AK_F32) return _mm256_loadu_ps((const float *)(pair + line * (size_t)odd) + 8 * half);
    if (type == AK_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(pair + 32 * odd + 16 * half)));
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(pair + 32 * half));
    return odd ? odd_half(pairs) : even_half(pairs);
}

AK_AVX2_INLINE __m256 load_act(const void *act, const ak_type type, size_t at) {
    if (type == AK_F32) return _mm256_broadcast_ss((const float *)act + at);
    return _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)((uint32_t)((const uint16_t *)act)[at] << 16)));
}

AK_AVX2_INLINE void float_tile(const ak_tile *tile, const int tokens, const int panels, const ak_type act_type, const ak_type type) {
    const size_t line = tile->line, pair_bytes = type == AK_F32 ? 2 * line : line;
    sums256 sums;
    start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const size_t offset = (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
        const uint8_t *ahead[AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++)
            ahead[p] = tokens <= 2 ? ak_tile_ahead(tile, p, i, AK_BLOCK * AK_PANEL * (type == AK_F32 ? 4 : 2)) : NULL;
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int odd = 0; odd < 2; odd++)
#pragma unroll
                for (int p = 0; p < panels; p++) {
                    const uint8_t *pair = tile->weight[p] + offset + (size_t)(k / 2) * pair_bytes;
                    if (tokens <= 2 && (odd || type == AK_F32))
                        _mm_prefetch((const char *)ahead[p] + (size_t)(k / 2) * pair_bytes + (type == AK_F32 ? line * (size_t)odd : 0), _MM_HINT_T1);
                    const __m256 low = load_weights(pair, line, type, odd, 0), high = load_weights(pair, line, type, odd, 1);
#pragma unroll
                    for (int t = 0; t < tokens; t++) {
                        const size_t at = (size_t)t * tile->stride + (size_t)block * AK_BLOCK + (size_t)(k + odd);
                        const __m256 value = load_act(tile->act, act_type, at);
                        sums.of[t][p][0] = _mm256_fmadd_ps(low, value, sums.of[t][p][0]);
                        sums.of[t][p][1] = _mm256_fmadd_ps(high, value, sums.of[t][p][1]);
                    }
                }
        }
    }
    finish(&sums, tile, tokens, panels);
}

AK_AVX2_INLINE void f32(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_F32); }
AK_AVX2_INLINE void f16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_F16); }
AK_AVX2_INLINE void bf16(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_F32, AK_BF16); }
AK_AVX2_INLINE void bf16_dot(const ak_tile *tile, const int tokens, const int panels) { float_tile(tile, tokens, panels, AK_BF16, AK_BF16); }

// ------------------------------------------------------------------------------------------------------------------- Q8_0

AK_AVX2_INLINE void q8(const ak_tile *tile, const int tokens, const int panels) {
    const size_t line = tile->line;
    const __m256i flip = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    sums256 sums;
    start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i);
        const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
#pragma unroll
        for (int p = 0; p < panels; p++) {
            const uint8_t *weight = tile->weight[p] + block * tile->step;
            const uint8_t *ahead = tokens <= 2 ? ak_tile_ahead(tile, p, i, AK_BLOCK * AK_PANEL) : NULL;
            __m256i dots[AK_TILE_TOKENS][2];
#pragma unroll
            for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = _mm256_setzero_si256();
#pragma unroll
            for (int k = 0; k < AK_BLOCK / 4; k++) {
                if (tokens <= 2) _mm_prefetch((const char *)ahead + (size_t)k * line, _MM_HINT_T1);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    // Products of unsigned and signed bytes are added in pairs to 16 bits. |weight| <= 128 times 127 twice just fits
                    // (the stored weight + 128 would not), so the weight's sign moves over to the activation.
                    const __m256i values = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(weight + (size_t)k * line + 32 * h)), flip);
                    const __m256i magnitudes = _mm256_abs_epi8(values);
#pragma unroll
                    for (int t = 0; t < tokens; t++) {
                        int32_t four;
                        memcpy(&four, act + (size_t)t * tile->stride + k * 4, sizeof four);
                        const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(_mm256_set1_epi32(four), values));
                        dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            const __m128i *scales = (const __m128i *)(tile->scales[p] + block * tile->scale_step);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const __m256 weight_scales = _mm256_cvtph_ps(_mm_loadu_si128(scales + h));
#pragma unroll
                for (int t = 0; t < tokens; t++) {
                    const __m256 scale = _mm256_mul_ps(weight_scales, _mm256_broadcast_ss(tile->act_scales + (size_t)t * tile->act_blocks + block));
                    sums.of[t][p][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][h]), scale, sums.of[t][p][h]);
                }
            }
        }
    }
    finish(&sums, tile, tokens, panels);
}

// ------------------------------------------------------------------------------------------------------------- Q4_0 and Q4_1

AK_AVX2_INLINE __m256i four_inputs(const int8_t *act) {
    int32_t four;
    memcpy(&four, act, sizeof four);
    return _mm256_set1_epi32(four);
}

AK_AVX2_INLINE void q4(const ak_tile *tile, const int tokens, const int panels, const ak_type type) {
    const size_t line = tile->line;
    const __m256i halves = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    sums256 sums;
    start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i);
        const int8_t *act = (const int8_t *)tile->act + block * AK_BLOCK;
#pragma unroll
        for (int p = 0; p < panels; p++) {
            const uint8_t *weight = tile->weight[p] + block * tile->step;
            const uint8_t *ahead = tokens <= 2 ? ak_tile_ahead_4bit(tile, p, i) : NULL;
            if (tokens <= 2) _mm_prefetch((const char *)ak_tile_scales_ahead_4bit(tile, p, i), _MM_HINT_T1);
            // A 16-bit sum takes 16 products of at most 15 * 127, which just fits.
            __m256i dots[AK_TILE_TOKENS][2];
#pragma unroll
            for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = _mm256_setzero_si256();
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (tokens <= 2) _mm_prefetch((const char *)ahead + (size_t)j * line, _MM_HINT_T1);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(weight + (size_t)j * line + 32 * h));
                    const __m256i low = _mm256_and_si256(bytes, halves), high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), halves);
#pragma unroll
                    for (int t = 0; t < tokens; t++) {
                        const int8_t *inputs = act + (size_t)t * tile->stride + j * 4;
                        dots[t][h] = _mm256_add_epi16(dots[t][h], _mm256_maddubs_epi16(low, four_inputs(inputs)));
                        dots[t][h] = _mm256_add_epi16(dots[t][h], _mm256_maddubs_epi16(high, four_inputs(inputs + 16)));
                    }
                }
            }
            const __m128i *scales = (const __m128i *)(tile->scales[p] + block * tile->scale_step);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const __m256 weight_scales = _mm256_cvtph_ps(_mm_loadu_si128(scales + h));
                const __m256 minima = type == AK_Q4_1
                    ? _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(scales + 2 + h)), _mm256_set1_ps(AK_SUM_UNIT)) : _mm256_setzero_ps();
#pragma unroll
                for (int t = 0; t < tokens; t++) {
                    const size_t at = (size_t)t * tile->act_blocks + block;
                    const __m256 act_scale = _mm256_broadcast_ss(tile->act_scales + at);
                    const __m256i dot = _mm256_madd_epi16(dots[t][h], ones);
                    if (type == AK_Q4_0) {
                        const __m256 whole = _mm256_cvtepi32_ps(_mm256_add_epi32(dot, _mm256_set1_epi32(ak_tile_q4_0_sum(tile, at))));
                        sums.of[t][p][h] = _mm256_fmadd_ps(whole, _mm256_mul_ps(weight_scales, act_scale), sums.of[t][p][h]);
                    } else {
                        const __m256 shift = _mm256_mul_ps(minima, _mm256_cvtepi32_ps(_mm256_set1_epi32(tile->act_sums[at])));
                        const __m256 whole = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), weight_scales, shift);
                        sums.of[t][p][h] = _mm256_fmadd_ps(whole, act_scale, sums.of[t][p][h]);
                    }
                }
            }
        }
    }
    finish(&sums, tile, tokens, panels);
}

AK_AVX2_INLINE void q4_0(const ak_tile *tile, const int tokens, const int panels) { q4(tile, tokens, panels, AK_Q4_0); }
AK_AVX2_INLINE void q4_1(const ak_tile *tile, const int tokens, const int panels) { q4(tile, tokens, panels, AK_Q4_1); }

AK_TILES_6X1(AK_AVX2, f32);
AK_TILES_6X1(AK_AVX2, f16);
AK_TILES_6X1(AK_AVX2, bf16);
AK_TILES_6X1(AK_AVX2, bf16_dot);
AK_TILES_6X1(AK_AVX2, q8);
AK_TILES_6X1(AK_AVX2, q4_0);
AK_TILES_6X1(AK_AVX2, q4_1);

const ak_tile_set *const ak_avx2_quantized_sets[3] = {&q8_set, &q4_0_set, &q4_1_set};

void ak_avx2_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                    const ak_upcoming *upcoming, void *scratch) {
    static const ak_matmul_parts parts = {
        .f32 = &f32_set, .f16 = &f16_set, .bf16 = &bf16_set, .bf16_dot = &bf16_dot_set, .q8 = &q8_set,
        .q4_0 = &q4_0_set, .q4_1 = &q4_1_set, .half_pairs = ak_portable_half_pairs, .rows = ak_avx2_rows,
    };
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
