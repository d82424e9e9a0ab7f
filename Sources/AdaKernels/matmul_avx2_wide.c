// AVX2 tiles of ak_wide_block: quantized weights under many tokens, and F16 and BF16 weights under I16 activations.
//
// vpmaddwd multiplies twice as many numbers as a fused multiply-add of floats, vpmaddubsw four times as many. Weights are widened once for all tokens
// instead of once for each tile.
#include "avx2.h"

#if AK_X86
#include "tiles.h"

#define WIDE_TOKENS 6   // tokens of a tile: two registers of sums each and two of weights fit 16 registers
#define BYTE_TOKENS 4   // the same under Q8_0 activations, with four registers of weights

// A block of the tile's activations, at fixed places.
typedef struct {
    _Alignas(32) int32_t inputs[WIDE_TOKENS][AK_BLOCK / 2];   // pairs of 16-bit ones; under 4-bit weights fours of 8-bit ones
    float scale[WIDE_TOKENS];
    int32_t start[WIDE_TOKENS];   // initial value of the sums: under 8-bit weights minus ak_wide_block's products, under Q4_0 minus the offset
    float sum[WIDE_TOKENS];       // of the inputs, times -128; Q4_1 only
} staged;

// Products of the pairs 4k and 4k + 2 of inputs, and 4k + 1 and 4k + 3, from their halves.
AK_AVX2_INLINE __m256i products_of(__m256i low, __m256i high) {
    const __m256i first = _mm256_shuffle_epi32(low, 0xd8), second = _mm256_shuffle_epi32(high, 0xd8);
    return _mm256_madd_epi16(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
}

AK_AVX2_INLINE void stage(staged *out, const ak_tile *tile, size_t block, const int tokens, const ak_type act_type, const ak_type type) {
    __m256i products[BYTE_TOKENS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma unroll
    for (int t = 0; t < tokens; t++) {
        const size_t at = (size_t)t * tile->stride + block * AK_BLOCK, scaled = (size_t)t * tile->act_blocks + block;
        __m256i *inputs = (__m256i *)out->inputs[t];
        out->scale[t] = tile->act_scales[scaled];
        if (act_type == AK_I16) {
            for (int h = 0; h < 2; h++) _mm256_store_si256(inputs + h, _mm256_loadu_si256((const __m256i *)((const int16_t *)tile->act + at) + h));
            continue;
        }
        const __m128i *bytes = (const __m128i *)((const int8_t *)tile->act + at);
        if (type == AK_Q8_0) {
            const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes)), high = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes + 1));
            _mm256_store_si256(inputs, low);
            _mm256_store_si256(inputs + 1, high);
            products[t] = products_of(low, high);
        } else {
            _mm256_store_si256(inputs, _mm256_loadu_si256((const __m256i *)bytes));
            if (type == AK_Q4_0) out->start[t] = ak_avx2_q4_0_start(tile->act_sums[scaled]);
            else out->sum[t] = (float)tile->act_sums[scaled];
        }
    }
    if (type != AK_Q8_0) return;
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(products[0], products[1]), _mm256_hadd_epi32(products[2], products[3]));
    const __m128i all = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    _mm_storeu_si128((__m128i *)out->start, _mm_sub_epi32(_mm_setzero_si128(), all));
}

// sum [8] += dots * the scales of half h of a block's rows and of a token.
AK_AVX2_INLINE void add_scaled(float *sum, __m256i dots, __m256 weight_scales, const float *act_scale) {
    const __m256 scales = _mm256_mul_ps(weight_scales, _mm256_broadcast_ss(act_scale));
    _mm256_store_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scales, _mm256_load_ps(sum)));
}

// sums [tokens][16] += the products of a block.
AK_AVX2_INLINE void add_block(float *sums, const staged *act, const ak_wide_block *weight, const int tokens) {
    __m256i dots[WIDE_TOKENS][2];
#pragma unroll
    for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = _mm256_setzero_si256();
    // Unrolled by two only: with more the compiler loads so far ahead that it spills sums.
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 2; k++) {
        const __m256i *pairs = (const __m256i *)weight->pairs[k];
        const __m256i low = _mm256_load_si256(pairs), high = _mm256_load_si256(pairs + 1);
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i pair = _mm256_set1_epi32(act->inputs[t][k]);
            dots[t][0] = _mm256_add_epi32(dots[t][0], _mm256_madd_epi16(low, pair));
            dots[t][1] = _mm256_add_epi32(dots[t][1], _mm256_madd_epi16(high, pair));
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256 weight_scales = _mm256_load_ps(weight->scales + 8 * h);
#pragma unroll
        for (int t = 0; t < tokens; t++) add_scaled(sums + (size_t)t * AK_PANEL + 8 * h, dots[t][h], weight_scales, &act->scale[t]);
    }
}

