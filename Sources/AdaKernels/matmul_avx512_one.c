// AVX-512 GEMV with packed 8-bit and 4-bit panels (one_token.h).
#include "avx512.h"

#if AK_X86
#define VNNI AK_AVX512_VNNI
#define VNNI_INLINE AK_AVX512_VNNI_INLINE

#define ONE_TARGET VNNI
#define ONE_INLINE VNNI_INLINE

// Prefetch distances measured on Zen 4: longer ones slow Q8_0 down, shorter ones 4-bit weights.
AK_INLINE size_t bytes_ahead(const ak_type type) { return type == AK_Q8_0 ? 3072 : 8192; }

typedef __m512 panel_sums;

VNNI_INLINE panel_sums zero_sums(void) { return _mm512_setzero_ps(); }
VNNI_INLINE panel_sums load_sums(const float *from) { return _mm512_loadu_ps(from); }
VNNI_INLINE void store_sums(float *out, panel_sums sums) { _mm512_storeu_ps(out, sums); }

AK_AVX512_INLINE __m512 halves(const uint8_t *from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from)); }

// A block of the token's activations in registers, for all panels.
typedef struct {
    __m512i fours[AK_BLOCK / 4];   // four inputs each
    __m512i start;                 // initial value of the sums, which cancels the weights' offset
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

// Adds the products of a panel's block to its rows' sums, and prefetches the block at `later`. Integer products are exact and may be added in any
// order, so there are two chains of additions.
VNNI_INLINE __m512 add_block(__m512 sums, const token_block *token, const uint8_t *block, const uint8_t *later, const ak_type type) {
    const size_t values = AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2), bytes = values + AK_PANEL * 2 * (type == AK_Q4_1 ? 2 : 1);
#pragma unroll
    for (size_t line = 0; line < bytes; line += AK_LINE) _mm_prefetch((const char *)later + line, _MM_HINT_T1);
    const __m512i low_half = _mm512_set1_epi8(15), high_half = _mm512_set1_epi8((char)0xf0);
    __m512i dots = token->start, others = _mm512_setzero_si512();
#pragma unroll
    for (size_t k = 0; k < 4; k++) {
        // Two lines of 8-bit weights, or the low and the high halves of one line of 4-bit weights; the high halves are 16 times the weights.
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

#include "one_token.h"

ONE_TOKEN(q8, AK_Q8_0)
ONE_TOKEN(q4_0, AK_Q4_0)
ONE_TOKEN(q4_1, AK_Q4_1)

const ak_one_token ak_avx512_one_token = {.q8 = q8, .q4_0 = q4_0, .q4_1 = q4_1};
#endif
