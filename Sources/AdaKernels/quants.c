// Stored element types: conversion to and from float32. The quantized layouts are GGUF's.
#include "ak_quants.h"

#include <math.h>
#include <string.h>

#include "internal.h"

// Dequantized values are defined by separate multiplications and additions; a fused one would differ in the last bit.
#pragma STDC FP_CONTRACT OFF

int32_t ak_type_block(ak_type type) {
    switch (type) {
        case AK_F32: case AK_F16: case AK_BF16: case AK_I16: case AK_I8: return 1;
        case AK_Q8_0: case AK_Q4_0: case AK_Q4_1: case AK_Q5_0: case AK_Q5_1: return 32;
        case AK_Q4_K: case AK_Q5_K: case AK_Q6_K: return 256;
    }
    return 1;
}

int32_t ak_type_bytes(ak_type type) {
    switch (type) {
        case AK_I8: return 1;
        case AK_F32: return 4;
        case AK_F16: case AK_BF16: case AK_I16: return 2;
        case AK_Q8_0: return 2 + 32;
        case AK_Q4_0: return 2 + 16;
        case AK_Q4_1: return 2 + 2 + 16;
        case AK_Q5_0: return 2 + 4 + 16;
        case AK_Q5_1: return 2 + 2 + 4 + 16;
        case AK_Q4_K: return 2 + 2 + 12 + 128;
        case AK_Q5_K: return 2 + 2 + 12 + 32 + 128;
        case AK_Q6_K: return 128 + 64 + 16 + 2;
    }
    return 1;
}

// -------------------------------------------------------------------------------------------------------------- 16-bit floats

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float ak_half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    if (magnitude >= 0x7c00u << 13) return float_of(sign | 0x7f800000 | magnitude);   // infinity and NaN
    // Read with float32's exponent bias the value is 2^112 too small; the product is exact, for subnormal halves too.
    return float_of(sign | bits_of(float_of(magnitude) * 0x1p112f));
}

uint16_t ak_float_to_half(float value) {
    const uint32_t bits = bits_of(value);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    if (magnitude >= 0x47800000) return sign | 0x7c00;
    // Below 2^-14 halves are multiples of 2^-24, which is the last place of floats in [0.5, 1): the addition rounds.
    if (magnitude < 0x38800000) return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

float ak_bf16_to_float(uint16_t bits) { return float_of((uint32_t)bits << 16); }

uint16_t ak_float_to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float half_at(const uint8_t *bytes) {
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return ak_half_to_float(half);
}

static uint32_t word_at(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

// -------------------------------------------------------------------------------------------------------- blocks of 32 values

static void block_q8_0(float *out, const uint8_t *block) {
    const float d = half_at(block);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)block[2 + i] * d;
}

static void block_q4_0(float *out, const uint8_t *block) {
    const float d = half_at(block);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((block[2 + i] & 15) - 8) * d;
        out[i + 16] = (float)((block[2 + i] >> 4) - 8) * d;
    }
}

static void block_q4_1(float *out, const uint8_t *block) {
    const float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)(block[4 + i] & 15) * d + m;
        out[i + 16] = (float)(block[4 + i] >> 4) * d + m;
    }
}

static void block_q5_0(float *out, const uint8_t *block) {
    const float d = half_at(block);
    const uint32_t fifth = word_at(block + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((int)((block[6 + i] & 15u) | (fifth >> i & 1) << 4) - 16) * d;
        out[i + 16] = (float)((int)((block[6 + i] >> 4) | (fifth >> (i + 16) & 1) << 4) - 16) * d;
    }
}

static void block_q5_1(float *out, const uint8_t *block) {
    const float d = half_at(block), m = half_at(block + 2);
    const uint32_t fifth = word_at(block + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((block[8 + i] & 15u) | (fifth >> i & 1) << 4) * d + m;
        out[i + 16] = (float)((uint32_t)(block[8 + i] >> 4) | (fifth >> (i + 16) & 1) << 4) * d + m;
    }
}

// ------------------------------------------------------------------------------------------------------- blocks of 256 values

static void block_q4_k(float *out, const uint8_t *block) {
    const float d = half_at(block), dmin = half_at(block + 2);
    for (int group = 0; group < 8; group++) {
        int scale, minimum;
        ak_group_scale(block + 4, group, &scale, &minimum);
        const float step = d * (float)scale, base = dmin * (float)minimum;
        const uint8_t *quants = block + 16 + group / 2 * 32;
        const int shift = group % 2 * 4;
        for (int i = 0; i < 32; i++) out[group * 32 + i] = step * (float)(quants[i] >> shift & 15) - base;
    }
}

static void block_q5_k(float *out, const uint8_t *block) {
    const float d = half_at(block), dmin = half_at(block + 2);
    const uint8_t *fifth = block + 16;
    for (int group = 0; group < 8; group++) {
        int scale, minimum;
        ak_group_scale(block + 4, group, &scale, &minimum);
        const float step = d * (float)scale, base = dmin * (float)minimum;
        const uint8_t *quants = block + 48 + group / 2 * 32;
        const int shift = group % 2 * 4;
        for (int i = 0; i < 32; i++)
            out[group * 32 + i] = step * (float)((quants[i] >> shift & 15) | (fifth[i] >> group & 1) << 4) - base;
    }
}

