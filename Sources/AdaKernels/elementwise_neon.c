// NEON norms, activations, rotary positions and conversions of activations, and the table of NEON kernels.
#include "neon.h"

#if AK_ARM
#include <math.h>
#include <string.h>

// Up to four values; zeros beyond them.
AK_INLINE float32x4_t load_some(const float *x, size_t count) {
    if (count >= 4) return vld1q_f32(x);
    float values[4] = {0};
    memcpy(values, x, count * sizeof(float));
    return vld1q_f32(values);
}

AK_INLINE void store_some(float *x, float32x4_t value, size_t count) {
    if (count >= 4) {
        vst1q_f32(x, value);
        return;
    }
    float values[4];
    vst1q_f32(values, value);
    memcpy(x, values, count * sizeof(float));
}

// ------------------------------------------------------------------------------------------------------ activations of matmul

static void quantize_q8(int8_t *out, size_t ldo, float *scales, int32_t *sums, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t b = 0; b < blocks; b++) {
            const float *x = src + (size_t)t * ld + (size_t)b * AK_BLOCK;
            const size_t at = (size_t)t * (ldo / AK_BLOCK) + (size_t)b;
            float32x4_t values[8], largest = vdupq_n_f32(0);
            for (int i = 0; i < 8; i++) {
                values[i] = vld1q_f32(x + 4 * i);
                largest = vmaxnmq_f32(largest, vabsq_f32(values[i]));   // not where one is NaN
            }
            const float scale = vmaxvq_f32(largest) / 127.0f, inverse = ak_inverse_scale(scale);
            int32x4_t sum = vdupq_n_s32(0);
            for (int i = 0; i < 8; i += 2) {
                // This conversion rounds halves away from zero, and turns NaN into zero.
                const int32x4_t low = vcvtaq_s32_f32(vmulq_n_f32(values[i], inverse));
                const int32x4_t high = vcvtaq_s32_f32(vmulq_n_f32(values[i + 1], inverse));
                sum = vaddq_s32(sum, vaddq_s32(low, high));
                vst1_s8(out + at * AK_BLOCK + 4 * i, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
            }
            scales[at] = ak_activation_scale(scale);
            sums[at] = -128 * vaddvq_s32(sum);
        }
    }
}

static void to_bf16(uint16_t *out, size_t ldo, const float *src, size_t ld, int32_t tokens, int32_t count) {
    for (int32_t t = 0; t < tokens; t++, out += ldo, src += ld) {
        size_t i = 0;
        for (; i + 4 <= (size_t)count; i += 4) {
            const float32x4_t values = vld1q_f32(src + i);
            const uint32x4_t bits = vreinterpretq_u32_f32(values), known = vceqq_f32(values, values);
            const uint32x4_t even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
            const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), even);
            const uint32x4_t result = vbslq_u32(known, rounded, vorrq_u32(bits, vdupq_n_u32(0x400000)));
            vst1_u16(out + i, vshrn_n_u32(result, 16));
        }
        for (; i < (size_t)count; i++) out[i] = ak_float_to_bf16(src[i]);
    }
}

// ------------------------------------------------------------------------------------------------------------------- norms

static void rms_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, float eps, int32_t tokens, int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        float32x4_t squares[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
        for (size_t i = 0; i < count; i += 4) {
            const float32x4_t value = load_some(x + i, count - i);
            squares[i / 4 % 4] = vfmaq_f32(squares[i / 4 % 4], value, value);
        }
        const float sum = vaddvq_f32(vaddq_f32(vaddq_f32(squares[0], squares[1]), vaddq_f32(squares[2], squares[3])));
        const float factor = 1.0f / sqrtf(sum / (float)n + eps);
        for (size_t i = 0; i < count; i += 4) {
            const float32x4_t value = vmulq_n_f32(load_some(x + i, count - i), factor);
            store_some(out + i, vmulq_f32(value, load_some(weight + i, count - i)), count - i);
        }
    }
}

