// AVX-512 norms, activations, rotary positions and conversions of activations, and the table of AVX-512 kernels.
#include "avx2.h"
#include "amx.h"

#if AK_X86
#include <math.h>
#include <string.h>

// The lanes that hold n - i values: all, or the last few.
AK_AVX512_INLINE __mmask16 lanes_left(size_t n, size_t i) { return n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1); }

// ------------------------------------------------------------------------------------------------------ activations of matmul

// The scales of up to 16 blocks with largest magnitudes `largest`, and the factors that quantize.
AK_AVX512_INLINE __m512 block_scales(__m512 largest, __m512 *inverse) {
    const __m512 scale = _mm512_div_ps(largest, _mm512_set1_ps(127.0f)), all = _mm512_div_ps(_mm512_set1_ps(1.0f), scale);
    const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(all), _mm512_set1_ps(3.4028235e38f), _CMP_LE_OQ);
    *inverse = _mm512_maskz_mov_ps(finite, all);
    const __mmask16 holds = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(0x1p-14f), _CMP_GE_OQ) &
                            _mm512_cmp_ps_mask(scale, _mm512_set1_ps(65504.0f), _CMP_LE_OQ);
    return _mm512_mask_mov_ps(scale, holds, _mm512_cvtph_ps(_mm512_cvtps_ph(scale, _MM_FROUND_TO_NEAREST_INT)));
}

// 16 values as integers, half away from zero: the largest float below 1/2, with the value's sign, then the fraction is cut off.
AK_AVX512_INLINE __m512i quants16(const float *x, __m512 inverse) {
    const __m512 below_half = _mm512_set1_ps(0x1.fffffep-2f), sign = _mm512_set1_ps(-0.0f);
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x), inverse);
    const __m512 nudged = _mm512_add_ps(scaled, _mm512_or_ps(below_half, _mm512_and_ps(scaled, sign)));
    return _mm512_maskz_cvttps_epi32(_mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q), nudged);
}

// Lane i of the result combines the lanes of v[i]: 15 steps for 16 vectors, where one at a time takes four each.
#define REDUCE16(name, vector, combine, unpack_lo, unpack_hi, unpack_lo2, unpack_hi2, shuffle) \
    AK_AVX512_INLINE vector name(vector v[16]) { \
        _Pragma("unroll") \
        for (int i = 0; i < 8; i++) v[i] = combine(unpack_lo(v[2 * i], v[2 * i + 1]), unpack_hi(v[2 * i], v[2 * i + 1])); \
        _Pragma("unroll") \
        for (int i = 0; i < 4; i++) v[i] = combine(unpack_lo2(v[2 * i], v[2 * i + 1]), unpack_hi2(v[2 * i], v[2 * i + 1])); \
        _Pragma("unroll") \
        for (int i = 0; i < 2; i++) v[i] = combine(shuffle(v[2 * i], v[2 * i + 1], 0x88), shuffle(v[2 * i], v[2 * i + 1], 0xdd)); \
        return combine(shuffle(v[0], v[1], 0x88), shuffle(v[0], v[1], 0xdd)); \
    }
#define UNPACK_LO2(a, b) _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
#define UNPACK_HI2(a, b) _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
REDUCE16(largest16, __m512, _mm512_max_ps, _mm512_unpacklo_ps, _mm512_unpackhi_ps, UNPACK_LO2, UNPACK_HI2, _mm512_shuffle_f32x4)
REDUCE16(sums16, __m512i, _mm512_add_epi32, _mm512_unpacklo_epi32, _mm512_unpackhi_epi32, _mm512_unpacklo_epi64, _mm512_unpackhi_epi64,
         _mm512_shuffle_i32x4)

// Destination of 8-bit rows with their scales and sums, and their source; strides in blocks and values.
typedef struct {
    int8_t *out;
    float *scales;
    int32_t *sums;
    const float *src;
    size_t ldb, ld;
} q8_rows;

// The larger magnitudes of a block's halves: zero where a value is NaN, for a comparison gives its second operand then.
AK_AVX512_INLINE __m512 magnitudes(const float *x) {
    const __m512 low = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x)), _mm512_setzero_ps());
    return _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 16)), low);
}

