// A processor's peak rates: loops that only read memory, or only multiply in registers. Reports compare real kernels with them.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum {
    AK_CEILING_INT8,   // 8-bit dot products with 32-bit sums
    AK_CEILING_BF16,   // bfloat16 dot products with float sums
    AK_CEILING_F32,    // float multiply-adds
} ak_ceiling;

// The instructions that ak_ceiling_multiply uses on this processor ("vpdpbusd zmm"), or NULL where it has none of the kind (BF16).
const char *ak_ceiling_instructions(ak_ceiling kind);

// Runs `rounds` rounds of independent multiply-adds that stay in registers, on the calling thread.
// Returns the operations done (a multiplication and an addition count one each); 0 where the processor has none of the kind.
double ak_ceiling_multiply(ak_ceiling kind, int64_t rounds);

// Reads every byte of data (64-byte aligned, bytes a multiple of 64) once, as `streams` (at least 1) equal parts at the same time. Returns a sum of the
// values, so that the compiler keeps the reads.
uint64_t ak_ceiling_read(const void *data, size_t bytes, int32_t streams);
