// AVX-512 GEMV with Q8_0, Q4_0 and Q4_1 rows of a memory-mapped file, at memory bandwidth and without packing.
//
// Memory is fastest in one stream, registers are used best by 16 rows. So rows are multiplied one after the other, 16 blocks at a time, into an integer
// sum and a factor of each block; after 16 rows those are transposed and added in ascending order, with the same bits as packed panels.
#include "avx512.h"

#if AK_X86
#define CHUNK AK_ROW_CHUNK   // blocks that are multiplied at once
#include "row_products.h"

#define ROWS __attribute__((target(AK_AVX512_FEATURES ",avx512vnni,avx512vbmi")))
#define ROWS_INLINE static inline __attribute__((always_inline, target(AK_AVX512_FEATURES ",avx512vnni,avx512vbmi")))

// The block whose sum is in lane `lane` after neighbouring lanes have been added.
AK_INLINE int block_of_lane(const ak_type type, int lane) {
    const int quarter = lane / 4, place = lane % 4;
    return type == AK_Q8_0 ? 2 * (place + quarter / 2 * 4) + quarter % 2 : 4 * place + quarter;
}

ROWS_INLINE void arrange_as(chunk_activations *out, const ak_activations *act, int32_t blocks, const ak_type type) {
    const int8_t *values = act->data;
    const float *scales = act->scales;
    const int32_t *sums = act->sums;
    int32_t lanes[CHUNK];
    for (int lane = 0; lane < CHUNK; lane++) lanes[lane] = block_of_lane(type, lane);
    const __m512i order = _mm512_loadu_si512(lanes);
    for (int32_t first = 0; first < blocks; first += CHUNK, out++) {
        const int32_t count = blocks - first < CHUNK ? blocks - first : CHUNK;
        const __mmask16 there = (__mmask16)((1u << count) - 1);
        _mm512_storeu_ps(out->scales, _mm512_permutexvar_ps(order, _mm512_maskz_loadu_ps(there, scales + first)));
        const __m512i sum = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi32(there, sums + first));
        _mm512_storeu_si512(out->sums, type == AK_Q4_0 ? _mm512_srai_epi32(sum, 4) : sum);   // / 16: see ak_tile_q4_0_sum
        // For 4-bit weights values 0 … 15 of four blocks, then 16 … 31: one mask and one shift of four blocks' bytes give those.
#pragma unroll
        for (int b = 0; b < CHUNK; b += 4) {
            const int left = count - b, halves = left >= 4 ? 16 : left > 0 ? 4 * left : 0;   // eights of values
            const __mmask8 one = (__mmask8)((1u << (halves < 8 ? halves : 8)) - 1), two = (__mmask8)((1u << (halves < 8 ? 0 : halves - 8)) - 1);
            const int8_t *from = values + ((size_t)first + (size_t)b) * AK_BLOCK;
            const __m512i low = _mm512_maskz_loadu_epi64(one, from), high = _mm512_maskz_loadu_epi64(two, from + 64);
            _mm512_storeu_si512(out->values[b], type == AK_Q8_0 ? low : _mm512_shuffle_i64x2(low, high, 0x88));
            _mm512_storeu_si512(out->values[b + 2], type == AK_Q8_0 ? high : _mm512_shuffle_i64x2(low, high, 0xdd));
        }
    }
}

// Sums of neighbouring lanes, four by four: lane i of quarter q is the sum of quarter q of the i-th.
ROWS_INLINE __m512i quarters(const __m512i sums[4]) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]), _mm512_unpackhi_epi32(sums[0], sums[1]));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]), _mm512_unpackhi_epi32(sums[2], sums[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

// Places of weights and scales (minima) in the first 64 bytes of four 4-bit blocks, or of two 8-bit ones. Loads are the bottleneck, and one that
// crosses cache lines counts twice; the last block's weights reach further and have a load of their own.
typedef struct { __m512i weights, scales, minima; } places;

ROWS_INLINE places places_of(const ak_type type) {
    const int size = (int)block_size(type), header = type == AK_Q4_1 ? 4 : 2, blocks = type == AK_Q8_0 ? 2 : 4, bytes = 64 / blocks;
    uint8_t weights[64] = {0};
    uint16_t scales[32] = {0}, minima[32] = {0};
    for (int b = 0; b < blocks; b++) {
        for (int i = 0; i < bytes && b < blocks - 1; i++) weights[b * bytes + i] = (uint8_t)(b * size + header + i);
        // The bytes of two loads in one register.
        scales[2 * b] = (uint16_t)(b * size / 2), scales[2 * b + 1] = (uint16_t)(32 + b * size / 2);
        minima[2 * b] = (uint16_t)(scales[2 * b] + 1), minima[2 * b + 1] = (uint16_t)(scales[2 * b + 1] + 1);
    }
    return (places){_mm512_loadu_si512(weights), _mm512_loadu_si512(scales), _mm512_loadu_si512(minima)};
}

ROWS_INLINE __m128i words(const __m512i index, __m512i a, __m512i b) { return _mm512_castsi512_si128(_mm512_permutex2var_epi16(a, index, b)); }

ROWS_INLINE __m512 floats(__m128i first, __m128i second) {
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1));
}

