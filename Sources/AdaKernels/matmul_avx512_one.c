// AVX-512 products of one token with packed 8-bit and 4-bit panels: what a decode waits for is memory, so each panel (or bundle of them) is read as
// one stream from beginning to end, with as few instructions in between as possible, for what a processor can look ahead is counted in those.
#include "avx512.h"

#if AK_X86
#define VNNI AK_AVX512_VNNI
#define VNNI_INLINE AK_AVX512_VNNI_INLINE

// Bytes that are asked for ahead, at least: what covers the latency of memory, behind a gap in the listed blocks as well.
#define AHEAD 3072

// As many blocks of `bytes`.
AK_INLINE int32_t blocks_ahead(size_t bytes) { return (int32_t)((AHEAD + bytes - 1) / bytes); }

// Where the block lies that is read `distance` listed blocks after block i: in the same panels, or in the next.
AK_INLINE const uint8_t *later_block(const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t i, int32_t count, size_t step,
                                     const int32_t distance) {
    const int32_t later = i + distance, after = later - count;
    if (after < 0) return panels + (size_t)(blocks ? blocks[later] : later) * step;
    return next + (size_t)(blocks ? blocks[after < count ? after : 0] : after) * step;
}

AK_AVX512_INLINE __m512 halves(const uint8_t *from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }

// A block of the token, as all panels meet it.
typedef struct {
    __m512i fours[AK_BLOCK / 4];   // four inputs each
    __m512i start;                 // what the weights' offset adds
    __m512 sum, scale;             // sum: Q4_1 only
} token_block;

VNNI_INLINE token_block token_at(const ak_activations *act, size_t at, const ak_type type) {
    token_block token;
    const int8_t *values = (const int8_t *)act->data + at * AK_BLOCK;
    const int32_t sum = act->sums[at];
#pragma unroll
    for (size_t k = 0; k < AK_BLOCK / 4; k++) token.fours[k] = ak_four_inputs512(values + 4 * k);
    token.start = _mm512_set1_epi32(type == AK_Q8_0 ? sum : type == AK_Q4_0 ? sum / 16 : 0);
    token.sum = _mm512_cvtepi32_ps(_mm512_set1_epi32(sum));
    token.scale = _mm512_set1_ps(act->scales[at]);
    return token;
}

// Adds the products of a panel's block to its rows' sums, and asks for the one at `later`. Integer products are exact, so that they may be added in
// any order: in two chains, for a panel alone has few.
VNNI_INLINE __m512 add_block(__m512 sums, const token_block *token, const uint8_t *block, const uint8_t *later, const ak_type type) {
    const size_t values = AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2), bytes = values + AK_PANEL * 2 * (type == AK_Q4_1 ? 2 : 1);
#pragma unroll
    for (size_t line = 0; line < bytes; line += AK_LINE) _mm_prefetch((const char *)later + line, _MM_HINT_T1);
    const __m512i low_half = _mm512_set1_epi8(15), high_half = _mm512_set1_epi8((char)0xf0);
    __m512i dots = token->start, others = _mm512_setzero_si512();
#pragma unroll
    for (size_t k = 0; k < 4; k++) {
        // Of 8-bit weights two lines; of 4-bit weights the low and the high halves of one, the high ones 16 times what they stand for.
        if (type == AK_Q8_0) {
            dots = _mm512_dpbusd_epi32(dots, _mm512_loadu_si512(block + 2 * k * AK_LINE), token->fours[2 * k]);
            others = _mm512_dpbusd_epi32(others, _mm512_loadu_si512(block + (2 * k + 1) * AK_LINE), token->fours[2 * k + 1]);
        } else {
            const __m512i weights = _mm512_loadu_si512(block + k * AK_LINE);
            dots = _mm512_dpbusd_epi32(dots, _mm512_and_si512(weights, low_half), token->fours[k]);
            others = _mm512_dpbusd_epi32(others, _mm512_and_si512(weights, high_half), token->fours[4 + k]);
        }
    }
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_add_epi32(dots, type == AK_Q8_0 ? others : _mm512_srai_epi32(others, 4)));
    const __m512 scale = halves(block + values);
    if (type != AK_Q4_1) return _mm512_fmadd_ps(whole, _mm512_mul_ps(scale, token->scale), sums);
    const __m512 minima = _mm512_mul_ps(halves(block + values + AK_PANEL * 2), _mm512_set1_ps(AK_SUM_UNIT));
    return _mm512_fmadd_ps(_mm512_fmadd_ps(whole, scale, _mm512_mul_ps(minima, token->sum)), token->scale, sums);
}

VNNI_INLINE void alone(float *out, const ak_activations *act, const uint8_t *panel, const uint8_t *next, const int32_t *blocks, int32_t count,
                       const ak_type type) {
    const size_t step = ak_block_step(type);
    __m512 sums = _mm512_setzero_ps();
    for (int32_t i = 0; i < count; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i);
        const token_block token = token_at(act, at, type);
        sums = add_block(sums, &token, panel + at * step, later_block(panel, next, blocks, i, count, step, blocks_ahead(step)), type);
    }
    _mm512_storeu_ps(out, sums);
}

VNNI_INLINE void together(float *out, const ak_activations *act, const uint8_t *panels, size_t step, size_t member_step, int32_t members,
                          const uint8_t *next, const int32_t *blocks, int32_t count, const ak_type type) {
    const int32_t distance = blocks_ahead((size_t)members * ak_block_step(type));
    for (int32_t m = 0; m < members; m++) _mm512_storeu_ps(out + m * AK_PANEL, _mm512_setzero_ps());
    for (int32_t i = 0; i < count; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i);
        const token_block token = token_at(act, at, type);
        const uint8_t *block = panels + at * step, *later = later_block(panels, next, blocks, i, count, step, distance);
        for (int32_t m = 0; m < members; m++, block += member_step, later += member_step) {
            float *sums = out + m * AK_PANEL;   // which stay in the first-level cache
            _mm512_storeu_ps(sums, add_block(_mm512_loadu_ps(sums), &token, block, later, type));
        }
    }
}

// Without a list of blocks the loop has no choice to make.
#define ONE_TOKEN(kind, type) \
    static VNNI void kind(float *out, const ak_activations *act, const uint8_t *panels, size_t step, size_t member_step, int32_t members, \
                          const uint8_t *next, const int32_t *blocks, int32_t count) { \
        if (members == 1 && step == ak_block_step(type)) { \
            if (blocks) alone(out, act, panels, next, blocks, count, type); \
            else alone(out, act, panels, next, NULL, count, type); \
        } else { \
            if (blocks) together(out, act, panels, step, member_step, members, next, blocks, count, type); \
            else together(out, act, panels, step, member_step, members, next, NULL, count, type); \
        } \
    }

ONE_TOKEN(q8, AK_Q8_0)
ONE_TOKEN(q4_0, AK_Q4_0)
ONE_TOKEN(q4_1, AK_Q4_1)

const ak_one_token ak_avx512_one_token = {.q8 = q8, .q4_0 = q4_0, .q4_1 = q4_1};
#endif
