// Shared by GEMV with quantized rows, for chunks of CHUNK blocks of a row: an instruction set's file defines CHUNK and includes this.
#pragma once
#include <string.h>

#include "internal.h"

#define AHEAD (6 * 1024)   // prefetch distance in bytes: the hardware's prefetchers stop at pages of 4 KB

// A token's activations for a chunk, in the instruction set's order.
typedef struct {
    int8_t values[CHUNK][AK_BLOCK];
    float scales[CHUNK];
    int32_t sums[CHUNK];
} chunk_activations;

// For each block of a chunk and each of 16 rows: the integer sum, and its factor.
typedef struct { float wholes[AK_PANEL][CHUNK], factors[AK_PANEL][CHUNK]; } chunk_sums;

_Static_assert((sizeof(chunk_activations) + sizeof(chunk_sums)) * AK_ROW_CHUNK == (size_t)AK_ROW_CHUNK_BYTES * CHUNK, "scratch holds both");

AK_INLINE int32_t chunks_of(int32_t blocks) { return blocks / CHUNK + (blocks % CHUNK != 0); }
AK_INLINE size_t block_size(const ak_type type) { return type == AK_Q8_0 ? 34 : type == AK_Q4_0 ? 18 : 20; }
AK_INLINE chunk_sums *held_sums(void *scratch, const ak_matrix *weight) {
    return (chunk_sums *)((chunk_activations *)scratch + chunks_of(weight->blocks));
}

// Calls chunk(wholes, factors, bytes, activations, …) for the chunks of a panel's rows, row after row, so that memory is read as one stream. Prefetches
// AHEAD bytes ahead, and after `end` at `next`.
// A row's last chunk may read blocks of the next row, which are not added, but nothing after the matrix.
#define FOR_ROW_CHUNKS(weight, panel, act, held, end, next, type, chunk, ...) \
    const size_t chunk_bytes = CHUNK * block_size(type); \
    const int32_t chunks = chunks_of((weight)->blocks); \
    const uint8_t *row = (const uint8_t *)(weight)->data + (size_t)(panel) * AK_PANEL * (weight)->stride; \
    const uint8_t *last_whole = (const uint8_t *)(weight)->data + (size_t)(weight)->rows * (weight)->stride - chunk_bytes; \
    for (int r = 0; r < AK_PANEL; r++, row += (weight)->stride) { \
        const uint8_t *from = row, *later = end - row > AHEAD ? row + AHEAD : next + (AHEAD - (end - row)); \
        for (int32_t c = 0; c < chunks; c++, from += chunk_bytes, later += chunk_bytes) { \
            for (size_t line = 0; line < chunk_bytes; line += AK_LINE) _mm_prefetch((const char *)later + line, _MM_HINT_T1); \
            uint8_t rest[CHUNK * 34]; \
            const int reaches = from > last_whole; \
            if (reaches) { \
                memset(rest, 0, sizeof rest); \
                memcpy(rest, from, (size_t)((weight)->blocks - c * CHUNK) * block_size(type)); \
            } \
            chunk((held)[c].wholes[r], (held)[c].factors[r], reaches ? rest : from, (act) + c, __VA_ARGS__); \
        } \
    }