static void layer_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, const float *bias, float eps,
                       int32_t tokens, int32_t n) {
    const size_t count = (size_t)n;
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        float32x4_t sums[2] = {vdupq_n_f32(0), vdupq_n_f32(0)}, squares[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
        for (size_t i = 0; i < count; i += 4) sums[i / 4 % 2] = vaddq_f32(sums[i / 4 % 2], load_some(x + i, count - i));
        const float mean = vaddvq_f32(vaddq_f32(sums[0], sums[1])) / (float)n;
        size_t i = 0;
        for (; i + 4 <= count; i += 4) {
            const float32x4_t difference = vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(mean));
            squares[i / 4 % 2] = vfmaq_f32(squares[i / 4 % 2], difference, difference);
        }
        float sum = vaddvq_f32(vaddq_f32(squares[0], squares[1]));
        for (; i < count; i++) sum += (x[i] - mean) * (x[i] - mean);
        const float factor = 1.0f / sqrtf(sum / (float)n + eps);
        for (i = 0; i < count; i += 4) {
            const float32x4_t value = vmulq_n_f32(vsubq_f32(load_some(x + i, count - i), vdupq_n_f32(mean)), factor);
            store_some(out + i, vfmaq_f32(load_some(bias + i, count - i), value, load_some(weight + i, count - i)), count - i);
        }
    }
}

// ------------------------------------------------------------------------------------------------------------ activations

// x * sigmoid(y)
AK_INLINE float32x4_t gated(float32x4_t x, float32x4_t y) { return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), ak_exp4(vnegq_f32(y)))); }

AK_INLINE float32x4_t normal_distribution(float32x4_t x) {
    const float32x4_t u = vabsq_f32(x), s = vmulq_f32(x, x);
    float32x4_t near = vdupq_n_f32(AK_PHI_NEAR_6);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_5), near, s);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_4), near, s);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_3), near, s);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_2), near, s);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_1), near, s);
    near = vfmaq_f32(vdupq_n_f32(AK_PHI_NEAR_0), near, s);
    near = vfmaq_f32(vdupq_n_f32(0.5f), near, x);
    float32x4_t far = vdupq_n_f32(AK_PHI_FAR_5);
    far = vfmaq_f32(vdupq_n_f32(AK_PHI_FAR_4), far, u);
    far = vfmaq_f32(vdupq_n_f32(AK_PHI_FAR_3), far, u);
    far = vfmaq_f32(vdupq_n_f32(AK_PHI_FAR_2), far, u);
    far = vfmaq_f32(vdupq_n_f32(AK_PHI_FAR_1), far, u);
    far = vfmaq_f32(vdupq_n_f32(AK_PHI_FAR_0), far, u);
    const float32x4_t tail = ak_exp4(vnegq_f32(far));
    far = vbslq_f32(vcltzq_f32(x), tail, vsubq_f32(vdupq_n_f32(1.0f), tail));
    return vbslq_f32(vcgtq_f32(u, vdupq_n_f32(AK_PHI_LIMIT)), far, near);
}

static void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t x = load_some(gate + i, n - i);
        store_some(gate + i, vmulq_f32(gated(x, x), load_some(up + i, n - i)), n - i);
    }
}

static void gelu_erf(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t value = load_some(x + i, n - i);
        store_some(x + i, vmulq_f32(value, normal_distribution(value)), n - i);
    }
}

AK_INLINE float32x4_t gelu_tanh_of(float32x4_t value) {
    const float32x4_t cube = vmulq_f32(vmulq_f32(value, value), vmulq_n_f32(value, AK_GELU_TANH_CUBE));
    return gated(value, vmulq_n_f32(vaddq_f32(value, cube), AK_GELU_TANH_SCALE));
}

static void gelu_tanh(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 4) store_some(x + i, gelu_tanh_of(load_some(x + i, n - i)), n - i);
}

