// 8-bit keys and values on AVX2: storing them, and attention. Its products are sums of whole numbers, the same on every instruction set.
#include "avx2.h"

#if AK_X86
#include <math.h>
#include <string.h>

// Four products of every 32-bit lane, exactly: magnitudes up to 128 times 127 stay below 2^15 in pairs, which those of unsigned bytes would not.
AK_AVX2_INLINE __m256i add_dots(__m256i sums, __m256i bytes, __m256i q) {
    const __m256i keys = _mm256_xor_si256(bytes, _mm256_set1_epi8((char)0x80));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(keys), _mm256_sign_epi8(q, keys));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#define Q8_TARGET AK_AVX2
#define Q8_INLINE AK_AVX2_INLINE
#define Q8_DOT add_dots
#define Q8_START(query) 0
#define Q8_ADD_PAIRS(sums, values, weights) _mm256_add_epi32(sums, _mm256_madd_epi16(values, weights))
#define Q8_SCORES ak_avx2_q8_scores
#define Q8_COMBINE ak_avx2_q8_combine
#include "q8_attention256.h"

// The largest magnitude of n values; NaN is passed over.
AK_AVX2_INLINE float largest_of(const float *x, size_t n) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 largest = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) largest = _mm256_max_ps(_mm256_and_ps(ak_load256(x, n, i), magnitude), largest);
    return ak_max256(largest);
}

// ak_q8_value of eight.
AK_AVX2_INLINE __m256i rounded_values(__m256 scaled) {
    const __m256 number = _mm256_and_ps(_mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q), scaled);
    return _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(number, _mm256_set1_ps(127)), _mm256_set1_ps(-127)));
}

AK_AVX2_INLINE __m128i narrow(__m256i values) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
    return _mm_packs_epi16(words, words);
}

// weights * scales, where both are numbers.
AK_AVX2_INLINE __m256 scaled_weights(const float *weights, const uint16_t *scales, size_t i) {
    const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(weights + i), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(scales + i))));
    return _mm256_and_ps(_mm256_cmp_ps(product, product, _CMP_ORD_Q), product);
}

AK_AVX2 float ak_avx2_q8_weights(int16_t *out, const float *weights, const uint16_t *scales, size_t count) {
    __m256 largest = _mm256_setzero_ps();
    for (size_t i = 0; i < count; i += 8) largest = _mm256_max_ps(scaled_weights(weights, scales, i), largest);
    const float unit = ak_max256(largest) / AK_Q8_WEIGHT_MAX;
    const __m256 inverse = _mm256_set1_ps(ak_inverse_scale(unit)), most = _mm256_set1_ps(AK_Q8_WEIGHT_MAX);
    for (size_t i = 0; i < count; i += 16) {
        __m256i halves[2];
        for (size_t h = 0; h < 2; h++)
            halves[h] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(scaled_weights(weights, scales, i + 8 * h), inverse), most));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_permute4x64_epi64(_mm256_packs_epi32(halves[0], halves[1]), 0xd8));
    }
    return unit;
}

AK_AVX2 void ak_avx2_q8_query(int8_t *out, ak_q8_query *query, const float *q, int32_t head_dim) {
    const size_t n = (size_t)head_dim;
    query->scale = largest_of(q, n) / 127;
    const __m256 inverse = _mm256_set1_ps(ak_inverse_scale(query->scale));
    __m256i sums = _mm256_setzero_si256();
    for (size_t d = 0; d < n; d += 8) {
        const __m256i values = rounded_values(_mm256_mul_ps(ak_load256(q, n, d), inverse));
        sums = _mm256_add_epi32(sums, values);
        _mm_storel_epi64((__m128i *)(out + d), narrow(values));
    }
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    query->start = -128 * (_mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1));
}

AK_AVX2 void ak_avx2_q8_store(void *k, void *v, const float *key, size_t ldk, const float *value, size_t ldv, int32_t head_dim, int32_t first,
                              int32_t count) {
    const size_t dims = (size_t)head_dim, key_width = ak_q8_key_width(head_dim), width = (size_t)ak_value_width(head_dim);
    uint16_t *key_scales = (uint16_t *)((uint8_t *)k + AK_ATTENTION_SPAN * key_width), *value_scales = (uint16_t *)((uint8_t *)v + AK_ATTENTION_SPAN * width);
    for (size_t t = 0; t < (size_t)count; t++) {
        const size_t position = (size_t)first + t;
        const float *key_row = key + t * ldk, *value_row = value + t * ldv;
        const uint16_t key_scale = key_scales[position] = ak_q8_row_scale(largest_of(key_row, dims));
        const uint16_t value_scale = value_scales[position] = ak_q8_row_scale(largest_of(value_row, dims));
        const __m256 key_factor = _mm256_set1_ps(ak_inverse_scale(_cvtsh_ss(key_scale)));
        const __m256 value_factor = _mm256_set1_ps(ak_inverse_scale(_cvtsh_ss(value_scale)));
        uint8_t *keys = (uint8_t *)k + position / AK_PANEL * AK_PANEL * key_width + position % AK_PANEL * 4;
        for (size_t d = 0; d < key_width; d += 8) {
            const __m256 eight = _mm256_mul_ps(ak_load256(key_row, dims, d), key_factor);
            const __m128i bytes = _mm_xor_si128(narrow(rounded_values(eight)), _mm_set1_epi8((char)0x80));
            const int32_t low = _mm_cvtsi128_si32(bytes), high = _mm_extract_epi32(bytes, 1);
            memcpy(keys + d * AK_PANEL, &low, sizeof low);
            if (d + 4 < key_width) memcpy(keys + (d + 4) * AK_PANEL, &high, sizeof high);
        }
        int8_t *values = (int8_t *)v + position / 2 * 2 * width + position % 2, bytes[8];
        for (size_t d = 0; d < width; d += 8) {
            const __m256 eight = d < dims ? _mm256_mul_ps(ak_load256(value_row, dims, d), value_factor) : _mm256_setzero_ps();
            _mm_storel_epi64((__m128i *)bytes, narrow(rounded_values(eight)));
            for (size_t i = 0; i < 8; i++) values[2 * (d + i)] = bytes[i];
        }
    }
}
#endif