// The same for 8-bit weights and activations, whose sums of two fit 16 bits: ab + cd = (a + d)(c + b) - ac - bd, where ac and bd are computed once for
// all panels and tokens (Winograd, 1968). Half of the multiplications, which use two of Zen's four vector pipes, become additions, which use all four.
AK_AVX2_INLINE void add_bytes(float *sums, const staged *act, const ak_wide_block *weight, const int tokens) {
    __m256i dots[BYTE_TOKENS][2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256i products = _mm256_load_si256((const __m256i *)weight->products + h);
#pragma unroll
        for (int t = 0; t < tokens; t++) dots[t][h] = _mm256_sub_epi32(_mm256_set1_epi32(act->start[t]), products);
    }
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 2; k += 2) {
        const __m256i *pairs = (const __m256i *)weight->pairs[k];
        const __m256i low = _mm256_load_si256(pairs), high = _mm256_load_si256(pairs + 1);
        const __m256i next_low = _mm256_load_si256(pairs + 2), next_high = _mm256_load_si256(pairs + 3);
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i pair = _mm256_set1_epi32(act->inputs[t][k]), next = _mm256_set1_epi32(act->inputs[t][k + 1]);
            dots[t][0] = _mm256_add_epi32(dots[t][0], _mm256_madd_epi16(_mm256_add_epi16(pair, next_low), _mm256_add_epi16(next, low)));
            dots[t][1] = _mm256_add_epi32(dots[t][1], _mm256_madd_epi16(_mm256_add_epi16(pair, next_high), _mm256_add_epi16(next, high)));
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256 weight_scales = _mm256_load_ps(weight->scales + 8 * h);
#pragma unroll
        for (int t = 0; t < tokens; t++) add_scaled(sums + (size_t)t * AK_PANEL + 8 * h, dots[t][h], weight_scales, &act->scale[t]);
    }
}

// The same for 4-bit weights, with two 16-bit sums per row (see matmul_avx2.c).
AK_AVX2_INLINE void add_nibbles(float *sums, const staged *act, const ak_wide_block *weight, const int tokens, const ak_type type) {
    __m256i dots[WIDE_TOKENS][2];
#pragma unroll
    for (int t = 0; t < tokens; t++) dots[t][0] = dots[t][1] = type == AK_Q4_0 ? _mm256_set1_epi32(act->start[t]) : _mm256_setzero_si256();
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < AK_BLOCK / 4; k++) {
        const __m256i *fours = (const __m256i *)weight->fours[k];
        const __m256i low = _mm256_load_si256(fours), high = _mm256_load_si256(fours + 1);
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            const __m256i four = _mm256_set1_epi32(act->inputs[t][k]);
            dots[t][0] = _mm256_add_epi16(dots[t][0], _mm256_maddubs_epi16(low, four));
            dots[t][1] = _mm256_add_epi16(dots[t][1], _mm256_maddubs_epi16(high, four));
        }
    }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256 weight_scales = _mm256_load_ps(weight->scales + 8 * h);
        const __m256 minima = type == AK_Q4_1 ? _mm256_load_ps(weight->minima + 8 * h) : _mm256_setzero_ps();
#pragma unroll
        for (int t = 0; t < tokens; t++) {
            float *sum = sums + (size_t)t * AK_PANEL + 8 * h;
            const __m256i dot = _mm256_madd_epi16(dots[t][h], ones);
            if (type == AK_Q4_1) {
                const __m256 shift = _mm256_mul_ps(minima, _mm256_broadcast_ss(&act->sum[t]));
                const __m256 whole = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), weight_scales, shift);
                _mm256_store_ps(sum, _mm256_fmadd_ps(whole, _mm256_broadcast_ss(&act->scale[t]), _mm256_load_ps(sum)));
            } else {
                add_scaled(sum, dot, weight_scales, &act->scale[t]);
            }
        }
    }
}