// Writes a block's integers. Returns its two halves' sums lane by lane.
AK_AVX512_INLINE __m512i write_quants(int8_t *out, const float *x, float inverse) {
    const __m512 factor = _mm512_set1_ps(inverse);
    const __m512i low = quants16(x, factor), high = quants16(x + 16, factor);
    _mm_storeu_si128((__m128i *)out, _mm512_cvtsepi32_epi8(low));
    _mm_storeu_si128((__m128i *)(out + 16), _mm512_cvtsepi32_epi8(high));
    return _mm512_add_epi32(low, high);
}

// Quantizes 16 blocks: `across` neighbouring ones from block b on of each of 16 / across rows from row t on.
AK_AVX512_INLINE void quantize_16_blocks(const q8_rows *rows, size_t t, size_t b, const size_t across) {
    const float *x = rows->src + t * rows->ld + b * AK_BLOCK;
    const size_t place = t * rows->ldb + b;
    __m512 largest[16], inverse;
#pragma unroll
    for (size_t i = 0; i < 16; i++) {
        largest[i] = magnitudes(x + i / across * rows->ld + i % across * AK_BLOCK);
    }
    float scales[16], factors[16];
    _mm512_storeu_ps(scales, block_scales(largest16(largest), &inverse));
    _mm512_storeu_ps(factors, inverse);
    __m512i of_block[16];
#pragma unroll
    for (size_t i = 0; i < 16; i++) {
        const float *values = x + i / across * rows->ld + i % across * AK_BLOCK;
        int8_t *out = rows->out + (place + i / across * rows->ldb + i % across) * AK_BLOCK;
        of_block[i] = write_quants(out, values, factors[i]);
    }
    int32_t sums[16];
    _mm512_storeu_si512(sums, _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sums16(of_block)), 7));
#pragma unroll
    for (size_t i = 0; i < 16; i += across) {
        const size_t at = place + i / across * rows->ldb;
        memcpy(rows->scales + at, scales + i, across * sizeof(float));
        memcpy(rows->sums + at, sums + i, across * sizeof(int32_t));
    }
}

// 16 scaled values as 8-bit integers, to nearest even; 0 for NaN.
AK_AVX512_INLINE void write_narrow(int8_t *out, const float *x, __m512 inverse) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x), inverse);
    _mm_storeu_si128((__m128i *)out, _mm512_cvtsepi32_epi8(_mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q), scaled)));
}

static AK_AVX512 void quantize_i8(int8_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    const size_t groups = (size_t)ak_groups((int32_t)(ldo / AK_BLOCK));
    for (int32_t t = 0; t < tokens; t++, out += ldo, src += ld, scales += groups) {
        for (int32_t g = 0; g < ak_groups(blocks); g++) {
            const size_t first = (size_t)g * AK_GROUP, end = (size_t)ak_group_end(g, blocks) * AK_BLOCK;
            __m512 largest = magnitudes(src + first);
            for (size_t i = first + AK_BLOCK; i < end; i += AK_BLOCK) largest = _mm512_max_ps(magnitudes(src + i), largest);
            scales[g] = _mm512_reduce_max_ps(largest) / 127.0f;
            const __m512 inverse = _mm512_set1_ps(ak_inverse_scale(scales[g]));
            for (size_t i = first; i < end; i += 16) write_narrow(out + i, src + i, inverse);
        }
    }
}

AK_AVX512_INLINE void quantize_block(const q8_rows *rows, size_t t, size_t b) {
    const float *x = rows->src + t * rows->ld + b * AK_BLOCK;
    const size_t at = t * rows->ldb + b;
    const float scale = _mm512_reduce_max_ps(magnitudes(x)) / 127.0f;
    rows->scales[at] = ak_half_holds(scale) ? _cvtsh_ss(_cvtss_sh(scale, _MM_FROUND_TO_NEAREST_INT)) : scale;
    rows->sums[at] = -128 * _mm512_reduce_add_epi32(write_quants(rows->out + at * AK_BLOCK, x, ak_inverse_scale(scale)));
}

