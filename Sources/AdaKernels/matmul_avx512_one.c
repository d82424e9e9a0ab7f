// AVX-512 products of one token with packed 8-bit and 4-bit panels: what a decode waits for is memory, so each panel (or bundle of four) is read as
// one stream from beginning to end, with as few instructions in between as possible, for what a processor can look ahead is counted in those.
#include "avx512.h"

#if AK_X86
#define VNNI AK_AVX512_VNNI
#define VNNI_INLINE AK_AVX512_VNNI_INLINE

// Bytes that are asked for ahead, at least a block: farther, they are a second stream to the hardware's own prefetching. Of 4-bit weights fewer,
// for they take twice the instructions.
#define AHEAD_8BIT 2048
#define AHEAD_4BIT 1024

// Where the block lies that is read `distance` listed blocks after block i: in the same panels, or in the next.
AK_INLINE const uint8_t *later_block(const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t i, int32_t count, size_t step,
                                     const int32_t distance) {
    const int32_t later = i + distance, after = later - count;
    if (after < 0) return panels + (size_t)(blocks ? blocks[later] : later) * step;
    return next + (size_t)(blocks ? blocks[after < count ? after : 0] : after) * step;
}

AK_AVX512_INLINE void ask_for_block(const uint8_t *block, const size_t bytes) {
#pragma unroll
    for (size_t line = 0; line < bytes; line += AK_LINE) _mm_prefetch((const char *)block + line, _MM_HINT_T1);
}

AK_AVX512_INLINE __m512 halves(const uint8_t *from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }

// The integer products of a block of `members` panels; exact, so that they may be added in any order: in two chains, for a panel alone has few.
VNNI_INLINE void block_dots(__m512i dots[], const uint8_t *block, const int8_t *act, const int32_t start, const int members, const ak_type type) {
    const size_t line = (size_t)members * AK_LINE;
    const __m512i low_half = _mm512_set1_epi8(15), high_half = _mm512_set1_epi8((char)0xf0);
    __m512i others[AK_BUNDLE];
#pragma unroll
    for (int m = 0; m < members; m++) {
        dots[m] = _mm512_set1_epi32(start);
        others[m] = _mm512_setzero_si512();
    }
#pragma unroll
    for (size_t k = 0; k < 4; k++) {
        // Of 8-bit weights two lines; of 4-bit weights the low and the high halves of one, the high ones 16 times what they stand for.
        const __m512i first = ak_four_inputs512(act + (type == AK_Q8_0 ? 8 * k : 4 * k)), second = ak_four_inputs512(act + (type == AK_Q8_0 ? 8 * k + 4 : 16 + 4 * k));
#pragma unroll
        for (int m = 0; m < members; m++) {
            const uint8_t *from = block + (size_t)m * AK_LINE;
            if (type == AK_Q8_0) {
                dots[m] = _mm512_dpbusd_epi32(dots[m], _mm512_loadu_si512(from + 2 * k * line), first);
                others[m] = _mm512_dpbusd_epi32(others[m], _mm512_loadu_si512(from + (2 * k + 1) * line), second);
            } else {
                const __m512i weights = _mm512_loadu_si512(from + k * line);
                dots[m] = _mm512_dpbusd_epi32(dots[m], _mm512_and_si512(weights, low_half), first);
                others[m] = _mm512_dpbusd_epi32(others[m], _mm512_and_si512(weights, high_half), second);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < members; m++) dots[m] = _mm512_add_epi32(dots[m], type == AK_Q8_0 ? others[m] : _mm512_srai_epi32(others[m], 4));
}

VNNI_INLINE void products(float *out, const ak_activations *act, const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t count,
                          const int members, const ak_type type) {
    const size_t values = (size_t)members * AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2), scale_bytes = AK_PANEL * 2 * (type == AK_Q4_1 ? 2 : 1);
    const size_t step = values + (size_t)members * scale_bytes;
    const size_t blocks_ahead = (type == AK_Q8_0 ? AHEAD_8BIT : AHEAD_4BIT) / step;
    const int32_t distance = blocks_ahead > 0 ? (int32_t)blocks_ahead : 1;
    __m512 sums[AK_BUNDLE];
#pragma unroll
    for (int m = 0; m < members; m++) sums[m] = _mm512_setzero_ps();
    for (int32_t i = 0; i < count; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i);
        const uint8_t *block = panels + at * step;
        ask_for_block(later_block(panels, next, blocks, i, count, step, distance), step);
        const int32_t act_sum = act->sums[at];
        const __m512 act_scale = _mm512_set1_ps(act->scales[at]);
        __m512i dots[AK_BUNDLE];
        block_dots(dots, block, (const int8_t *)act->data + at * AK_BLOCK, type == AK_Q8_0 ? act_sum : type == AK_Q4_0 ? act_sum / 16 : 0, members, type);
#pragma unroll
        for (int m = 0; m < members; m++) {
            const uint8_t *scales = block + values + (size_t)m * scale_bytes;
            const __m512 whole = _mm512_cvtepi32_ps(dots[m]), scale = halves(scales);
            if (type == AK_Q4_1) {
                const __m512 minima = _mm512_mul_ps(halves(scales + AK_PANEL * 2), _mm512_set1_ps(AK_SUM_UNIT));
                const __m512 shift = _mm512_mul_ps(minima, _mm512_cvtepi32_ps(_mm512_set1_epi32(act_sum)));
                sums[m] = _mm512_fmadd_ps(_mm512_fmadd_ps(whole, scale, shift), act_scale, sums[m]);
            } else {
                sums[m] = _mm512_fmadd_ps(whole, _mm512_mul_ps(scale, act_scale), sums[m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < members; m++) _mm512_storeu_ps(out + m * AK_PANEL, sums[m]);
}

// Without a list of blocks the loop has no choice to make.
#define ONE_TOKEN(kind, type) \
    static VNNI void kind##_panel(float *out, const ak_activations *act, const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t count) { \
        if (blocks) products(out, act, panels, next, blocks, count, 1, type); \
        else products(out, act, panels, next, NULL, count, 1, type); \
    } \
    static VNNI void kind##_bundle(float *out, const ak_activations *act, const uint8_t *panels, const uint8_t *next, const int32_t *blocks, int32_t count) { \
        if (blocks) products(out, act, panels, next, blocks, count, AK_BUNDLE, type); \
        else products(out, act, panels, next, NULL, count, AK_BUNDLE, type); \
    }

ONE_TOKEN(q8, AK_Q8_0)
ONE_TOKEN(q4_0, AK_Q4_0)
ONE_TOKEN(q4_1, AK_Q4_1)

const ak_one_token ak_avx512_one_token = {.q8 = {q8_panel, q8_bundle}, .q4_0 = {q4_0_panel, q4_0_bundle}, .q4_1 = {q4_1_panel, q4_1_bundle}};
#endif
