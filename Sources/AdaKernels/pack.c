// Weight panels: 16 output rows side by side, the order in which the kernels read them (see AdaKernels.h).
#include <math.h>
#include <string.h>

#include "internal.h"

static int32_t blocks_of(int32_t inputs) { return inputs / AK_BLOCK + (inputs % AK_BLOCK != 0); }

size_t ak_panel_bytes(ak_type type, int32_t inputs) {
    if (inputs < 0) return 0;
    switch (type) {
        // Rounded up so that every panel begins on a cache line.
        case AK_F32: case AK_F16: case AK_BF16: case AK_Q8_0: case AK_Q4_0: case AK_Q4_1:
            return ((size_t)blocks_of(inputs) * ak_block_step(type) + 63) / 64 * 64;
        case AK_I8:
            if (inputs % AK_LINE != 0) return 0;
            return (size_t)inputs * AK_PANEL + (size_t)ak_groups(blocks_of(inputs)) * AK_PANEL * sizeof(float);
        default: return 0;
    }
}

// One row's values block * 32 … + 31 in float32, zeros where the row ends.
static void load_block(float *out, ak_type type, const uint8_t *row, int32_t inputs, int32_t block) {
    const int32_t first = block * AK_BLOCK;
    const int32_t count = inputs - first < AK_BLOCK ? inputs - first : AK_BLOCK;
    ak_dequantize(out, type, row, first, count);
    for (int32_t i = count; i < AK_BLOCK; i++) out[i] = 0;
}

static void pack_float_block(uint8_t *out, ak_type type, int32_t lane, const float *values) {
    for (size_t k = 0; k < AK_BLOCK; k++) {
        switch (type) {
            case AK_F32:
                memcpy(out + k * AK_LINE + 4 * (size_t)lane, &values[k], 4);
                break;
            case AK_F16: {
                const uint16_t bits = ak_float_to_half(values[k]);
                memcpy(out + k / 2 * AK_LINE + 2 * (k % 2 * AK_PANEL + (size_t)lane), &bits, 2);
                break;
            }
            default: {
                const uint16_t bits = ak_float_to_bf16(values[k]);
                memcpy(out + k / 2 * AK_LINE + 2 * (2 * (size_t)lane + k % 2), &bits, 2);
                break;
            }
        }
    }
}

// block: one GGUF Q8_0 block (half scale, 32 int8).
AK_INLINE void pack_q8_block(uint8_t *values, uint8_t *scales, int32_t lane, const uint8_t *source) {
    for (size_t k = 0; k < AK_BLOCK; k += 4) {
        uint32_t four;
        memcpy(&four, source + 2 + k, 4);
        four ^= 0x80808080;
        memcpy(values + k / 4 * AK_LINE + (size_t)lane * 4, &four, 4);
    }
    memcpy(scales + (size_t)lane * 2, source, 2);
}

// block: one GGUF Q4_0 or Q4_1 block: a half scale, Q4_1's half minimum, 16 bytes that hold values i and i + 16.
AK_INLINE void pack_q4_block(uint8_t *values, uint8_t *scales, ak_type type, int32_t lane, const uint8_t *source) {
    memcpy(scales + (size_t)lane * 2, source, 2);
    if (type == AK_Q4_1) memcpy(scales + (size_t)(AK_PANEL + lane) * 2, source + 2, 2);
    const uint8_t *pairs = source + (type == AK_Q4_1 ? 4 : 2);
    for (size_t j = 0; j < 4; j++) memcpy(values + j * AK_LINE + (size_t)lane * 4, pairs + 4 * j, 4);
}