// `across` blocks from block b on of all rows.
AK_AVX512_INLINE void quantize_columns(const q8_rows *rows, size_t tokens, size_t b, const size_t across) {
    size_t t = 0;
    for (; t + 16 / across <= tokens; t += 16 / across) quantize_16_blocks(rows, t, b, across);
    for (; t < tokens; t++)
        for (size_t i = b; i < b + across; i++) quantize_block(rows, t, i);
}

static AK_AVX512 void quantize_q8(int8_t *out, size_t ldo, float *scales, int32_t *sums, const float *src, size_t ld, int32_t tokens,
                                  int32_t blocks) {
    const q8_rows rows = {.out = out, .scales = scales, .sums = sums, .src = src, .ldb = ldo / AK_BLOCK, .ld = ld};
    const size_t width = (size_t)blocks, count = (size_t)tokens;
    size_t b = 0;
    for (; b + 16 <= width; b += 16) quantize_columns(&rows, count, b, 16);
    for (; b + 4 <= width; b += 4) quantize_columns(&rows, count, b, 4);
    if (b + 2 <= width) {
        quantize_columns(&rows, count, b, 2);
        b += 2;
    }
    if (b < width) quantize_columns(&rows, count, b, 1);
}

static AK_AVX512 void to_bf16(uint16_t *out, size_t ldo, const float *src, size_t ld, int32_t tokens, int32_t count) {
    const __m512i one = _mm512_set1_epi32(1), bias = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x400000);
    for (int32_t t = 0; t < tokens; t++, out += ldo, src += ld) {
        for (size_t i = 0; i < (size_t)count; i += 16) {
            const __mmask16 lanes = lanes_left((size_t)count, i);
            const __m512 values = _mm512_maskz_loadu_ps(lanes, src + i);
            const __m512i bits = _mm512_castps_si512(values);
            __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, bias), _mm512_and_si512(_mm512_srli_epi32(bits, 16), one));
            rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q), bits, quiet);
            _mm256_mask_storeu_epi16(out + i, lanes, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------- norms

static AK_AVX512 void rms_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, float eps, int32_t tokens,
                               int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        __m512 squares[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (size_t i = 0; i < count; i += 16) {
            const __m512 value = _mm512_maskz_loadu_ps(lanes_left(count, i), x + i);
            squares[i / 16 % 2] = _mm512_fmadd_ps(value, value, squares[i / 16 % 2]);
        }
        const float mean = _mm512_reduce_add_ps(_mm512_add_ps(squares[0], squares[1])) / (float)n;
        const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(mean + eps));
        for (size_t i = 0; i < count; i += 16) {
            const __mmask16 lanes = lanes_left(count, i);
            const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), factor);
            _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(value, _mm512_maskz_loadu_ps(lanes, weight + i)));
        }
    }
}

static AK_AVX512 void layer_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, const float *bias, float eps,
                                 int32_t tokens, int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (size_t i = 0; i < count; i += 16) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes_left(count, i), x + i));
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)n);
        for (size_t i = 0; i < count; i += 16) {
            const __mmask16 lanes = lanes_left(count, i);
            const __m512 difference = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, x + i), mean);
            squares = _mm512_fmadd_ps(difference, difference, squares);
        }
        const __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + eps));
        for (size_t i = 0; i < count; i += 16) {
            const __mmask16 lanes = lanes_left(count, i);
            const __m512 value = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), mean), factor);
            const __m512 result = _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(lanes, weight + i), _mm512_maskz_loadu_ps(lanes, bias + i));
            _mm512_mask_storeu_ps(out + i, lanes, result);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ activations

