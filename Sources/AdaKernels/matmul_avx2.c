// AVX2 tiles of the matrix product: two registers hold one input's weights of a panel's 16 rows.
#include "avx2.h"

#if AK_X86

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
            for (int h = 0; h < 2; h++) ak_finish_half256(sums->of[t][p][h], tile, t, p, h);
}

// -------------------------------------------------------------------------------------------------------- floating point

AK_AVX2_INLINE __m256 load_act(const void *act, const ak_type type, size_t at) {
    if (type == AK_F32) return _mm256_broadcast_ss((const float *)act + at);
    return _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)((uint32_t)((const uint16_t *)act)[at] << 16)));
}

AK_AVX2_INLINE void float_tile(const ak_tile *tile, const int tokens, const int panels, const ak_type act_type, const ak_type type) {
    const size_t pair_bytes = type == AK_F32 ? 2 * AK_LINE : AK_LINE;
    sums256 sums;
    start(&sums, tile, tokens, panels);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const int32_t block = ak_tile_block(tile, i);
        const size_t offset = (size_t)ak_tile_weight_block(tile, i, block) * tile->step;
        const uint8_t *ahead[AK_TILE_PANELS];
#pragma unroll
        for (int p = 0; p < panels; p++)
            ahead[p] = tokens <= 2 ? ak_tile_ahead(tile, p, i, AK_AHEAD, AK_BLOCK * AK_PANEL * (type == AK_F32 ? 4 : 2), panels) : NULL;
        for (int k = 0; k < AK_BLOCK; k += 2) {
#pragma unroll
            for (int odd = 0; odd < 2; odd++)
#pragma unroll
                for (int p = 0; p < panels; p++) {
                    const uint8_t *pair = tile->weight[p] + offset + (size_t)(k / 2) * pair_bytes;
                    if (tokens <= 2 && (odd || type == AK_F32))
                        _mm_prefetch((const char *)ahead[p] + (size_t)(k / 2) * pair_bytes + (type == AK_F32 ? AK_LINE * (size_t)odd : 0), _MM_HINT_T1);
                    const __m256 low = ak_weights256(pair, type, odd, 0), high = ak_weights256(pair, type, odd, 1);
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

// -------------------------------------------------------------------------------------------------------- Q8_0, Q4_0 and Q4_1

#define QUANTIZED_TOKENS 4   // tokens of a tile: two registers of sums each and two of weights fit 16 registers

// A block of the tile's activations as the loops below read them, from fixed places and once for all panels.
typedef struct {
    // The 32 inputs: as 8 fours of bytes under 4-bit weights; under 8-bit weights 8 times inputs 4k and 4k + 2 in 16 bits, then 8 times
    // inputs 4k + 1 and 4k + 3.
    _Alignas(32) int32_t inputs[QUANTIZED_TOKENS][16];
    int32_t first[QUANTIZED_TOKENS];   // initial value of the sums
    float scale[QUANTIZED_TOKENS];
    float sum[QUANTIZED_TOKENS];       // of the inputs, times -128; Q4_1 only
} staged;

AK_AVX2_INLINE void stage(staged *out, const ak_tile *tile, size_t block, const int tokens, const ak_type type) {
#pragma unroll
    for (int t = 0; t < tokens; t++) {
        const size_t at = (size_t)t * tile->act_blocks + block;
        const __m256i bytes = _mm256_loadu_si256((const __m256i *)((const int8_t *)tile->act + (size_t)t * tile->stride + block * AK_BLOCK));
        __m256i *inputs = (__m256i *)out->inputs[t];
        out->scale[t] = tile->act_scales[at];
        if (type == AK_Q8_0) {
            _mm256_store_si256(inputs, _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
            _mm256_store_si256(inputs + 1, _mm256_srai_epi16(bytes, 8));
            out->first[t] = tile->act_sums[at];
        } else {
            _mm256_store_si256(inputs, bytes);
            if (type == AK_Q4_0) out->first[t] = ak_avx2_q4_0_start(tile->act_sums[at]);
            else out->sum[t] = (float)tile->act_sums[at];
        }
    }
}

AK_AVX2_INLINE __m256i four_of(const int32_t *inputs) { return _mm256_set1_epi32(*inputs); }

// dots = the sums of a panel's 8 + 8 rows over a block, 32-bit for 8-bit weights, two 16-bit halves for 4-bit ones. The loops over k are not unrolled:
// otherwise the compiler loads everything first and spills the sums, which halves the speed.
//
// 8-bit weights (plus 128, as they are stored) are widened to 16 bits. Products of bytes would be no faster: their sums of pairs need all 16 bits, so
// each has to be widened before the next addition.
AK_AVX2_INLINE void q8_dots(__m256i dots[][2], const staged *act, const uint8_t *weight, const uint8_t *ahead,
                            const int tokens, const int asks) {
    const __m256i even = _mm256_set1_epi16(255);
#pragma unroll
    for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = _mm256_set1_epi32(act->first[t]);
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 4; k++) {
        if (asks) _mm_prefetch((const char *)ahead + k * AK_LINE, _MM_HINT_T1);
        __m256i lower[2], upper[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(weight + k * AK_LINE + 32 * (size_t)h));
            lower[h] = _mm256_and_si256(bytes, even);
            upper[h] = _mm256_srli_epi16(bytes, 8);
        }
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i first = four_of(act->inputs[t] + k), second = four_of(act->inputs[t] + 8 + k);
#pragma unroll
            for (int h = 0; h < 2; h++) dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(lower[h], first));
#pragma unroll
            for (int h = 0; h < 2; h++) dots[t][h] = _mm256_add_epi32(dots[t][h], _mm256_madd_epi16(upper[h], second));
        }
    }
}

