// What products of one token (one_token.h) have in common that hold the sums of a panel in two registers of 256 bits.
#pragma once
#include "avx2.h"

// Half of this, and one stream of Q8_0 comes at two thirds of the speed.
AK_INLINE size_t bytes_ahead(const ak_type type) { (void)type; return 8192; }

typedef struct { __m256 half[2]; } panel_sums;

AK_AVX2_INLINE panel_sums zero_sums(void) { return (panel_sums){{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
AK_AVX2_INLINE panel_sums load_sums(const float *from) { return (panel_sums){{_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}}; }
AK_AVX2_INLINE void store_sums(float *out, panel_sums sums) {
    _mm256_storeu_ps(out, sums.half[0]);
    _mm256_storeu_ps(out + 8, sums.half[1]);
}

// sum + dots * the scales of half h of a block's rows, at `scales`, and of a token. act_sum: of its inputs, times -128; Q4_1 only.
AK_AVX2_INLINE __m256 add_dots(__m256 sum, __m256i dots, const uint8_t *scales, int h, __m256 act_scale, float act_sum, const ak_type type) {
    const __m128i *halves = (const __m128i *)scales + h;
    const __m256 dot = _mm256_cvtepi32_ps(dots), scale = _mm256_cvtph_ps(_mm_loadu_si128(halves));
    if (type != AK_Q4_1) return _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, act_scale), sum);
    const __m256 minima = _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(halves + 2)), _mm256_set1_ps(AK_SUM_UNIT));
    return _mm256_fmadd_ps(_mm256_fmadd_ps(dot, scale, _mm256_mul_ps(minima, _mm256_set1_ps(act_sum))), act_scale, sum);
}
