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

// Values first ..< first + 16 of a row of a quantized type.
AK_AVX512_INLINE __m512 quantized16(ak_type type, const uint8_t *row, size_t first) {
    const int high = first / 16 % 2;
    const uint8_t *block32 = row + first / 32 * (size_t)ak_type_bytes(type);   // of types with blocks of 32
    const uint8_t *block256 = row + first / 256 * (size_t)ak_type_bytes(type);
    const int group = first / 32 % 8;
    int scale, minimum;
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
            ak_group_scale(block256 + 4, group, &scale, &minimum);
            return shifted(nibbles(block256 + 16 + group / 2 * 32 + 16 * high, group % 2), half_at(block256) * (float)scale,
                           -(half_at(block256 + 2) * (float)minimum));
        case AK_Q5_K: {
            ak_group_scale(block256 + 4, group, &scale, &minimum);
            const __m512i fifth = _mm512_and_si512(
                _mm512_srlv_epi32(bytes16(block256 + 16 + 16 * high), _mm512_set1_epi32(group)), _mm512_set1_epi32(1));
            const __m512i low = nibbles(block256 + 48 + group / 2 * 32 + 16 * high, group % 2);
            return shifted(_mm512_or_si512(low, _mm512_slli_epi32(fifth, 4)), half_at(block256) * (float)scale,
                           -(half_at(block256 + 2) * (float)minimum));
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
        case AK_I16: case AK_I8: break;   // no rows
        default: ak_portable_rows(out, weight, panel, blocks, first, last); break;
    }
}

// -------------------------------------------------------------------------------------------------------------- packing rows

// The four quarters of 16 rows, at the same place in each row: row 4l + a is at at[l] + a * stride.
typedef struct { const uint8_t *at[4]; } quarters;

// 16 bytes of each of 16 rows as lines that hold four bytes of each row.
AK_AVX512_INLINE void byte_lines(__m512i lines[4], const quarters rows, const size_t offset, const size_t stride) {
    __m512i fours[4];   // lane l of fours[a]: row 4l + a
#pragma unroll
    for (size_t a = 0; a < 4; a++) {
        fours[a] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(rows.at[0] + offset + a * stride)));
        fours[a] = _mm512_inserti32x4(fours[a], _mm_loadu_si128((const __m128i *)(rows.at[1] + offset + a * stride)), 1);
        fours[a] = _mm512_inserti32x4(fours[a], _mm_loadu_si128((const __m128i *)(rows.at[2] + offset + a * stride)), 2);
        fours[a] = _mm512_inserti32x4(fours[a], _mm_loadu_si128((const __m128i *)(rows.at[3] + offset + a * stride)), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(fours[0], fours[1]), low23 = _mm512_unpacklo_epi32(fours[2], fours[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(fours[0], fours[1]), high23 = _mm512_unpackhi_epi32(fours[2], fours[3]);
    lines[0] = _mm512_unpacklo_epi64(low01, low23);
    lines[1] = _mm512_unpackhi_epi64(low01, low23);
    lines[2] = _mm512_unpacklo_epi64(high01, high23);
    lines[3] = _mm512_unpackhi_epi64(high01, high23);
}

// Two bytes of each of eight rows.
AK_AVX512_INLINE __m128i halves(const uint8_t *first, const uint8_t *second, const size_t stride) {
    __m128i out = _mm_setzero_si128();
#define HALF(lane, from) { uint16_t half; memcpy(&half, from, sizeof half); out = _mm_insert_epi16(out, half, lane); }
    HALF(0, first) HALF(1, first + stride) HALF(2, first + 2 * stride) HALF(3, first + 3 * stride)
    HALF(4, second) HALF(5, second + stride) HALF(6, second + 2 * stride) HALF(7, second + 3 * stride)
#undef HALF
    return out;
}

AK_AVX512_INLINE void panel_of(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                               int32_t first, int32_t last, const uint8_t *ahead, const ak_type type) {
    const size_t stride = weight->stride, size = type == AK_Q8_0 ? 34 : type == AK_Q4_0 ? 18 : 20, header = type == AK_Q4_1 ? 4 : 2;
    const uint8_t *start = (const uint8_t *)weight->data + (size_t)panel * AK_PANEL * stride;
    const quarters rows = {{start, start + 4 * stride, start + 8 * stride, start + 12 * stride}};
    for (int32_t i = first; i < last; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i) * size;
        const quarters block = {{rows.at[0] + at, rows.at[1] + at, rows.at[2] + at, rows.at[3] + at}};
        const uint8_t *later = ahead + (size_t)i * size * AK_PANEL;
        for (size_t line = 0; line < size * AK_PANEL; line += 64) _mm_prefetch((const char *)(later + line), _MM_HINT_T1);
        __m512i lines[8];
        byte_lines(lines, block, header, stride);
        if (type == AK_Q8_0) byte_lines(lines + 4, block, header + 16, stride);
#pragma unroll
        for (int k = 0; k < (type == AK_Q8_0 ? 8 : 4); k++, out += AK_LINE)
            _mm512_storeu_si512(out, type == AK_Q8_0 ? _mm512_xor_si512(lines[k], _mm512_set1_epi8((char)0x80)) : lines[k]);
#pragma unroll
        for (size_t value = 0; value < header; value += 2, out += 32) {
            _mm_storeu_si128((__m128i *)out, halves(block.at[0] + value, block.at[1] + value, stride));
            _mm_storeu_si128((__m128i *)out + 1, halves(block.at[2] + value, block.at[3] + value, stride));
        }
    }
}

AK_PANEL_FUNCTION(AK_AVX512, ak_avx512_panel)
#endif
