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
#endif
