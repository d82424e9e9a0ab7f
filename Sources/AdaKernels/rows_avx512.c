// AVX-512 dequantization of a panel of rows: 16 values of each of 16 rows at a time, then a transpose.
#include "avx512.h"

#if AK_X86
#include <string.h>

AK_AVX512_INLINE float half_at(const uint8_t *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return _cvtsh_ss(half);
}

AK_AVX512_INLINE __m512i bytes16(const uint8_t *bytes) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes)); }

// 16 quants of 4 bits, the low (0) or high (1) halves of 16 bytes.
AK_AVX512_INLINE __m512i nibbles(const uint8_t *bytes, int high) {
    return _mm512_and_si512(_mm512_srlv_epi32(bytes16(bytes), _mm512_set1_epi32(4 * high)), _mm512_set1_epi32(15));
}

AK_AVX512_INLINE __mmask16 fifth_bits(const uint8_t *bytes, int high) {
    uint32_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return (__mmask16)(bits >> 16 * high);
}

// quants * scale + offset with two roundings, as the formats define it.
AK_AVX512_INLINE __m512 scaled(__m512i quants, float scale) { return _mm512_mul_ps(_mm512_cvtepi32_ps(quants), _mm512_set1_ps(scale)); }
AK_AVX512_INLINE __m512 shifted(__m512i quants, float scale, float offset) {
    const __m512 product = scaled(quants, scale);
    return _mm512_add_ps(product, _mm512_set1_ps(offset));
}

// The 6-bit scale and minimum of a 32-value group of Q4_K and Q5_K.
AK_AVX512_INLINE void group_scale(const uint8_t *packed, int group, float *scale, float *minimum) {
    if (group < 4) {
        *scale = (float)(packed[group] & 63);
        *minimum = (float)(packed[group + 4] & 63);
    } else {
        *scale = (float)((packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4);
        *minimum = (float)((packed[group + 4] >> 4) | (packed[group] >> 6) << 4);
    }
}

// Values first ..< first + 16 of a row of a quantized type.
AK_AVX512_INLINE __m512 quantized16(ak_type type, const uint8_t *row, size_t first) {
    const int high = first / 16 % 2;
    const uint8_t *block32 = row + first / 32 * (size_t)ak_type_bytes(type);   // of types with blocks of 32
    const uint8_t *block256 = row + first / 256 * (size_t)ak_type_bytes(type);
    const int group = first / 32 % 8;
    float scale, minimum;
    switch (type) {
        case AK_Q8_0:
            return scaled(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(block32 + 2 + 16 * high))), half_at(block32));
        case AK_Q4_0:
            return scaled(_mm512_sub_epi32(nibbles(block32 + 2, high), _mm512_set1_epi32(8)), half_at(block32));
        case AK_Q4_1:
            return shifted(nibbles(block32 + 4, high), half_at(block32), half_at(block32 + 2));
        case AK_Q5_0: {
            const __m512i low = _mm512_sub_epi32(nibbles(block32 + 6, high), _mm512_set1_epi32(16));
            return scaled(_mm512_mask_add_epi32(low, fifth_bits(block32 + 2, high), low, _mm512_set1_epi32(16)), half_at(block32));
        }
        case AK_Q5_1: {
            const __m512i low = nibbles(block32 + 8, high);
            const __m512i quants = _mm512_mask_add_epi32(low, fifth_bits(block32 + 4, high), low, _mm512_set1_epi32(16));
            return shifted(quants, half_at(block32), half_at(block32 + 2));
        }
        case AK_Q4_K:
            group_scale(block256 + 4, group, &scale, &minimum);
            return shifted(nibbles(block256 + 16 + group / 2 * 32 + 16 * high, group % 2), half_at(block256) * scale,
                           -(half_at(block256 + 2) * minimum));
        case AK_Q5_K: {
            group_scale(block256 + 4, group, &scale, &minimum);
            const __m512i fifth = _mm512_and_si512(
                _mm512_srlv_epi32(bytes16(block256 + 16 + 16 * high), _mm512_set1_epi32(group)), _mm512_set1_epi32(1));
            const __m512i low = nibbles(block256 + 48 + group / 2 * 32 + 16 * high, group % 2);
            return shifted(_mm512_or_si512(low, _mm512_slli_epi32(fifth, 4)), half_at(block256) * scale,
                           -(half_at(block256 + 2) * minimum));
        }
        case AK_Q6_K: {
            const int half = group / 4, part = group % 4;
            const __m512i low = nibbles(block256 + half * 64 + part % 2 * 32 + 16 * high, part / 2);
            const __m512i upper = _mm512_and_si512(
                _mm512_srlv_epi32(bytes16(block256 + 128 + half * 32 + 16 * high), _mm512_set1_epi32(2 * part)), _mm512_set1_epi32(3));
            const __m512i quants = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(upper, 4)), _mm512_set1_epi32(32));
            return scaled(quants, half_at(block256 + 208) * (float)(int8_t)block256[192 + group * 2 + high]);
        }
        default:
            return _mm512_setzero_ps();
    }
}