// One row's chunk at `row`.
ROWS_INLINE void chunk(float *wholes, float *factors, const uint8_t *row, const chunk_activations *act, const places *at, const ak_type type) {
    const __m512 act_scales = _mm512_loadu_ps(act->scales);
    const __m512i act_sums = _mm512_loadu_si512(act->sums);
    __m512i sums[8];
    if (type == AK_Q8_0) {
        __m128i scales[4];
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            __m512i heads[2];
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const uint8_t *pair = row + 68 * (i + j);
                heads[j] = _mm512_loadu_si512(pair);
                const __m256i second = _mm256_loadu_si256((const __m256i *)(pair + 36));
                const __m512i weights = _mm512_inserti64x4(_mm512_permutexvar_epi8(at->weights, heads[j]), second, 1);
                sums[i + j] = _mm512_dpbusd_epi32(
                    _mm512_setzero_si512(), _mm512_xor_si512(weights, _mm512_set1_epi8((char)0x80)), _mm512_loadu_si512(act->values[2 * (i + j)]));
            }
            scales[i / 2] = words(at->scales, heads[0], heads[1]);
        }
        const __m512i first = quarters(sums), second = quarters(sums + 4);
        const __m512i sum = _mm512_add_epi32(_mm512_shuffle_i32x4(first, second, 0x88), _mm512_shuffle_i32x4(first, second, 0xdd));
        const __m512 scale = floats(_mm_unpacklo_epi32(scales[0], scales[1]), _mm_unpacklo_epi32(scales[2], scales[3]));
        _mm512_storeu_ps(wholes, _mm512_cvtepi32_ps(_mm512_add_epi32(sum, act_sums)));
        _mm512_storeu_ps(factors, _mm512_mul_ps(scale, act_scales));
        return;
    }
    const size_t size = block_size(type);
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i heads[4];
#pragma unroll
    for (int g = 0; g < 4; g++) {
        const uint8_t *blocks = row + (size_t)g * 4 * size;
        heads[g] = _mm512_loadu_si512(blocks);
        const __m128i fourth = _mm_loadu_si128((const __m128i *)(blocks + 4 * size - 16));
        const __m512i bytes = _mm512_inserti32x4(_mm512_permutexvar_epi8(at->weights, heads[g]), fourth, 3);
        const __m512i low = _mm512_and_si512(bytes, nibble), high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
        sums[g] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_loadu_si512(act->values[4 * g]));
        sums[g] = _mm512_dpbusd_epi32(sums[g], high, _mm512_loadu_si512(act->values[4 * g + 2]));
    }
    const __m512i sum = quarters(sums);
    __m128i ab = words(at->scales, heads[0], heads[1]), cd = words(at->scales, heads[2], heads[3]);
    const __m512 scale = floats(_mm_unpacklo_epi32(ab, cd), _mm_unpackhi_epi32(ab, cd));
    if (type == AK_Q4_1) {
        ab = words(at->minima, heads[0], heads[1]), cd = words(at->minima, heads[2], heads[3]);
        const __m512 minima = _mm512_mul_ps(floats(_mm_unpacklo_epi32(ab, cd), _mm_unpackhi_epi32(ab, cd)), _mm512_set1_ps(AK_SUM_UNIT));
        const __m512 shift = _mm512_mul_ps(minima, _mm512_cvtepi32_ps(act_sums));
        _mm512_storeu_ps(wholes, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, shift));
        _mm512_storeu_ps(factors, act_scales);
    } else {
        _mm512_storeu_ps(wholes, _mm512_cvtepi32_ps(_mm512_add_epi32(sum, act_sums)));
        _mm512_storeu_ps(factors, _mm512_mul_ps(scale, act_scales));
    }
}

// Adds a chunk of sixteen rows, one row per lane, block after block.
ROWS_INLINE __m512 add_chunk(__m512 sum, const chunk_sums *held, const int count, const ak_type type) {
    __m512i wholes[16], factors[16];
#pragma unroll
    for (int r = 0; r < AK_PANEL; r++) {
        wholes[r] = _mm512_loadu_si512(held->wholes[r]);
        factors[r] = _mm512_loadu_si512(held->factors[r]);
    }
    ak_transpose512(wholes);
    ak_transpose512(factors);
#pragma unroll
    for (int b = 0; b < CHUNK; b++) {
        // The lane of block b: the inverse of block_of_lane.
        const int lane = type == AK_Q8_0 ? b / 2 % 4 + 4 * (b % 2) + b / 8 * 8 : 4 * (b % 4) + b / 4;
        if (b < count) sum = _mm512_fmadd_ps(_mm512_castsi512_ps(wholes[lane]), _mm512_castsi512_ps(factors[lane]), sum);
    }
    return sum;
}

ROWS_INLINE void panel_dots(float *out, const ak_matrix *weight, int32_t panel, const chunk_activations *act, chunk_sums *held,
                            const uint8_t *end, const uint8_t *next, const ak_type type) {
    const places at = places_of(type);
    FOR_ROW_CHUNKS(weight, panel, act, held, end, next, type, chunk, &at, type)
    __m512 sum = _mm512_setzero_ps();
    for (int32_t c = 0; c < chunks; c++) {
        const int32_t count = weight->blocks - c * CHUNK;
        sum = count >= CHUNK ? add_chunk(sum, held + c, CHUNK, type) : add_chunk(sum, held + c, count, type);
    }
    _mm512_storeu_ps(out, sum);
}

static ROWS void arrange(void *scratch, const ak_activations *act, const ak_matrix *weight) {
    AK_FOR_ROW_TYPE(weight->type, arrange_as, scratch, act, weight->blocks)
}

static ROWS void dots(float *out, const ak_matrix *weight, int32_t panel, const uint8_t *end, const uint8_t *next, void *scratch) {
    AK_FOR_ROW_TYPE(weight->type, panel_dots, out, weight, panel, scratch, held_sums(scratch, weight), end, next)
}

const ak_row_products ak_avx512_row_products = {arrange, dots};
#endif
