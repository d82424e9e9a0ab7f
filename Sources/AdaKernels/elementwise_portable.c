// Norms, activations, rotary positions and conversions of activations in plain C, and the portable table of kernels.
#include <math.h>

#include "internal.h"

static void matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias, const int32_t *panels,
                   int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags, const ak_upcoming *upcoming, void *scratch) {
    ak_matmul_with(&ak_portable_matmul, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}

static void quantize_q8(int8_t *out, size_t ldo, float *scales, int32_t *sums, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t b = 0; b < blocks; b++) {
            const float *x = src + (size_t)t * ld + (size_t)b * AK_BLOCK;
            const size_t at = (size_t)t * (ldo / AK_BLOCK) + (size_t)b;
            float largest = 0;
            for (int i = 0; i < AK_BLOCK; i++) largest = fmaxf(largest, fabsf(x[i]));
            const float scale = largest / 127.0f, inverse = ak_inverse_scale(scale);
            int32_t sum = 0;
            for (int i = 0; i < AK_BLOCK; i++) {
                const float quant = roundf(x[i] * inverse);
                const int8_t value = (int8_t)(quant >= -127.0f && quant <= 127.0f ? quant : 0.0f);
                out[at * AK_BLOCK + (size_t)i] = value;
                sum += value;
            }
            scales[at] = ak_activation_scale(scale);
            sums[at] = -128 * sum;
        }
    }
}

void ak_portable_quantize_i16(int16_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t b = 0; b < blocks; b++) {
            const float *x = src + (size_t)t * ld + (size_t)b * AK_BLOCK;
            const size_t at = (size_t)t * (ldo / AK_BLOCK) + (size_t)b;
            float largest = 0;
            for (int i = 0; i < AK_BLOCK; i++) largest = fmaxf(largest, fabsf(x[i]));
            scales[at] = largest / AK_WIDE_MAX;
            const float inverse = ak_inverse_scale(scales[at]);
            for (size_t i = 0; i < AK_BLOCK; i++) out[at * AK_BLOCK + i] = ak_wide_value(x[i] * inverse);
        }
    }
}

void ak_portable_quantize_i8(int8_t *out, size_t ldo, float *scales, const float *src, size_t ld, int32_t tokens, int32_t blocks) {
    const size_t groups = (size_t)ak_groups((int32_t)(ldo / AK_BLOCK));
    for (int32_t t = 0; t < tokens; t++) {
        for (int32_t g = 0; g < ak_groups(blocks); g++) {
            const size_t first = (size_t)g * AK_GROUP, end = (size_t)ak_group_end(g, blocks) * AK_BLOCK;
            const float *x = src + (size_t)t * ld;
            float largest = 0;
            for (size_t i = first; i < end; i++) largest = fmaxf(largest, fabsf(x[i]));
            const float scale = largest / 127.0f, inverse = ak_inverse_scale(scale);
            scales[(size_t)t * groups + (size_t)g] = scale;
            for (size_t i = first; i < end; i++) out[(size_t)t * ldo + i] = ak_narrow_value(x[i] * inverse);
        }
    }
}

static void to_bf16(uint16_t *out, size_t ldo, const float *src, size_t ld, int32_t tokens, int32_t count) {
    for (int32_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < (size_t)count; i++) out[(size_t)t * ldo + i] = ak_float_to_bf16(src[(size_t)t * ld + i]);
}

static void rms_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, float eps, int32_t tokens, int32_t n) {
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        double squares = 0;
        for (int32_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
        const float factor = (float)(1.0 / sqrt(squares / n + eps));
        for (int32_t i = 0; i < n; i++) out[i] = x[i] * factor * weight[i];
    }
}

static void layer_norm(float *out, size_t ldo, const float *x, size_t ldx, const float *weight, const float *bias, float eps,
                       int32_t tokens, int32_t n) {
    for (int32_t t = 0; t < tokens; t++, out += ldo, x += ldx) {
        double sum = 0, squares = 0;
        for (int32_t i = 0; i < n; i++) sum += x[i];
        const double mean = sum / n;
        for (int32_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        const double factor = 1.0 / sqrt(squares / n + eps);
        for (int32_t i = 0; i < n; i++) out[i] = (float)((x[i] - mean) * factor) * weight[i] + bias[i];
    }
}

static void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void gelu_erf(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] * 0.5f * (1.0f + erff(x[i] * 0.70710678f));
}

static void gelu_tanh(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1.0f + tanhf(0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
}

static void gelu_tanh_mul(float *gate, const float *up, size_t n) {
    gelu_tanh(gate, n);
    for (size_t i = 0; i < n; i++) gate[i] *= up[i];
}

static void gelu_quick(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
}

static void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + expf(-x[i]));
}

static void add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void rope(float *x, const float *cos, const float *sin, int32_t heads, int32_t head_dim, int32_t interleaved) {
    const int32_t pairs = head_dim / 2;
    for (int32_t head = 0; head < heads; head++, x += head_dim) {
        for (int32_t i = 0; i < pairs; i++) {
            float *a = interleaved ? x + 2 * i : x + i, *b = interleaved ? x + 2 * i + 1 : x + i + pairs;
            const float first = *a, second = *b;
            *a = first * cos[i] - second * sin[i];
            *b = second * cos[i] + first * sin[i];
        }
    }
}

static int32_t argmax(const float *x, int32_t n) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (x[i] == x[i] && (best < 0 || x[i] > x[best])) best = i;
    return best < 0 ? 0 : best;
}

const ak_kernels ak_portable_kernels = {
    .name = "portable",
    .matmul = matmul,
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
    .attention = ak_portable_attention, .attention_span = ak_portable_attention_span,
    .store_kv = ak_portable_store_kv,
    .depthwise_relu6 = ak_portable_depthwise_relu6,
    .argmax = argmax,
    .group_maxima = ak_portable_group_maxima,
    .at_least = ak_portable_at_least,
    .exp_sum = ak_portable_exp_sum,
};

const ak_tuning ak_portable_tuning = {
    AK_ITEM_TUNING, .bundle_panels = AK_TILE_PANELS, .half_panels = 3, .one_panel_at_a_time = 1, .query_tile = 2 * AK_QUERY_TILE,
};