static void block_q6_k(float *out, const uint8_t *block) {
    const uint8_t *upper = block + 128;
    const int8_t *scales = (const int8_t *)(block + 192);
    const float d = half_at(block + 208);
    // Groups of 32 values: the low four bits of groups 0 and 2 (1 and 3) of each half share bytes, the high two bits of all four do.
    for (int group = 0; group < 8; group++) {
        const int half = group / 4, part = group % 4;
        const uint8_t *low = block + half * 64 + part % 2 * 32;
        const uint8_t *high = upper + half * 32;
        const int low_shift = part / 2 * 4, high_shift = part * 2;
        for (int i = 0; i < 32; i++) {
            const int quant = ((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32;
            out[group * 32 + i] = d * (float)scales[group * 2 + i / 16] * (float)quant;
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------ whole rows

void ak_dequantize(float *out, ak_type type, const void *row, int64_t first, int64_t count) {
    const int64_t size = ak_type_block(type), bytes = ak_type_bytes(type);
    const uint8_t *source = (const uint8_t *)row + first / size * bytes;
    void (*block)(float *, const uint8_t *) = NULL;
    switch (type) {
        case AK_F32:
            memcpy(out, source, (size_t)count * sizeof(float));
            return;
        case AK_F16:
            for (int64_t i = 0; i < count; i++) out[i] = half_at(source + 2 * i);
            return;
        case AK_BF16:
            for (int64_t i = 0; i < count; i++) {
                uint16_t bits;
                memcpy(&bits, source + 2 * i, sizeof bits);
                out[i] = ak_bf16_to_float(bits);
            }
            return;
        case AK_Q8_0: block = block_q8_0; break;
        case AK_Q4_0: block = block_q4_0; break;
        case AK_Q4_1: block = block_q4_1; break;
        case AK_Q5_0: block = block_q5_0; break;
        case AK_Q5_1: block = block_q5_1; break;
        case AK_Q4_K: block = block_q4_k; break;
        case AK_Q5_K: block = block_q5_k; break;
        case AK_Q6_K: block = block_q6_k; break;
        case AK_I16: case AK_I8: break;   // are not stored
    }
    if (block == NULL) return;
    for (int64_t i = 0; i < count; i += size, source += bytes) block(out + i, source);
}

static void quantize_q8_0(uint8_t *out, const float *values) {
    float largest = 0;
    for (int i = 0; i < 32; i++) largest = fmaxf(largest, fabsf(values[i]));
    const float d = largest / 127.0f, inverse = ak_inverse_scale(d);
    const uint16_t scale = ak_float_to_half(d);
    memcpy(out, &scale, sizeof scale);
    for (int i = 0; i < 32; i++) {
        const float quant = roundf(values[i] * inverse);
        out[2 + i] = (uint8_t)(int8_t)(quant >= -127.0f && quant <= 127.0f ? quant : 0.0f);
    }
}

static void quantize_q4_0(uint8_t *out, const float *values) {
    // The value of largest magnitude becomes -8, so the scale carries the opposite sign.
    float extreme = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(values[i]) > fabsf(extreme)) extreme = values[i];
    const float d = extreme / -8.0f, inverse = ak_inverse_scale(d);
    const uint16_t scale = ak_float_to_half(d);
    memcpy(out, &scale, sizeof scale);
    for (int i = 0; i < 16; i++) {
        unsigned nibbles[2];
        for (int half = 0; half < 2; half++) {
            const float quant = values[i + 16 * half] * inverse + 8.5f;
            nibbles[half] = quant >= 0.0f ? (quant < 15.0f ? (unsigned)quant : 15u) : 0u;
        }
        out[2 + i] = (uint8_t)(nibbles[0] | nibbles[1] << 4);
    }
}

static void quantize_q4_1(uint8_t *out, const float *values) {
    float least = values[0], most = values[0];
    for (int i = 1; i < 32; i++) {
        least = fminf(least, values[i]);
        most = fmaxf(most, values[i]);
    }
    const float d = (most - least) / 15.0f, inverse = ak_inverse_scale(d);
    const uint16_t scale = ak_float_to_half(d), minimum = ak_float_to_half(least);
    memcpy(out, &scale, sizeof scale);
    memcpy(out + 2, &minimum, sizeof minimum);
    for (int i = 0; i < 16; i++) {
        unsigned nibbles[2];
        for (int half = 0; half < 2; half++) {
            const float quant = (values[i + 16 * half] - least) * inverse + 0.5f;
            nibbles[half] = quant >= 0.0f ? (quant < 15.0f ? (unsigned)quant : 15u) : 0u;
        }
        out[4 + i] = (uint8_t)(nibbles[0] | nibbles[1] << 4);
    }
}

int ak_quantize(void *out, ak_type type, const float *values, int64_t count) {
    uint8_t *bytes = out;
    switch (type) {
        case AK_F32:
            memcpy(out, values, (size_t)count * sizeof(float));
            return 0;
        case AK_F16:
        case AK_BF16:
            for (int64_t i = 0; i < count; i++) {
                const uint16_t bits = type == AK_F16 ? ak_float_to_half(values[i]) : ak_float_to_bf16(values[i]);
                memcpy(bytes + 2 * i, &bits, sizeof bits);
            }
            return 0;
        case AK_Q8_0:
            for (int64_t i = 0; i + 32 <= count; i += 32, bytes += 34) quantize_q8_0(bytes, values + i);
            return 0;
        case AK_Q4_0:
            for (int64_t i = 0; i + 32 <= count; i += 32, bytes += 18) quantize_q4_0(bytes, values + i);
            return 0;
        case AK_Q4_1:
            for (int64_t i = 0; i + 32 <= count; i += 32, bytes += 20) quantize_q4_1(bytes, values + i);
            return 0;
        default:
            return -1;
    }
}