AK_AVX512_INLINE __m512 normal_distribution(__m512 x) {
    const __m512 u = _mm512_abs_ps(x), s = _mm512_mul_ps(x, x);
    __m512 near = _mm512_set1_ps(AK_PHI_NEAR_6);
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_5));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_4));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_3));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_2));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_1));
    near = _mm512_fmadd_ps(near, s, _mm512_set1_ps(AK_PHI_NEAR_0));
    near = _mm512_fmadd_ps(near, x, _mm512_set1_ps(0.5f));
    __m512 far = _mm512_set1_ps(AK_PHI_FAR_5);
    far = _mm512_fmadd_ps(far, u, _mm512_set1_ps(AK_PHI_FAR_4));
    far = _mm512_fmadd_ps(far, u, _mm512_set1_ps(AK_PHI_FAR_3));
    far = _mm512_fmadd_ps(far, u, _mm512_set1_ps(AK_PHI_FAR_2));
    far = _mm512_fmadd_ps(far, u, _mm512_set1_ps(AK_PHI_FAR_1));
    far = _mm512_fmadd_ps(far, u, _mm512_set1_ps(AK_PHI_FAR_0));
    const __m512 tail = ak_exp512(_mm512_sub_ps(_mm512_setzero_ps(), far));
    const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    far = _mm512_mask_mov_ps(_mm512_sub_ps(_mm512_set1_ps(1.0f), tail), negative, tail);
    return _mm512_mask_mov_ps(near, _mm512_cmp_ps_mask(u, _mm512_set1_ps(AK_PHI_LIMIT), _CMP_GT_OQ), far);
}

static AK_AVX512 void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        const __m512 x = _mm512_maskz_loadu_ps(lanes, gate + i);
        _mm512_mask_storeu_ps(gate + i, lanes, _mm512_mul_ps(ak_gated512(x, x), _mm512_maskz_loadu_ps(lanes, up + i)));
    }
}

static AK_AVX512 void gelu_erf(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
        _mm512_mask_storeu_ps(x + i, lanes, _mm512_mul_ps(value, normal_distribution(value)));
    }
}

AK_AVX512_INLINE __m512 gelu_tanh_of(__m512 value) {
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(value, value), _mm512_mul_ps(value, _mm512_set1_ps(AK_GELU_TANH_CUBE)));
    return ak_gated512(value, _mm512_mul_ps(_mm512_set1_ps(AK_GELU_TANH_SCALE), _mm512_add_ps(value, cube)));
}

static AK_AVX512 void gelu_tanh(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        _mm512_mask_storeu_ps(x + i, lanes, gelu_tanh_of(_mm512_maskz_loadu_ps(lanes, x + i)));
    }
}

static AK_AVX512 void gelu_tanh_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        const __m512 value = gelu_tanh_of(_mm512_maskz_loadu_ps(lanes, gate + i));
        _mm512_mask_storeu_ps(gate + i, lanes, _mm512_mul_ps(value, _mm512_maskz_loadu_ps(lanes, up + i)));
    }
}

static AK_AVX512 void gelu_quick(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
        _mm512_mask_storeu_ps(x + i, lanes, ak_gated512(value, _mm512_mul_ps(value, _mm512_set1_ps(AK_GELU_QUICK_SCALE))));
    }
}

static AK_AVX512 void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
        _mm512_mask_storeu_ps(x + i, lanes, ak_gated512(value, value));
    }
}

static AK_AVX512 void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = lanes_left(n, i);
        _mm512_mask_storeu_ps(x + i, lanes, _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_maskz_loadu_ps(lanes, y + i)));
    }
}

// --------------------------------------------------------------------------------------------------------------- positions

