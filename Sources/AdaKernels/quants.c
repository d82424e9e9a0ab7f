// Stored element types: conversion to and from float32. The quantized layouts are GGUF's.
#include "ak_quants.h"

#include <math.h>
#include <string.h>

#include "internal.h"

// Dequantized values are defined by separate multiplications and additions; a fused one would differ in the last bit.
#pragma STDC FP_CONTRACT OFF

int32_t ak_type_block(ak_type type) {
    switch (type) {
        case AK_F32: case AK_F16: case AK_BF16: case AK_F8_E4M3: case AK_F8_E5M2: case AK_I16: case AK_I8: return 1;
        case AK_Q8_0: case AK_Q4_0: case AK_Q4_1: case AK_Q5_0: case AK_Q5_1: case AK_IQ4_NL: case AK_MXFP4: return 32;
        case AK_Q2_K: case AK_Q3_K: case AK_Q4_K: case AK_Q5_K: case AK_Q6_K: case AK_IQ4_XS: case AK_TQ1_0: case AK_TQ2_0: return 256;
    }
    return 1;
}

int32_t ak_type_bytes(ak_type type) {
    switch (type) {
        case AK_I8: case AK_F8_E4M3: case AK_F8_E5M2: return 1;
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
        case AK_Q2_K: return 16 + 64 + 2 + 2;
        case AK_Q3_K: return 32 + 64 + 12 + 2;
        case AK_IQ4_NL: return 2 + 16;
        case AK_IQ4_XS: return 2 + 2 + 4 + 128;
        case AK_TQ1_0: return 48 + 4 + 2;
        case AK_TQ2_0: return 64 + 2;
        case AK_MXFP4: return 1 + 16;
    }
    return 1;
}

