// AVX2 GEMV with Q8_0, Q4_0 and Q4_1 rows of a memory-mapped file: as matmul_avx512_rows.c, 8 blocks of a row at a time.
#include "avx2.h"

#if AK_X86
#define CHUNK (AK_ROW_CHUNK / 2)   // blocks that are multiplied at once
#include "row_products.h"

static void arrange(void *scratch, const ak_activations *act, const ak_matrix *weight) {
    chunk_activations *out = scratch;
    const int8_t *values = act->data;
    const float *scales = act->scales;
    const int32_t *sums = act->sums;
    for (int32_t first = 0; first < weight->blocks; first += CHUNK, out++) {
        const size_t count = (size_t)(weight->blocks - first < CHUNK ? weight->blocks - first : CHUNK);
        if (count < CHUNK) memset(out, 0, sizeof *out);
        memcpy(out->values, values + (size_t)first * AK_BLOCK, count * AK_BLOCK);
        memcpy(out->scales, scales + first, count * sizeof *scales);
        memcpy(out->sums, sums + first, count * sizeof *sums);
    }
}

// The sum of 32 products, spread over eight lanes.
AK_AVX2_INLINE __m256i block_dot(const uint8_t *block, const __m256i values, const ak_type type) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (type == AK_Q8_0) {
        // Sums of pairs fit 16 bits: at most 2 * 128 * 127.
        const __m256i weights = _mm256_loadu_si256((const __m256i *)(block + 2));
        return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(values, weights)), ones);
    }
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(block + (type == AK_Q4_1 ? 4 : 2)));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_and_si256(both, _mm256_set1_epi8(15)), values), ones);
}

// Lane i of each half: the sum of that half of vector i.
AK_AVX2_INLINE __m256i quads(const __m256i sums[4]) {
    const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(sums[0], sums[1]), _mm256_unpackhi_epi32(sums[0], sums[1]));
    const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(sums[2], sums[3]), _mm256_unpackhi_epi32(sums[2], sums[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

// A half of each of eight blocks.
AK_AVX2_INLINE __m256 halves(const uint8_t *row, const size_t size) {
    __m128i out = _mm_setzero_si128();
#define HALF(lane) { uint16_t half; memcpy(&half, row + lane * size, sizeof half); out = _mm_insert_epi16(out, half, lane); }
    HALF(0) HALF(1) HALF(2) HALF(3) HALF(4) HALF(5) HALF(6) HALF(7)
#undef HALF
    return _mm256_cvtph_ps(out);
}

// One row's chunk at `row`.
AK_AVX2_INLINE void chunk(float *wholes, float *factors, const uint8_t *row, const chunk_activations *act, const ak_type type) {
    const size_t size = block_size(type);
    __m256i sums[CHUNK];
#pragma unroll
    for (int b = 0; b < CHUNK; b++)
        sums[b] = block_dot(row + (size_t)b * size, _mm256_loadu_si256((const __m256i *)act->values[b]), type);
    const __m256i first = quads(sums), second = quads(sums + 4);
    __m256i sum = _mm256_add_epi32(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
    const __m256 scales = halves(row, size), act_scales = _mm256_loadu_ps(act->scales);
    const __m256i act_sums = _mm256_loadu_si256((const __m256i *)act->sums);
    if (type == AK_Q4_1) {
        const __m256 minima = _mm256_mul_ps(halves(row + 2, size), _mm256_set1_ps(AK_SUM_UNIT));
        const __m256 shift = _mm256_mul_ps(minima, _mm256_cvtepi32_ps(act_sums));
        _mm256_storeu_ps(wholes, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales, shift));
        _mm256_storeu_ps(factors, act_scales);
    } else {
        // Q4_0's -8. The sums are stored times -128, so the division is exact.
        if (type == AK_Q4_0) sum = _mm256_add_epi32(sum, _mm256_srai_epi32(act_sums, 4));
        _mm256_storeu_ps(wholes, _mm256_cvtepi32_ps(sum));
        _mm256_storeu_ps(factors, _mm256_mul_ps(scales, act_scales));
    }
}

// Adds a chunk of eight rows, one row per lane, block after block.
AK_AVX2_INLINE __m256 add_chunk(__m256 sum, const float held_wholes[][CHUNK], const float held_factors[][CHUNK], int count) {
    __m256 wholes[8], factors[8];
#pragma unroll
    for (int r = 0; r < 8; r++) {
        wholes[r] = _mm256_loadu_ps(held_wholes[r]);
        factors[r] = _mm256_loadu_ps(held_factors[r]);
    }
    ak_transpose256(wholes);
    ak_transpose256(factors);
#pragma unroll
    for (int b = 0; b < CHUNK; b++)
        if (b < count) sum = _mm256_fmadd_ps(wholes[b], factors[b], sum);
    return sum;
}

AK_AVX2_INLINE void panel_dots(float *out, const ak_matrix *weight, int32_t panel, const chunk_activations *act, chunk_sums *held,
                               const uint8_t *end, const uint8_t *next, const ak_type type) {
    FOR_ROW_CHUNKS(weight, panel, act, held, end, next, type, chunk, type)
    for (int h = 0; h < 2; h++) {
        __m256 sum = _mm256_setzero_ps();
        for (int32_t c = 0; c < chunks; c++) sum = add_chunk(sum, held[c].wholes + 8 * h, held[c].factors + 8 * h, weight->blocks - c * CHUNK);
        _mm256_storeu_ps(out + 8 * h, sum);
    }
}

static AK_AVX2 void dots(float *out, const ak_matrix *weight, int32_t panel, const uint8_t *end, const uint8_t *next, void *scratch) {
    AK_FOR_ROW_TYPE(weight->type, panel_dots, out, weight, panel, scratch, held_sums(scratch, weight), end, next)
}

const ak_row_products ak_avx2_row_products = {arrange, dots};
#endif