static void gelu_tanh_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        store_some(gate + i, vmulq_f32(gelu_tanh_of(load_some(gate + i, n - i)), load_some(up + i, n - i)), n - i);
    }
}

static void gelu_quick(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t value = load_some(x + i, n - i);
        store_some(x + i, gated(value, vmulq_n_f32(value, AK_GELU_QUICK_SCALE)), n - i);
    }
}

static void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t value = load_some(x + i, n - i);
        store_some(x + i, gated(value, value), n - i);
    }
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += 4) store_some(x + i, vaddq_f32(load_some(x + i, n - i), load_some(y + i, n - i)), n - i);
}

// --------------------------------------------------------------------------------------------------------------- positions

static void rope(float *x, const float *cos, const float *sin, int32_t heads, int32_t head_dim, int32_t interleaved) {
    const size_t pairs = (size_t)head_dim / 2;
    for (int32_t head = 0; head < heads; head++, x += head_dim) {
        size_t i = 0;
        for (; i + 4 <= pairs; i += 4) {
            const float32x4_t c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
            float32x4x2_t both;
            if (interleaved) {
                both = vld2q_f32(x + 2 * i);
            } else {
                both.val[0] = vld1q_f32(x + i);
                both.val[1] = vld1q_f32(x + pairs + i);
            }
            float32x4x2_t turned;
            turned.val[0] = vfmsq_f32(vmulq_f32(both.val[0], c), both.val[1], s);
            turned.val[1] = vfmaq_f32(vmulq_f32(both.val[1], c), both.val[0], s);
            if (interleaved) {
                vst2q_f32(x + 2 * i, turned);
            } else {
                vst1q_f32(x + i, turned.val[0]);
                vst1q_f32(x + pairs + i, turned.val[1]);
            }
        }
        for (; i < pairs; i++) {
            float *a = interleaved ? x + 2 * i : x + i, *b = interleaved ? x + 2 * i + 1 : x + pairs + i;
            const float first = *a, second = *b;
            *a = first * cos[i] - second * sin[i];
            *b = second * cos[i] + first * sin[i];
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ argmax

static int32_t argmax(const float *x, int32_t n) {
    const size_t count = (size_t)n;
    float32x4_t best = vdupq_n_f32(-INFINITY);
    size_t i = 0;
    for (; i + 4 <= count; i += 4) best = vmaxnmq_f32(best, vld1q_f32(x + i));   // a number wins over NaN
    float largest = vmaxnmvq_f32(best);
    for (; i < count; i++) largest = x[i] > largest ? x[i] : largest;
    for (i = 0; i + 4 <= count; i += 4) {
        if (vmaxvq_u32(vceqq_f32(vld1q_f32(x + i), vdupq_n_f32(largest)))) break;
    }
    for (; i < count; i++)
        if (x[i] == largest) return (int32_t)i;
    return 0;
}

const ak_kernels ak_neon_kernels = {
    .name = "neon",
    .matmul = ak_neon_matmul,
    .quantize_q8 = quantize_q8,
    .quantize_i16 = ak_portable_quantize_i16,
    .quantize_i8 = ak_portable_quantize_i8,
    .to_bf16 = to_bf16,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .gelu_erf = gelu_erf,
    .gelu_tanh = gelu_tanh,
    .gelu_quick = gelu_quick,
    .silu = silu,
    .add = add,
    .rope = rope,
    .attention = ak_neon_attention, .attention_span = ak_neon_attention_span,
    .store_kv = ak_portable_store_kv,
    .depthwise_relu6 = ak_portable_depthwise_relu6,
    .argmax = argmax,
    .group_maxima = ak_portable_group_maxima,
    .at_least = ak_portable_at_least,
    .exp_sum = ak_portable_exp_sum,
};

const ak_tuning ak_neon_tuning = {
    AK_ITEM_TUNING, .bundle_panels = AK_TILE_PANELS, .half_panels = 3, .one_panel_at_a_time = 1, .query_tile = 2 * AK_QUERY_TILE,
};
#endif