int ak_packs_as_q8(ak_type type) {
    switch (type) {
        case AK_Q5_0: case AK_Q5_1: case AK_Q2_K: case AK_Q3_K: case AK_Q5_K: case AK_Q6_K:
        case AK_IQ4_NL: case AK_IQ4_XS: case AK_TQ1_0: case AK_TQ2_0: case AK_MXFP4: return 1;
        default: return 0;
    }
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

float ak_e8m0_to_half_float(uint8_t exponent) {
    return float_of(exponent < 2 ? 0x00200000u << exponent : (uint32_t)(exponent - 1) << 23);
}

static float e4m3_to_float(uint8_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x80) << 24, magnitude = bits & 0x7f;
    if (magnitude == 0x7f) return float_of(sign | 0x7fc00000);
    // Read with float32's exponent bias the value is 2^120 too small; the product is exact, for subnormals too.
    return float_of(sign | bits_of(float_of(magnitude << 20) * 0x1p120f));
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

static void block_q2_k(float *out, const uint8_t *block) {
    const float d = half_at(block + 80), dmin = half_at(block + 82);
    for (int group = 0; group < 16; group++) {
        const float step = d * (float)(block[group] & 15), base = dmin * (float)(block[group] >> 4);
        // Groups of 16: each half's 32 bytes hold its eight groups, two bits of four groups in a byte.
        const uint8_t *quants = block + 16 + group / 8 * 32 + group % 2 * 16;
        const int shift = group % 8 / 2 * 2;
        for (int i = 0; i < 16; i++) out[group * 16 + i] = step * (float)(quants[i] >> shift & 3) - base;
    }
}

static void block_q3_k(float *out, const uint8_t *block) {
    const uint8_t *scales = block + 96;
    const float d = half_at(block + 108);
    for (int group = 0; group < 16; group++) {
        const int low = scales[group % 8] >> group / 8 * 4 & 15, high = scales[8 + group % 4] >> group / 4 * 2 & 3;
        const float step = d * (float)((low | high << 4) - 32);
        const uint8_t *thirds = block + group % 2 * 16, *quants = block + 32 + group / 8 * 32 + group % 2 * 16;
        const int shift = group % 8 / 2 * 2;
        for (int i = 0; i < 16; i++)
            out[group * 16 + i] = step * (float)((quants[i] >> shift & 3) - (thirds[i] >> group / 2 & 1 ? 0 : 4));
    }
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};   // doubled

// 32 values of a table with 16 entries, by the 4 bits of 16 bytes.
static void table_values(float *out, float scale, const int8_t values[16], const uint8_t *quants) {
    for (int i = 0; i < 16; i++) {
        out[i] = scale * (float)values[quants[i] & 15];
        out[i + 16] = scale * (float)values[quants[i] >> 4];
    }
}

static void block_iq4_nl(float *out, const uint8_t *block) { table_values(out, half_at(block), iq4_values, block + 2); }

static void block_mxfp4(float *out, const uint8_t *block) { table_values(out, ak_e8m0_to_half_float(block[0]), mxfp4_values, block + 1); }

static float iq4_xs_scale(const uint8_t *block, int group) {
    const int low = block[4 + group / 2] >> group % 2 * 4 & 15, high = block[2 + group / 4] >> group % 4 * 2 & 3;
    return half_at(block) * (float)((low | high << 4) - 32);
}

static void block_iq4_xs(float *out, const uint8_t *block) {
    for (int group = 0; group < 8; group++) table_values(out + group * 32, iq4_xs_scale(block, group), iq4_values, block + 8 + group * 16);
}

static void block_tq1_0(float *out, const uint8_t *block) {
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    static const struct { int first, bytes, digits; } parts[3] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    const float d = half_at(block + 52);
    for (int part = 0; part < 3; part++)
        for (int digit = 0; digit < parts[part].digits; digit++)
            for (int i = 0; i < parts[part].bytes; i++) {
                // A byte holds its base-3 digits as a fraction of 256; the product modulo 256 moves the digit to the front.
                const uint8_t moved = (uint8_t)(block[parts[part].first + i] * powers[digit]);
                *out++ = d * (float)((moved * 3 >> 8) - 1);
            }
}

static void block_tq2_0(float *out, const uint8_t *block) {
    const float d = half_at(block + 64);
    for (int i = 0; i < 256; i++) out[i] = d * (float)((block[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
}

int ak_own_scale(uint16_t *scale, ak_type type, const uint8_t *block, int group) {
    switch (type) {
        case AK_IQ4_NL: memcpy(scale, block, sizeof *scale); return 1;
        case AK_TQ1_0: memcpy(scale, block + 52, sizeof *scale); return 1;
        case AK_TQ2_0: memcpy(scale, block + 64, sizeof *scale); return 1;
        case AK_IQ4_XS: *scale = ak_float_to_half(iq4_xs_scale(block, group)); return 1;
        case AK_MXFP4:
            *scale = ak_float_to_half(ak_e8m0_to_half_float(block[0]));
            return ak_half_to_float(*scale) == ak_e8m0_to_half_float(block[0]);
        default: return 0;
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
        case AK_F8_E4M3:
            for (int64_t i = 0; i < count; i++) out[i] = e4m3_to_float(source[i]);
            return;
        case AK_F8_E5M2:   // the upper half of a half
            for (int64_t i = 0; i < count; i++) out[i] = ak_half_to_float((uint16_t)(source[i] << 8));
            return;
        case AK_Q8_0: block = block_q8_0; break;
        case AK_Q4_0: block = block_q4_0; break;
        case AK_Q4_1: block = block_q4_1; break;
        case AK_Q5_0: block = block_q5_0; break;
        case AK_Q5_1: block = block_q5_1; break;
        case AK_Q4_K: block = block_q4_k; break;
        case AK_Q5_K: block = block_q5_k; break;
        case AK_Q6_K: block = block_q6_k; break;
        case AK_Q2_K: block = block_q2_k; break;
        case AK_Q3_K: block = block_q3_k; break;
        case AK_IQ4_NL: block = block_iq4_nl; break;
        case AK_IQ4_XS: block = block_iq4_xs; break;
        case AK_TQ1_0: block = block_tq1_0; break;
        case AK_TQ2_0: block = block_tq2_0; break;
        case AK_MXFP4: block = block_mxfp4; break;
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