void ak_portable_panel(uint8_t *out, const ak_matrix *weight, int32_t panel, const int32_t *blocks,
                       int32_t first, int32_t last, const uint8_t *ahead) {
    (void)ahead;
    const ak_type type = weight->type;
    const size_t stored_bytes = (size_t)ak_type_bytes(type), block_bytes = ak_block_bytes(type), step = ak_block_step(type);
    static const uint8_t no_row[34] = {0};
    for (int32_t lane = 0; lane < AK_PANEL; lane++) {
        const int64_t row = (int64_t)panel * AK_PANEL + lane;
        const uint8_t *stored = row < weight->rows ? (const uint8_t *)weight->data + (size_t)row * weight->stride : NULL;
        for (int32_t i = first; i < last; i++) {
            const uint8_t *block = stored ? stored + (size_t)(blocks ? blocks[i] : i) * stored_bytes : no_row;
            uint8_t *values = out + (size_t)(i - first) * step, *scales = values + block_bytes;
            if (type == AK_Q8_0) pack_q8_block(values, scales, lane, block);
            else pack_q4_block(values, scales, type, lane, block);
        }
    }
}

// A group of 32 values of a Q4_K block as a Q4_1 block: the same 4 bits, its scale and minimum rounded to half precision.
static void q4_k_group(uint8_t *out, const uint8_t *block, int group) {
    int scale, minimum;
    ak_group_scale(block + 4, group, &scale, &minimum);
    uint16_t halves[2];
    memcpy(halves, block, sizeof halves);
    const uint16_t header[2] = {
        ak_float_to_half(ak_half_to_float(halves[0]) * (float)scale), ak_float_to_half(-(ak_half_to_float(halves[1]) * (float)minimum)),
    };
    memcpy(out, header, sizeof header);
    const uint8_t *quants = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 16; i++) out[4 + i] = (uint8_t)((quants[i] >> shift & 15) | (quants[i + 16] >> shift & 15) << 4);
}

// 32 values of group `group` of a block as a Q8_0 block.
static void q8_group(uint8_t *out, ak_type source_type, const uint8_t *block, int group, const float *values) {
    uint16_t half;
    const int own = ak_own_scale(&half, source_type, block, group);
    const float inverse = own ? ak_inverse_scale(ak_half_to_float(half)) : 0.0f;
    if (inverse == 0.0f) {
        ak_quantize(out, AK_Q8_0, values, AK_BLOCK);
        return;
    }
    memcpy(out, &half, sizeof half);
    for (int i = 0; i < AK_BLOCK; i++) {
        const float quant = roundf(values[i] * inverse);
        out[2 + i] = (uint8_t)(int8_t)(quant >= -127.0f && quant <= 127.0f ? quant : 0.0f);
    }
}

// Panel `panel` in I8, of float rows.
static void pack_i8_panel(uint8_t *out, const uint8_t *source, ak_type source_type, size_t row_bytes, int32_t rows, int32_t inputs, int32_t panel) {
    float *scales = (float *)(out + (size_t)inputs * AK_PANEL);
    for (int32_t lane = 0; lane < AK_PANEL; lane++) {
        const int64_t row = (int64_t)panel * AK_PANEL + lane;
        for (int32_t first = 0; first < inputs; first += AK_GROUP) {
            const int32_t count = inputs - first < AK_GROUP ? inputs - first : AK_GROUP;
            float values[AK_GROUP] = {0};
            int8_t quantized[AK_GROUP];
            if (row < rows) ak_dequantize(values, source_type, source + (size_t)row * row_bytes, first, count);
            ak_portable_quantize_i8(quantized, AK_GROUP, scales + first / AK_GROUP * AK_PANEL + lane, values, AK_GROUP, 1, count / AK_BLOCK);
            for (int32_t i = 0; i < count; i += 4)
                memcpy(out + (size_t)(first + i) / 4 * AK_LINE + (size_t)lane * 4, quantized + i, 4);
        }
    }
}