AK_AVX2_INLINE void q4_dots(__m256i dots[][2], const staged *act, const uint8_t *weight, const uint8_t *ahead,
                            const int tokens, const int asks, const ak_type type) {
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma unroll
    for (int t = 0; t < tokens; t++)
        dots[t][0] = dots[t][1] = type == AK_Q4_0 ? _mm256_set1_epi32(act->first[t]) : _mm256_setzero_si256();
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 8; k++) {
        if (asks) _mm_prefetch((const char *)ahead + k * AK_LINE, _MM_HINT_T1);
        __m256i lower[2], upper[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(weight + k * AK_LINE + 32 * (size_t)h));
            lower[h] = _mm256_and_si256(bytes, nibble);
            upper[h] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
        }
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i first = four_of(act->inputs[t] + k), second = four_of(act->inputs[t] + 4 + k);
#pragma unroll
            for (int h = 0; h < 2; h++) dots[t][h] = _mm256_add_epi16(dots[t][h], _mm256_maddubs_epi16(lower[h], first));
#pragma unroll
            for (int h = 0; h < 2; h++) dots[t][h] = _mm256_add_epi16(dots[t][h], _mm256_maddubs_epi16(upper[h], second));
        }
    }
}

AK_AVX2_INLINE void add_block(float *sums, const __m256i dots[][2], const staged *act, const __m128i *scales, const int tokens,
                              const ak_type type) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256 weight_scales = _mm256_cvtph_ps(_mm_loadu_si128(scales + h));
        const __m256 minima = type == AK_Q4_1
            ? _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(scales + 2 + h)), _mm256_set1_ps(AK_SUM_UNIT)) : _mm256_setzero_ps();
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            float *sum = sums + (size_t)t * AK_TILE_PANELS * AK_PANEL + 8 * h;
            const __m256 act_scale = _mm256_broadcast_ss(&act->scale[t]), before = _mm256_load_ps(sum);
            const __m256 dot = _mm256_cvtepi32_ps(type == AK_Q8_0 ? dots[t][h] : _mm256_madd_epi16(dots[t][h], ones));
            if (type == AK_Q4_1) {
                const __m256 whole = _mm256_fmadd_ps(dot, weight_scales, _mm256_mul_ps(minima, _mm256_broadcast_ss(&act->sum[t])));
                _mm256_store_ps(sum, _mm256_fmadd_ps(whole, act_scale, before));
            } else {
                _mm256_store_ps(sum, _mm256_fmadd_ps(dot, _mm256_mul_ps(weight_scales, act_scale), before));
            }
        }
    }
}