AK_AVX2_INLINE void wide_tile(const ak_tile *tile, const int tokens, const ak_type act_type, const ak_type type) {
    staged act[AK_ROWS_BLOCKS];
    for (int32_t i = tile->first; i < tile->last; i++) stage(&act[i - tile->first], tile, (size_t)ak_tile_block(tile, i), tokens, act_type, type);
    for (int p = 0; p < tile->panels; p++) {
        _Alignas(32) float sums[WIDE_TOKENS][AK_PANEL];
        for (int t = 0; t < tokens; t++) ak_tile_start(sums[t], tile, t, p);
        const uint8_t *weight = tile->weight[p];
        for (int32_t i = 0; i < tile->last - tile->first; i++, weight += tile->step) {
            ak_settle();
            if (act_type == AK_I16) add_block(sums[0], &act[i], (const ak_wide_block *)weight, tokens);
            else if (type == AK_Q8_0) add_bytes(sums[0], &act[i], (const ak_wide_block *)weight, tokens);
            else add_nibbles(sums[0], &act[i], (const ak_wide_block *)weight, tokens, type);
        }
        ak_settle();
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++) ak_finish_half256(_mm256_load_ps(&sums[t][8 * h]), tile, t, p, h);
    }
}

AK_AVX2_INLINE void i16(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_I16, AK_F16); }
AK_AVX2_INLINE void q8(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_Q8_0, AK_Q8_0); }
AK_AVX2_INLINE void q4_0(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_Q8_0, AK_Q4_0); }
AK_AVX2_INLINE void q4_1(const ak_tile *tile, const int tokens) { wide_tile(tile, tokens, AK_Q8_0, AK_Q4_1); }

AK_TILES_6_OF(AK_AVX2, i16)
AK_TILES_4_OF(AK_AVX2, q8)
AK_TILES_6_OF(AK_AVX2, q4_0)
AK_TILES_6_OF(AK_AVX2, q4_1)

const ak_tile_set ak_avx2_wide_sets[4] = {AK_TILE_SET_6(i16), AK_TILE_SET_4(q8), AK_TILE_SET_6(q4_0), AK_TILE_SET_6(q4_1)};

// ------------------------------------------------------------------------------------------------------------- widening

static AK_AVX2 void widen_q8(ak_wide_block *out, const uint8_t *block, const uint16_t *scales) {
    // Of each row's four bytes the first two, or the last two, each followed by a zero.
    const __m256i first = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m256i second = _mm256_add_epi8(first, _mm256_set1_epi16(2)), zero = _mm256_set1_epi16(128);
    __m256i products[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma unroll
    for (size_t k = 0; k < AK_BLOCK / 4; k++, block += AK_LINE)
#pragma unroll
        for (size_t h = 0; h < 2; h++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)block + h);
            const __m256i pair = _mm256_sub_epi16(_mm256_shuffle_epi8(bytes, first), zero);
            const __m256i next = _mm256_sub_epi16(_mm256_shuffle_epi8(bytes, second), zero);
            _mm256_store_si256((__m256i *)out->pairs[2 * k] + h, pair);
            _mm256_store_si256((__m256i *)out->pairs[2 * k + 1] + h, next);
            products[h] = _mm256_add_epi32(products[h], _mm256_madd_epi16(pair, next));
        }
    for (size_t h = 0; h < 2; h++) _mm256_store_si256((__m256i *)out->products + h, products[h]);
    for (size_t h = 0; h < 2; h++) _mm256_store_ps(out->scales + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)scales + h)));
}

AK_AVX2_INLINE void widen_q4(ak_wide_block *out, const uint8_t *block, const uint16_t *scales, const ak_type type) {
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma unroll
    for (size_t k = 0; k < AK_BLOCK / 8; k++, block += AK_LINE)
#pragma unroll
        for (size_t h = 0; h < 2; h++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)block + h);
            _mm256_store_si256((__m256i *)out->fours[k] + h, _mm256_and_si256(bytes, nibble));
            _mm256_store_si256((__m256i *)out->fours[4 + k] + h, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
        }
    const __m128i *halves = (const __m128i *)scales;
    for (size_t h = 0; h < 2; h++) {
        _mm256_store_ps(out->scales + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128(halves + h)));
        if (type == AK_Q4_1)
            _mm256_store_ps(out->minima + 8 * h, _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(halves + 2 + h)), _mm256_set1_ps(AK_SUM_UNIT)));
    }
}

// The largest magnitudes of eight rows' weights in float32, NaN left out.
AK_AVX2_INLINE __m256 largest_float(const uint8_t *block, const ak_type type, const int half) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 largest = _mm256_setzero_ps();
    for (int k = 0; k < AK_BLOCK; k++)
        largest = _mm256_max_ps(_mm256_andnot_ps(sign, ak_weights256(block + (size_t)(k / 2) * AK_LINE, type, k % 2, half)), largest);
    return largest;
}