// Values first ..< first + 16 of a row; zeros from `inputs` on.
AK_AVX512_INLINE __m512 load16(ak_type type, const uint8_t *row, int32_t first, int32_t inputs) {
    const int32_t left = inputs - first;
    if (left <= 0) return _mm512_setzero_ps();
    const __mmask16 lanes = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    const size_t at = (size_t)first;
    switch (type) {
        case AK_F32: return _mm512_maskz_loadu_ps(lanes, row + 4 * at);
        case AK_F16: return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row + 2 * at));
        case AK_BF16: return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, row + 2 * at)), 16));
        default: return quantized16(type, row, at);
    }
}

AK_AVX512_INLINE void rows_of(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last,
                              const ak_type type) {
    const int64_t row = (int64_t)panel * AK_PANEL;
    for (int32_t i = first; i < last; i++) {
        for (int half = 0; half < 2; half++, out += 16 * AK_PANEL) {
            const int32_t input = (blocks ? blocks[i] : i) * AK_BLOCK + 16 * half;
            __m512i values[16];
            for (int r = 0; r < AK_PANEL; r++)
                values[r] = row + r < weight->rows
                    ? _mm512_castps_si512(load16(type, (const uint8_t *)weight->data + (size_t)(row + r) * weight->stride, input, weight->inputs))
                    : _mm512_setzero_si512();
            ak_transpose512(values);
            for (int k = 0; k < 16; k++) _mm512_storeu_si512(out + k * AK_PANEL, values[k]);
        }
    }
}

AK_AVX512 void ak_avx512_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last) {
    // One copy for each type, so that its loop holds no choice of type.
    switch (weight->type) {
        case AK_F32: rows_of(out, weight, panel, blocks, first, last, AK_F32); break;
        case AK_F16: rows_of(out, weight, panel, blocks, first, last, AK_F16); break;
        case AK_BF16: rows_of(out, weight, panel, blocks, first, last, AK_BF16); break;
        case AK_Q8_0: rows_of(out, weight, panel, blocks, first, last, AK_Q8_0); break;
        case AK_Q4_0: rows_of(out, weight, panel, blocks, first, last, AK_Q4_0); break;
        case AK_Q4_1: rows_of(out, weight, panel, blocks, first, last, AK_Q4_1); break;
        case AK_Q5_0: rows_of(out, weight, panel, blocks, first, last, AK_Q5_0); break;
        case AK_Q5_1: rows_of(out, weight, panel, blocks, first, last, AK_Q5_1); break;
        case AK_Q4_K: rows_of(out, weight, panel, blocks, first, last, AK_Q4_K); break;
        case AK_Q5_K: rows_of(out, weight, panel, blocks, first, last, AK_Q5_K); break;
        case AK_Q6_K: rows_of(out, weight, panel, blocks, first, last, AK_Q6_K); break;
        case AK_I16: break;   // no weights
    }
}
#endif
