// AVX2 passes over the logits of a whole vocabulary. AVX-512 processors use them too, because one pass is bound by memory.
#include "avx2.h"

#if AK_X86
#include <math.h>

AK_AVX2 void ak_avx2_group_maxima(float *maxima, const float *x, int32_t n) {
    const size_t count = (size_t)n;
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    for (size_t first = 0; first < count; first += AK_LOGIT_GROUP) {
        // The comparison gives its second operand where one is NaN, so NaN never gets into the maximum.
        __m256 best[2] = {lowest, lowest};
        if (count - first >= AK_LOGIT_GROUP) {
#pragma unroll
            for (size_t i = 0; i < AK_LOGIT_GROUP; i += 16) {
                best[0] = _mm256_max_ps(_mm256_loadu_ps(x + first + i), best[0]);
                best[1] = _mm256_max_ps(_mm256_loadu_ps(x + first + i + 8), best[1]);
            }
        } else {
            for (size_t i = first; i < count; i += 8) {
                const __m256i lanes = ak_lanes256(count, i);
                const __m256 values = _mm256_blendv_ps(lowest, _mm256_maskload_ps(x + i, lanes), _mm256_castsi256_ps(lanes));
                best[0] = _mm256_max_ps(values, best[0]);
            }
        }
        maxima[first / AK_LOGIT_GROUP] = ak_max256(_mm256_max_ps(best[0], best[1]));
    }
}

AK_AVX2 int32_t ak_avx2_at_least(int32_t *indices, const float *x, int32_t n, const float *maxima, float threshold) {
    const size_t count = (size_t)n;
    const __m256 limit = _mm256_set1_ps(threshold);
    int32_t found = 0;
    for (size_t first = 0; first < count; first += AK_LOGIT_GROUP) {
        if (!(maxima[first / AK_LOGIT_GROUP] >= threshold)) continue;
        const size_t end = count - first < AK_LOGIT_GROUP ? count : first + AK_LOGIT_GROUP;
        for (size_t i = first; i < end; i += 8) {
            const __m256i lanes = ak_lanes256(count, i);
            const __m256 reaches = _mm256_cmp_ps(_mm256_maskload_ps(x + i, lanes), limit, _CMP_GE_OQ);
            unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_and_ps(reaches, _mm256_castsi256_ps(lanes)));
            for (; mask; mask &= mask - 1) indices[found++] = (int32_t)(i + (size_t)__builtin_ctz(mask));
        }
    }
    return found;
}

AK_AVX2 double ak_avx2_exp_sum(const float *x, int32_t n, float shift, float scale) {
    const size_t count = (size_t)n;
    const __m256 shifts = _mm256_set1_ps(shift), scales = _mm256_set1_ps(scale);
    __m256d sums[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    for (size_t i = 0; i < count; i += 8) {
        const __m256i lanes = ak_lanes256(count, i);
        const __m256 values = _mm256_maskload_ps(x + i, lanes);
        const __m256 counts = _mm256_and_ps(_mm256_cmp_ps(values, values, _CMP_ORD_Q), _mm256_castsi256_ps(lanes));
        const __m256 weights = _mm256_and_ps(counts, ak_exp256(_mm256_mul_ps(_mm256_sub_ps(values, shifts), scales)));
        sums[0] = _mm256_add_pd(sums[0], _mm256_cvtps_pd(_mm256_castps256_ps128(weights)));
        sums[1] = _mm256_add_pd(sums[1], _mm256_cvtps_pd(_mm256_extractf128_ps(weights, 1)));
    }
    double four[4];
    _mm256_storeu_pd(four, _mm256_add_pd(sums[0], sums[1]));
    return four[0] + four[1] + four[2] + four[3];
}
#endif