// asks: whether the tile prefetches AK_AHEAD bytes ahead.
AK_AVX2_INLINE void quantized_tile(const ak_tile *tile, const int tokens, const ak_type type, const int asks) {
    _Alignas(32) float sums[QUANTIZED_TOKENS][AK_TILE_PANELS][AK_PANEL];
    const int panels = tile->panels;
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++) ak_tile_start(sums[t][p], tile, t, p);
    for (int32_t i = tile->first; i < tile->last; i++) {
        const size_t block = (size_t)ak_tile_block(tile, i), stored = (size_t)ak_tile_weight_block(tile, i, (int32_t)block);
        staged act;
        stage(&act, tile, block, tokens, type);
        ak_settle();
#pragma clang loop unroll(disable)
        for (int p = 0; p < panels; p++) {
            const uint8_t *weight = tile->weight[p] + stored * tile->step, *ahead = NULL;
            if (asks) {
                ahead = ak_tile_ahead(tile, p, i, AK_AHEAD, AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2), panels);
                _mm_prefetch((const char *)ak_tile_scales_ahead(tile, p, ahead), _MM_HINT_T1);
            }
            __m256i dots[QUANTIZED_TOKENS][2];
            if (type == AK_Q8_0) q8_dots(dots, &act, weight, ahead, tokens, asks);
            else q4_dots(dots, &act, weight, ahead, tokens, asks, type);
            add_block(sums[0][p], dots, &act, (const __m128i *)ak_tile_scales(tile, p, stored), tokens, type);
            ak_settle();
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int p = 0; p < panels; p++)
            for (int h = 0; h < 2; h++) ak_finish_half256(_mm256_load_ps(&sums[t][p][8 * h]), tile, t, p, h);
}

#define QUANTIZED_TILES(kind, type) \
    AK_AVX2_INLINE void kind(const ak_tile *tile, const int tokens) { quantized_tile(tile, tokens, type, 0); } \
    AK_AVX2_INLINE void kind##_stream(const ak_tile *tile, const int tokens) { quantized_tile(tile, tokens, type, 1); } \
    AK_TILES_4(AK_AVX2, kind##_stream); \
    AK_TILES_4(AK_AVX2, kind, .some = &kind##_stream_set)

QUANTIZED_TILES(q8, AK_Q8_0);
QUANTIZED_TILES(q4_0, AK_Q4_0);
QUANTIZED_TILES(q4_1, AK_Q4_1);

AK_TILES_6X1(AK_AVX2, f32);
AK_TILES_6X1(AK_AVX2, f16);
AK_TILES_6X1(AK_AVX2, bf16);
AK_TILES_6X1(AK_AVX2, bf16_dot);

const ak_tile_set *const ak_avx2_quantized_sets[3] = {&q8_set, &q4_0_set, &q4_1_set};

const ak_matmul_parts ak_avx2_matmul_parts = {
    .f32 = &f32_set, .f16 = &f16_set, .bf16 = &bf16_set, .bf16_dot = &bf16_dot_set, .q8 = &q8_set,
    .q4_0 = &q4_0_set, .q4_1 = &q4_1_set, .pairs = ak_portable_pairs, .rows = ak_avx2_rows, .panel = ak_avx2_panel,
    .i16 = &ak_avx2_wide_sets[0], .wide_q8 = &ak_avx2_wide_sets[1], .wide_q4_0 = &ak_avx2_wide_sets[2],
    .wide_q4_1 = &ak_avx2_wide_sets[3], .widen = ak_avx2_widen,
    .row_products = &ak_avx2_row_products, .one_token = &ak_avx2_one_token,
};

void ak_avx2_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                    const ak_upcoming *upcoming, void *scratch) {
    ak_matmul_with(&ak_avx2_matmul_parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
