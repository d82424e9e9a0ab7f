// AVX2 dequantization of a panel of rows: 8 values of each of 8 rows at a time, then a transpose.
#include "avx2.h"

#if AK_X86
#include <string.h>

AK_AVX2_INLINE float half_at(const uint8_t *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return _cvtsh_ss(half);
}

AK_AVX2_INLINE __m256i nibbles(const uint8_t *bytes, int high) {
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
    return _mm256_and_si256(_mm256_srlv_epi32(wide, _mm256_set1_epi32(4 * high)), _mm256_set1_epi32(15));
}

// Values first ..< first + 8 of a row of F32, F16, BF16, Q8_0, Q4_0 or Q4_1, all of them inside the row.
AK_AVX2_INLINE __m256 load8(const ak_type type, const uint8_t *row, size_t first) {
    const uint8_t *block = row + first / 32 * (size_t)ak_type_bytes(type);
    const size_t at = first % 16;   // in Q4, values 16 … 31 are the high halves of the bytes of 0 … 15
    const int high = first / 16 % 2;
    switch (type) {
        case AK_F32:
            return _mm256_loadu_ps((const float *)row + first);
        case AK_F16:
            return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + 2 * first)));
        case AK_BF16: {
            const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(row + 2 * first)));
            return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
        }
        case AK_Q8_0: {
            const __m256i quants = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(block + 2 + first % 32)));
            return _mm256_mul_ps(_mm256_cvtepi32_ps(quants), _mm256_set1_ps(half_at(block)));
        }
        case AK_Q4_0: {
            const __m256i quants = _mm256_sub_epi32(nibbles(block + 2 + at, high), _mm256_set1_epi32(8));
            return _mm256_mul_ps(_mm256_cvtepi32_ps(quants), _mm256_set1_ps(half_at(block)));
        }
        case AK_Q4_1: {
            // Two roundings, as the format defines it.
            const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(nibbles(block + 4 + at, high)), _mm256_set1_ps(half_at(block)));
            return _mm256_add_ps(product, _mm256_set1_ps(half_at(block + 2)));
        }
        default:
            return _mm256_setzero_ps();
    }
}

AK_AVX2_INLINE void store_square(float *out, __m256 rows[8], int half) {
    ak_transpose256(rows);
    for (int k = 0; k < 8; k++) _mm256_storeu_ps(out + k * AK_PANEL + 8 * half, rows[k]);
}

AK_AVX2_INLINE void rows_of(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last,
                            const ak_type type) {
    const int64_t row = (int64_t)panel * AK_PANEL;
    for (int32_t i = first; i < last; i++) {
        const int32_t input = (blocks ? blocks[i] : i) * AK_BLOCK;
        for (int32_t k = 0; k < AK_BLOCK; k += 8, out += 8 * AK_PANEL) {
            for (int half = 0; half < 2; half++) {
                __m256 values[8];
                for (int r = 0; r < 8; r++) {
                    const int64_t at = row + 8 * half + r;
                    const uint8_t *data = (const uint8_t *)weight->data + (size_t)at * weight->stride;
                    if (at >= weight->rows || input + k >= weight->inputs) {
                        values[r] = _mm256_setzero_ps();
                    } else if (input + k + 8 <= weight->inputs) {
                        values[r] = load8(type, data, (size_t)(input + k));
                    } else {   // the last few values of a row, which only float types have
                        float tail[8] = {0};
                        ak_dequantize(tail, type, data, input + k, weight->inputs - input - k);
                        values[r] = _mm256_loadu_ps(tail);
                    }
                }
                store_square(out, values, half);
            }
        }
    }
}

// Types without a vector version: rows dequantized in plain C, transposed here.
static AK_AVX2 void other_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last) {
    const int32_t size = ak_type_block(weight->type) > AK_BLOCK ? ak_type_block(weight->type) : AK_BLOCK;
    float rows[AK_PANEL * 256];
    int32_t loaded = -1;
    for (int32_t i = first; i < last; i++) {
        const int32_t input = (blocks ? blocks[i] : i) * AK_BLOCK;
        if (loaded < 0 || input / size != loaded) {
            loaded = input / size;
            ak_panel_rows(rows, weight, panel, loaded * size, size);
        }
        for (int32_t k = 0; k < AK_BLOCK; k += 8, out += 8 * AK_PANEL) {
            for (int half = 0; half < 2; half++) {
                __m256 values[8];
                for (int r = 0; r < 8; r++) values[r] = _mm256_loadu_ps(rows + (8 * half + r) * 256 + input % size + k);
                store_square(out, values, half);
            }
        }
    }
}

