// AVX2 GEMV with packed 8-bit and 4-bit panels (one_token.h).
#include "avx2.h"

#if AK_X86
#define ONE_TARGET AK_AVX2
#define ONE_INLINE AK_AVX2_INLINE

// With half of this, one stream of Q8_0 reaches two thirds of the bandwidth.
AK_INLINE size_t bytes_ahead(const ak_type type) { (void)type; return 8192; }

typedef struct { __m256 half[2]; } panel_sums;

AK_AVX2_INLINE panel_sums zero_sums(void) { return (panel_sums){{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
AK_AVX2_INLINE panel_sums load_sums(const float *from) { return (panel_sums){{_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}}; }
AK_AVX2_INLINE void store_sums(float *out, panel_sums sums) {
    _mm256_storeu_ps(out, sums.half[0]);
    _mm256_storeu_ps(out + 8, sums.half[1]);
}

typedef struct {
    // Under 8-bit weights 8 times inputs 4k and 4k + 2 in 16 bits, then 8 times inputs 4k + 1 and 4k + 3.
    _Alignas(32) int32_t wide[16];
    const int32_t *fours;   // under 4-bit weights: four inputs each
    int32_t start;          // initial value of a 32-bit sum, or of both 16-bit sums, which cancels the weights' offset
    float sum, scale;       // sum: Q4_1 only
} token_block;

AK_AVX2_INLINE token_block token_at(const ak_activations *act, size_t at, const ak_type type) {
    token_block token;
    const int8_t *values = (const int8_t *)act->data + at * AK_BLOCK;
    const int32_t sum = act->sums[at];
    if (type == AK_Q8_0) {
        const __m256i bytes = _mm256_loadu_si256((const __m256i *)values);
        _mm256_store_si256((__m256i *)token.wide, _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
        _mm256_store_si256((__m256i *)token.wide + 1, _mm256_srai_epi16(bytes, 8));
        ak_settle();
    }
    token.fours = (const int32_t *)(const void *)values;
    token.start = type == AK_Q8_0 ? sum : type == AK_Q4_0 ? ak_avx2_q4_0_start(sum) : 0;
    token.sum = (float)sum;
    token.scale = act->scales[at];
    return token;
}

// Both halves of a panel and even and odd inputs have a sum of their own. Integer products are exact, so they may be added in any order.
AK_AVX2_INLINE panel_sums add_block(panel_sums sums, const token_block *token, const uint8_t *block, const uint8_t *later, const ak_type type) {
    const size_t values = AK_BLOCK * AK_PANEL / (type == AK_Q8_0 ? 1 : 2);
    const __m256i even = _mm256_set1_epi16(255), nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    _mm_prefetch((const char *)later + values, _MM_HINT_T1);
    __m256i dots[2], others[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        dots[h] = _mm256_set1_epi32(token->start);
        others[h] = _mm256_setzero_si256();
    }
#pragma clang loop unroll(disable)
    for (size_t k = 0; k < values / AK_LINE; k++) {
        _mm_prefetch((const char *)later + k * AK_LINE, _MM_HINT_T1);
        const __m256i first = _mm256_set1_epi32(type == AK_Q8_0 ? token->wide[k] : token->fours[k]);
        const __m256i second = _mm256_set1_epi32(type == AK_Q8_0 ? token->wide[8 + k] : token->fours[4 + k]);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(block + k * AK_LINE) + h);
            if (type == AK_Q8_0) {
                dots[h] = _mm256_add_epi32(dots[h], _mm256_madd_epi16(_mm256_and_si256(weights, even), first));
                others[h] = _mm256_add_epi32(others[h], _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), second));
            } else {
                dots[h] = _mm256_add_epi16(dots[h], _mm256_maddubs_epi16(_mm256_and_si256(weights, nibble), first));
                others[h] = _mm256_add_epi16(others[h], _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(weights, 4), nibble), second));
            }
        }
    }
    const __m256 act_scale = _mm256_set1_ps(token->scale);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const __m256i all = type == AK_Q8_0 ? _mm256_add_epi32(dots[h], others[h])
            : _mm256_madd_epi16(_mm256_add_epi16(dots[h], others[h]), ones);
        sums.half[h] = ak_add_dots256(sums.half[h], all, block + values, h, act_scale, token->sum, type);
    }
    return sums;
}

#include "one_token.h"

ONE_TOKEN(q8, AK_Q8_0)
ONE_TOKEN(q4_0, AK_Q4_0)
ONE_TOKEN(q4_1, AK_Q4_1)

const ak_one_token ak_avx2_one_token = {.q8 = q8, .q4_0 = q4_0, .q4_1 = q4_1};
#endif