// Eight rows' values of two inputs as 16-bit integers, side by side.
AK_AVX2_INLINE __m256i wide_pair(__m256i even, __m256i odd) { return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa); }

// finite: whether no weight is infinite or NaN, so that none has to be replaced by 0.
AK_AVX2_INLINE void widen_rows(ak_wide_block *out, const ak_type type, const uint8_t *block, const __m256 largest, const int half, const int finite) {
    const __m256 limit = _mm256_set1_ps(3.4028235e38f);
    const __m256 scale = _mm256_div_ps(largest, _mm256_set1_ps(AK_WIDE_MAX)), exact = _mm256_div_ps(_mm256_set1_ps(1), scale);
    const __m256 inverse = _mm256_and_ps(exact, _mm256_cmp_ps(exact, limit, _CMP_LE_OQ));   // ak_inverse_scale
    _mm256_store_ps(out->scales + 8 * half, scale);
#pragma unroll
    for (size_t k = 0; k < AK_BLOCK / 2; k++) {
        const uint8_t *pair = block + k * AK_LINE;
        const __m256 even = _mm256_mul_ps(ak_weights256(pair, type, 0, half), inverse), odd = _mm256_mul_ps(ak_weights256(pair, type, 1, half), inverse);
        _mm256_store_si256((__m256i *)out->pairs[k] + half, finite ? wide_pair(_mm256_cvtps_epi32(even), _mm256_cvtps_epi32(odd))
                                                                   : wide_pair(ak_wide_values256(even), ak_wide_values256(odd)));
    }
}

// The largest magnitudes of all 16 rows are found by comparing the floats' bits as integers, because positive floats have the same order.
AK_AVX2_INLINE void widen_float(ak_wide_block *out, const ak_type type, const uint8_t *block) {
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    __m256i first = _mm256_setzero_si256(), second = first;   // F16: of even and odd inputs; BF16: of rows 0 … 7 and 8 … 15, even and odd inputs in turn
#pragma unroll
    for (size_t k = 0; k < AK_BLOCK / 2; k++) {
        const __m256i *lines = (const __m256i *)(block + k * AK_LINE);
        first = _mm256_max_epu16(first, _mm256_and_si256(_mm256_loadu_si256(lines), magnitude));
        second = _mm256_max_epu16(second, _mm256_and_si256(_mm256_loadu_si256(lines + 1), magnitude));
    }
    const __m256i both = _mm256_max_epu16(first, second), last_finite = _mm256_set1_epi16(type == AK_F16 ? 0x7bff : 0x7f7f);
    if (!_mm256_testz_si256(_mm256_cmpgt_epi16(both, last_finite), magnitude)) {
        for (int h = 0; h < 2; h++) widen_rows(out, type, block, largest_float(block, type, h), h, 0);
        return;
    }
    if (type == AK_F16) {
        widen_rows(out, type, block, _mm256_cvtph_ps(_mm256_castsi256_si128(both)), 0, 1);
        widen_rows(out, type, block, _mm256_cvtph_ps(_mm256_extracti128_si256(both, 1)), 1, 1);
    } else {
        widen_rows(out, type, block, _mm256_max_ps(ak_even_half256(first), ak_odd_half256(first)), 0, 1);
        widen_rows(out, type, block, _mm256_max_ps(ak_even_half256(second), ak_odd_half256(second)), 1, 1);
    }
}

static AK_AVX2 void widen_f16(ak_wide_block *out, const uint8_t *block) { widen_float(out, AK_F16, block); }
static AK_AVX2 void widen_bf16(ak_wide_block *out, const uint8_t *block) { widen_float(out, AK_BF16, block); }

static AK_AVX2 void widen_q4_0(ak_wide_block *out, const uint8_t *block, const uint16_t *scales) { widen_q4(out, block, scales, AK_Q4_0); }
static AK_AVX2 void widen_q4_1(ak_wide_block *out, const uint8_t *block, const uint16_t *scales) { widen_q4(out, block, scales, AK_Q4_1); }

void ak_avx2_widen(ak_wide_block *out, ak_type type, const uint8_t *block, const uint16_t *scales) {
    switch (type) {
        case AK_Q8_0: widen_q8(out, block, scales); break;
        case AK_Q4_0: widen_q4_0(out, block, scales); break;
        case AK_Q4_1: widen_q4_1(out, block, scales); break;
        case AK_F16: widen_f16(out, block); break;
        default: widen_bf16(out, block);
    }
}
#endif
