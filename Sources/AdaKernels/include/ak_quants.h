// Element types of stored tensors, and their conversion to and from float32.
// The quantized types are GGUF's (ggml), bit for bit.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum {
    AK_F32 = 0, AK_F16 = 1, AK_BF16 = 2,
    AK_Q8_0 = 3, AK_Q4_0 = 4, AK_Q4_1 = 5, AK_Q5_0 = 6, AK_Q5_1 = 7,
    AK_Q4_K = 8, AK_Q5_K = 9, AK_Q6_K = 10,
    AK_I16 = 11,   // activations only: see ak_activations
    AK_I8 = 12,    // panels and activations only: see ak_matrix and ak_activations
    AK_Q2_K = 13, AK_Q3_K = 14, AK_IQ4_NL = 15, AK_IQ4_XS = 16, AK_TQ1_0 = 17, AK_TQ2_0 = 18, AK_MXFP4 = 19,
    AK_F8_E4M3 = 20, AK_F8_E5M2 = 21,   // safetensors' 8-bit floats: E4M3 without infinities (NaN is 0x7f and 0xff), E5M2 as IEEE
} ak_type;

// Values in one block of the type (1 for the float types, 32, or 256 for the K types, IQ4_XS, TQ1_0 and TQ2_0), and bytes of one block.
int32_t ak_type_block(ak_type type);
int32_t ak_type_bytes(ak_type type);

// How packing stores a type in panels: whether a block of 32 values is rounded to Q8_0. True for the quantized types but Q8_0, Q4_0, Q4_1 and Q4_K.
int ak_packs_as_q8(ak_type type);

// out (count) = the values of the row at `row`, starting at value `first`; first and count are multiples of the type's block.
void ak_dequantize(float *out, ak_type type, const void *row, int64_t first, int64_t count);

// Stores count values (a multiple of the type's block) as `type`: F32, F16, BF16 (round to nearest even), Q8_0, Q4_0, Q4_1, as ggml's
// reference quantizers do. Returns 0, or -1 for a type that cannot be written.
int ak_quantize(void *out, ak_type type, const float *values, int64_t count);

float ak_half_to_float(uint16_t half);
uint16_t ak_float_to_half(float value);      // round to nearest even, overflow to infinity
float ak_bf16_to_float(uint16_t bits);
float ak_e8m0_to_half_float(uint8_t exponent);   // half of 2^(exponent - 127): MXFP4's scale for its doubled values
uint16_t ak_float_to_bf16(float value);      // round to nearest even, NaN stays NaN