int ak_pack_panels(void *out, ak_type type, int32_t bundle, const void *source, ak_type source_type, size_t row_bytes,
                   int32_t rows, int32_t inputs, int32_t first, int32_t count) {
    const int float_source = source_type == AK_F32 || source_type == AK_F16 || source_type == AK_BF16;
    const int float_panel = type == AK_F32 || type == AK_F16 || type == AK_BF16;
    if (type == AK_I8) {
        const size_t bytes = ak_panel_bytes(type, inputs);
        if (!float_source || bytes == 0 || bundle != 1) return -1;
        for (int32_t p = 0; p < count; p++) pack_i8_panel((uint8_t *)out + (size_t)p * bytes, source, source_type, row_bytes, rows, inputs, first + p);
        return 0;
    }
    const int as_it_is = source_type == type && (type == AK_Q8_0 || type == AK_Q4_0 || type == AK_Q4_1);
    const int regrouped = source_type == AK_Q4_K && type == AK_Q4_1;
    const int requantized = type == AK_Q8_0 && ak_packs_as_q8(source_type);
    if (!(float_source && (float_panel || type == AK_Q8_0)) && !as_it_is && !regrouped && !requantized) return -1;
    if ((regrouped || requantized) && inputs % ak_type_block(source_type) != 0) return -1;
    if (bundle < 1 || first % bundle != 0 || count % bundle != 0) return -1;

    const size_t panel_bytes = ak_panel_bytes(type, inputs);
    const int32_t blocks = blocks_of(inputs);
    const float zeros[AK_BLOCK] = {0};
    static const uint8_t no_row[34] = {0};
    uint8_t quantized[34];
    float values[256];   // of a block of the source, or of a panel
    const int32_t together = requantized ? ak_type_block(source_type) / AK_BLOCK : 1;
    const size_t stored_bytes = as_it_is ? (size_t)ak_type_bytes(type) : 0;   // of a block of the source
    const size_t step = ak_block_step(type) * (size_t)bundle;
    for (int32_t p = 0; p < count; p++) {
        const int32_t member = p % bundle;
        uint8_t *panels = (uint8_t *)out + (size_t)(p - member) * panel_bytes;
        if (member == 0) {   // the bytes from the last block to the next cache line
            const size_t used = (size_t)blocks * step;
            memset(panels + used, 0, panel_bytes * (size_t)bundle - used);
        }
        for (int32_t lane = 0; lane < AK_PANEL; lane++) {
            const int64_t row = ((int64_t)first + p) * AK_PANEL + lane;
            const uint8_t *row_data = row < rows ? (const uint8_t *)source + (size_t)row * row_bytes : NULL;
            for (int32_t block = 0; block < blocks; block++) {
                uint8_t *block_values = panels + (size_t)block * step + (size_t)member * ak_block_step(type);
                uint8_t *block_scales = block_values + ak_block_bytes(type);
                if (as_it_is) {
                    const uint8_t *stored = row_data ? row_data + (size_t)block * stored_bytes : no_row;
                    if (type == AK_Q8_0) pack_q8_block(block_values, block_scales, lane, stored);
                    else if (type == AK_Q4_0) pack_q4_block(block_values, block_scales, AK_Q4_0, lane, stored);
                    else pack_q4_block(block_values, block_scales, AK_Q4_1, lane, stored);
                    continue;
                }
                if (regrouped) {
                    const uint8_t *super = row_data ? row_data + (size_t)(block / 8) * (size_t)ak_type_bytes(AK_Q4_K) : NULL;
                    if (super != NULL) q4_k_group(quantized, super, block % 8);
                    pack_q4_block(block_values, block_scales, AK_Q4_1, lane, super != NULL ? quantized : no_row);
                    continue;
                }
                if (row_data && together > 1) {
                    if (block % together == 0) ak_dequantize(values, source_type, row_data, block * AK_BLOCK, together * AK_BLOCK);
                } else if (row_data) {
                    load_block(values, source_type, row_data, inputs, block);
                }
                const float *row_values = row_data ? values + block % together * AK_BLOCK : zeros;
                if (type == AK_Q8_0) {
                    if (row_data && requantized) {
                        const uint8_t *stored = row_data + (size_t)(block / together) * (size_t)ak_type_bytes(source_type);
                        q8_group(quantized, source_type, stored, block % together, row_values);
                    } else {
                        ak_quantize(quantized, AK_Q8_0, row_values, AK_BLOCK);
                    }
                    pack_q8_block(block_values, block_scales, lane, quantized);
                } else {
                    pack_float_block(block_values, type, lane, row_values);
                }
            }
        }
    }
    return 0;
}