static AK_AVX512 void rope(float *x, const float *cos, const float *sin, int32_t heads, int32_t head_dim, int32_t interleaved) {
    const size_t pairs = (size_t)head_dim / 2;
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    for (int32_t head = 0; head < heads; head++, x += head_dim) {
        if (!interleaved) {
            for (size_t i = 0; i < pairs; i += 16) {
                const __mmask16 lanes = lanes_left(pairs, i);
                const __m512 c = _mm512_maskz_loadu_ps(lanes, cos + i), s = _mm512_maskz_loadu_ps(lanes, sin + i);
                const __m512 a = _mm512_maskz_loadu_ps(lanes, x + i), b = _mm512_maskz_loadu_ps(lanes, x + pairs + i);
                _mm512_mask_storeu_ps(x + i, lanes, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
                _mm512_mask_storeu_ps(x + pairs + i, lanes, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
            }
        } else {
            for (size_t i = 0; i < pairs; i += 8) {
                const __mmask16 half = lanes_left(pairs, i) & 0xff, lanes = lanes_left(2 * pairs, 2 * i);
                const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, cos + i));
                const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, sin + i));
                const __m512 values = _mm512_maskz_loadu_ps(lanes, x + 2 * i);
                const __m512 swapped = _mm512_permute_ps(values, 0xb1);
                _mm512_mask_storeu_ps(x + 2 * i, lanes, _mm512_fmaddsub_ps(values, c, _mm512_mul_ps(swapped, s)));
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ argmax

static AK_AVX512 int32_t argmax(const float *x, int32_t n) {
    const size_t count = (size_t)n;
    // The comparison gives its second operand where one is NaN, so NaN never gets into the running maximum.
    __m512 best[4];
    for (int j = 0; j < 4; j++) best[j] = _mm512_set1_ps(-INFINITY);
    for (size_t i = 0; i < count; i += 64)
#pragma unroll
        for (size_t j = 0; j < 4; j++) {
            if (i + 16 * j >= count) break;
            const __mmask16 lanes = lanes_left(count, i + 16 * j);
            best[j] = _mm512_mask_max_ps(best[j], lanes, _mm512_maskz_loadu_ps(lanes, x + i + 16 * j), best[j]);
        }
    const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3]))));
    for (size_t i = 0; i < count; i += 16) {
        const __mmask16 lanes = lanes_left(count, i);
        const __mmask16 equal = _mm512_mask_cmp_ps_mask(lanes, _mm512_maskz_loadu_ps(lanes, x + i), largest, _CMP_EQ_OQ);
        if (equal) return (int32_t)(i + (size_t)__builtin_ctz(equal));
    }
    return 0;
}

// Tiles change products and attention.
#define KERNELS(kind, made) { \
    .name = #kind, \
    .matmul = ak_##kind##_matmul, .middle = made, \
    .quantize_q8 = quantize_q8, \
    .quantize_i16 = ak_avx2_quantize_i16, \
    .quantize_i8 = quantize_i8, \
    .to_bf16 = to_bf16, \
    .rms_norm = rms_norm, \
    .layer_norm = layer_norm, \
    .silu_mul = silu_mul, \
    .gelu_tanh_mul = gelu_tanh_mul, \
    .gelu_erf = gelu_erf, \
    .gelu_tanh = gelu_tanh, \
    .gelu_quick = gelu_quick, \
    .silu = silu, \
    .add = add, \
    .rope = rope, \
    .attention = ak_##kind##_attention, .attention_span = ak_##kind##_attention_span, .attention_pairs = ak_avx512_attention_pairs, \
    .store_kv = ak_avx512_store_kv, \
    .depthwise_relu6 = ak_avx512_depthwise_relu6, \
    .argmax = argmax, \
    .group_maxima = ak_avx2_group_maxima, \
    .at_least = ak_avx2_at_least, \
    .exp_sum = ak_avx2_exp_sum, \
}

const ak_kernels ak_avx512_kernels = KERNELS(avx512, NULL);
const ak_kernels ak_amx_kernels = KERNELS(amx, ak_amx_middle);

const ak_tuning ak_avx512_tuning = {
    AK_ITEM_TUNING, .bf16_dot = 1, .mapped_rows = 1, .bundle_panels = AK_BUNDLE_PANELS, .half_panels = 3, .one_panel_at_a_time = 1,
    .query_tile = 2 * AK_QUERY_TILE,
};

// Processors with AMX have memory of which four streams of panels use 0.97 of the bandwidth; rows, which are one stream, use 0.7.
const ak_tuning ak_amx_tuning = {
    AK_ITEM_TUNING, .bf16_dot = 1, .bf16_tiles = 1, .int8_tiles = 1, .bundle_panels = AK_BUNDLE_PANELS, .half_panels = 1,
    .query_tile = 2 * AK_MOST_QUERIES,
};
#endif