AK_AVX2 void ak_avx2_rows(float *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks, int32_t first, int32_t last) {
    // One copy for each type, so that its loop holds no choice of type.
    switch (weight->type) {
        case AK_F32: rows_of(out, weight, panel, blocks, first, last, AK_F32); break;
        case AK_F16: rows_of(out, weight, panel, blocks, first, last, AK_F16); break;
        case AK_BF16: rows_of(out, weight, panel, blocks, first, last, AK_BF16); break;
        case AK_Q8_0: rows_of(out, weight, panel, blocks, first, last, AK_Q8_0); break;
        case AK_Q4_0: rows_of(out, weight, panel, blocks, first, last, AK_Q4_0); break;
        case AK_Q4_1: rows_of(out, weight, panel, blocks, first, last, AK_Q4_1); break;
        default: other_rows(out, weight, panel, blocks, first, last); break;
    }
}

// -------------------------------------------------------------------------------------------------------------- packing rows

// 16 bytes of each of 16 rows as lines that hold four bytes of each row.
AK_AVX2_INLINE void byte_lines(uint8_t *out, const uint8_t *first, const size_t stride, const __m256i flip) {
#pragma unroll
    for (size_t half = 0; half < 2; half++) {
        __m256i fours[4];   // rows 8 half + a and 8 half + 4 + a
#pragma unroll
        for (size_t a = 0; a < 4; a++) {
            const uint8_t *row = first + (8 * half + a) * stride;
            fours[a] = _mm256_inserti128_si256(
                _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)row)), _mm_loadu_si128((const __m128i *)(row + 4 * stride)), 1);
        }
        const __m256i low01 = _mm256_unpacklo_epi32(fours[0], fours[1]), low23 = _mm256_unpacklo_epi32(fours[2], fours[3]);
        const __m256i high01 = _mm256_unpackhi_epi32(fours[0], fours[1]), high23 = _mm256_unpackhi_epi32(fours[2], fours[3]);
        const __m256i lines[4] = {
            _mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
            _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23),
        };
#pragma unroll
        for (size_t k = 0; k < 4; k++)
            _mm256_storeu_si256((__m256i *)(out + k * AK_LINE + 32 * half), _mm256_xor_si256(lines[k], flip));
    }
}

AK_AVX2_INLINE void panel_of(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                             int32_t first, int32_t last, const uint8_t *ahead, const ak_type type) {
    const size_t stride = weight->stride, size = type == AK_Q8_0 ? 34 : type == AK_Q4_0 ? 18 : 20, header = type == AK_Q4_1 ? 4 : 2;
    const __m256i flip = type == AK_Q8_0 ? _mm256_set1_epi8((char)0x80) : _mm256_setzero_si256();
    const uint8_t *rows = (const uint8_t *)weight->data + (size_t)panel * AK_PANEL * stride;
    for (int32_t i = first; i < last; i++) {
        const size_t at = (size_t)(blocks ? blocks[i] : i) * size;
        const uint8_t *block = rows + at;
        const uint8_t *later = ahead + (size_t)i * size * AK_PANEL;
        for (size_t line = 0; line < size * AK_PANEL; line += 64) _mm_prefetch((const char *)(later + line), _MM_HINT_T1);
        for (size_t half = 0; half < (type == AK_Q8_0 ? 2 : 1); half++, out += 4 * AK_LINE) byte_lines(out, block + header + 16 * half, stride, flip);
        for (size_t value = 0; value < header; value += 2)
            for (size_t r = 0; r < AK_PANEL; r++, out += 2) memcpy(out, block + r * stride + value, 2);
    }
}

AK_PANEL_FUNCTION(AK_AVX2, ak_avx2_panel)
#endif
