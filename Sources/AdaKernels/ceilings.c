// Loops that reach the processor's peak bandwidth or arithmetic (see ak_ceilings.h).
//
// The multiply loops keep enough sums in registers to hide the latency of an instruction: 12 cover six cycles at two a cycle, and leave registers for
// the operands. OPAQUE makes a register's value unknown to the compiler at no cost, so that it cannot move work out of the loop.
#include "ak_ceilings.h"
#include "internal.h"

#include <string.h>

#if AK_X86
#include "avx2.h"
#include "amx.h"
#elif AK_ARM
#include "neon.h"
#endif

#define SUMS 12
#define LINE 64

typedef double (*multiply_function)(int64_t rounds);

// ---------------------------------------------------------------------------------------------------------------- portable

#define PORTABLE_LANES 16

// The compiler has to store and load the arrays again in each round, as it does in other portable code.
#define OPAQUE_MEMORY(p) __asm__ volatile("" : : "r"(p) : "memory")

static double portable_int8(int64_t rounds) {
    int32_t sums[PORTABLE_LANES] = {0};
    int8_t a[PORTABLE_LANES * 4], b[PORTABLE_LANES * 4];
    memset(a, 3, sizeof a);
    memset(b, 5, sizeof b);
    for (int64_t round = 0; round < rounds; round++) {
        OPAQUE_MEMORY(a);
        for (int i = 0; i < PORTABLE_LANES; i++) {
            int32_t dot = 0;
            for (int k = 0; k < 4; k++) dot += (int32_t)a[i * 4 + k] * b[i * 4 + k];
            sums[i] = (int32_t)((uint32_t)sums[i] + (uint32_t)dot);
        }
    }
    OPAQUE_MEMORY(sums);
    return (double)rounds * PORTABLE_LANES * 4 * 2;
}

static double portable_f32(int64_t rounds) {
    float sums[PORTABLE_LANES] = {0}, a[PORTABLE_LANES], b[PORTABLE_LANES];
    for (int i = 0; i < PORTABLE_LANES; i++) a[i] = b[i] = 0.5f;
    for (int64_t round = 0; round < rounds; round++) {
        OPAQUE_MEMORY(a);
        for (int i = 0; i < PORTABLE_LANES; i++) sums[i] += a[i] * b[i];
    }
    OPAQUE_MEMORY(sums);
    return (double)rounds * PORTABLE_LANES * 2;
}

static uint64_t portable_read(const uint8_t *data, size_t part, int32_t streams) {
    uint64_t sums[LINE / 8] = {0};
    for (size_t at = 0; at < part; at += LINE) {
        for (int32_t stream = 0; stream < streams; stream++) {
            uint64_t line[LINE / 8];
            memcpy(line, data + (size_t)stream * part + at, sizeof line);
            for (size_t i = 0; i < LINE / 8; i++) sums[i] += line[i];
        }
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < LINE / 8; i++) sum += sums[i];
    return sum;
}

// --------------------------------------------------------------------------------------------------------------------- x86

#if AK_X86
#define VNNI AK_AVX512_VNNI
#define BF16 AK_AVX512_BF16
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))

// Rounds of SUM = STEP(SUM); the sums are kept alive to the end.
#define MULTIPLY_LOOP(type, zero, count, step)                                                                                             \
    type sums[count];                                                                                                                      \
    _Pragma("unroll") for (int i = 0; i < (count); i++) sums[i] = zero;                                                                    \
    for (int64_t round = 0; round < rounds; round++) {                                                                                     \
        _Pragma("unroll") for (int i = 0; i < (count); i++) { step; }                                                                      \
    }                                                                                                                                      \
    _Pragma("unroll") for (int i = 0; i < (count); i++) OPAQUE(sums[i])

VNNI static double avx512_int8(int64_t rounds) {
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
    OPAQUE(a);
    OPAQUE(b);
    MULTIPLY_LOOP(__m512i, _mm512_setzero_si512(), SUMS, sums[i] = _mm512_dpbusd_epi32(sums[i], a, b));
    return (double)rounds * SUMS * 64 * 2;
}

BF16 static double avx512_bf16(int64_t rounds) {
    __m512i a = _mm512_set1_epi16(0x3c00), b = _mm512_set1_epi16(0x3c00);   // small enough for the sums to stay finite
    OPAQUE(a);
    OPAQUE(b);
    MULTIPLY_LOOP(__m512, _mm512_setzero_ps(), SUMS, sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)a, (__m512bh)b));
    return (double)rounds * SUMS * 32 * 2;
}

AK_AMX static double amx_bf16(int64_t rounds) {
    const uint16_t values[AK_AMX_ROWS][32] = {{0}};   // as fast as any
    ak_amx_shape(AK_AMX_ROWS, AK_AMX_ROWS);
    _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
    _tile_loadd(4, values, AK_LINE);
    _tile_loadd(5, values, AK_LINE);
    _tile_loadd(6, values, AK_LINE);
    _tile_loadd(7, values, AK_LINE);
    for (int64_t round = 0; round < rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)rounds * 4 * AK_AMX_ROWS * AK_AMX_ROWS * 32 * 2;
}

AK_AVX512 static double avx512_f32(int64_t rounds) {
    __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.5f);
    OPAQUE(a);
    OPAQUE(b);
    MULTIPLY_LOOP(__m512, _mm512_setzero_ps(), SUMS, sums[i] = _mm512_fmadd_ps(a, b, sums[i]));
    return (double)rounds * SUMS * 16 * 2;
}

// Without VNNI a dot product takes three instructions. The first operand is made unknown before each, or they would be made once.
AK_AVX2 static double avx2_int8(int64_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
    OPAQUE(b);
    OPAQUE(ones);
    MULTIPLY_LOOP(
        __m256i, _mm256_setzero_si256(), SUMS, OPAQUE(a);
        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones)));
    return (double)rounds * SUMS * 32 * 2;
}

__attribute__((target(AK_AVX2_FEATURES ",avxvnni"))) static double avxvnni_int8(int64_t rounds) {
    __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
    OPAQUE(a);
    OPAQUE(b);
    MULTIPLY_LOOP(__m256i, _mm256_setzero_si256(), SUMS, sums[i] = _mm256_dpbusd_avx_epi32(sums[i], a, b));
    return (double)rounds * SUMS * 32 * 2;
}

AK_AVX2 static double avx2_f32(int64_t rounds) {
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.5f);
    OPAQUE(a);
    OPAQUE(b);
    MULTIPLY_LOOP(__m256, _mm256_setzero_ps(), SUMS, sums[i] = _mm256_fmadd_ps(a, b, sums[i]));
    return (double)rounds * SUMS * 8 * 2;
}

#define AHEAD 2048   // prefetch distance in bytes

AK_AVX512 static uint64_t avx512_read(const uint8_t *data, size_t part, int32_t streams) {
    __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    size_t at = 0;
    for (; at + 4 * LINE <= part; at += 4 * LINE) {
        for (int32_t stream = 0; stream < streams; stream++) {
            const uint8_t *lines = data + (size_t)stream * part + at;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                _mm_prefetch((const char *)lines + AHEAD + i * LINE, _MM_HINT_T0);   // has no effect beyond the end
                sums[i] = _mm512_add_epi64(sums[i], _mm512_load_si512((const void *)(lines + i * LINE)));
            }
        }
    }
    for (; at < part; at += LINE)
        for (int32_t stream = 0; stream < streams; stream++)
            sums[0] = _mm512_add_epi64(sums[0], _mm512_load_si512((const void *)(data + (size_t)stream * part + at)));
    const __m512i all = _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
    return (uint64_t)_mm512_reduce_add_epi64(all);
}

AK_AVX2 static uint64_t avx2_read(const uint8_t *data, size_t part, int32_t streams) {
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
    for (size_t at = 0; at < part; at += LINE) {
        for (int32_t stream = 0; stream < streams; stream++) {
            const uint8_t *line = data + (size_t)stream * part + at;
            _mm_prefetch((const char *)line + AHEAD, _MM_HINT_T0);
            low = _mm256_add_epi64(low, _mm256_load_si256((const __m256i *)(const void *)line));
            high = _mm256_add_epi64(high, _mm256_load_si256((const __m256i *)(const void *)(line + LINE / 2)));
        }
    }
    uint64_t parts[4];
    _mm256_storeu_si256((__m256i *)(void *)parts, _mm256_add_epi64(low, high));
    return parts[0] + parts[1] + parts[2] + parts[3];
}
#endif

// -------------------------------------------------------------------------------------------------------------------- NEON

#if AK_ARM
#define OPAQUE(x) __asm__ volatile("" : "+w"(x))

__attribute__((target("dotprod"))) static double neon_int8(int64_t rounds) {
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
    OPAQUE(a);
    OPAQUE(b);
    int32x4_t sums[SUMS];
    for (int i = 0; i < SUMS; i++) sums[i] = vdupq_n_s32(0);
    for (int64_t round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) sums[i] = vdotq_s32(sums[i], a, b);
    }
    for (int i = 0; i < SUMS; i++) OPAQUE(sums[i]);
    return (double)rounds * SUMS * 16 * 2;
}

static double neon_f32(int64_t rounds) {
    float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.5f);
    OPAQUE(a);
    OPAQUE(b);
    float32x4_t sums[SUMS];
    for (int i = 0; i < SUMS; i++) sums[i] = vdupq_n_f32(0);
    for (int64_t round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) sums[i] = vfmaq_f32(sums[i], a, b);
    }
    for (int i = 0; i < SUMS; i++) OPAQUE(sums[i]);
    return (double)rounds * SUMS * 4 * 2;
}
#endif

// ------------------------------------------------------------------------------------------------------------- which to use

typedef struct {
    const char *instructions;
    multiply_function run;
} multiply_loop;

static multiply_loop multiply(ak_ceiling kind) {
    const multiply_loop none = {NULL, NULL};
#if AK_X86
    switch (kind) {
        case AK_CEILING_INT8:
            if (ak_avx512_available() && ak_avx512_has_vnni()) return (multiply_loop){"vpdpbusd zmm", avx512_int8};
            if (ak_has_avxvnni()) return (multiply_loop){"vpdpbusd ymm", avxvnni_int8};
            if (ak_avx2_available()) return (multiply_loop){"vpmaddubsw, vpmaddwd, vpaddd ymm", avx2_int8};
            return (multiply_loop){"portable", portable_int8};
        case AK_CEILING_BF16:
            if (ak_amx_available()) return (multiply_loop){"tdpbf16ps", amx_bf16};
            if (ak_avx512_available() && ak_avx512_has_bf16()) return (multiply_loop){"vdpbf16ps zmm", avx512_bf16};
            return none;
        case AK_CEILING_F32:
            if (ak_avx512_available()) return (multiply_loop){"vfmadd zmm", avx512_f32};
            if (ak_avx2_available()) return (multiply_loop){"vfmadd ymm", avx2_f32};
            return (multiply_loop){"portable", portable_f32};
    }
#elif AK_ARM
    switch (kind) {
        case AK_CEILING_INT8:
            if (ak_neon_has_dot()) return (multiply_loop){"sdot", neon_int8};
            return (multiply_loop){"portable", portable_int8};
        case AK_CEILING_BF16: return none;
        case AK_CEILING_F32: return (multiply_loop){"fmla", neon_f32};
    }
#else
    switch (kind) {
        case AK_CEILING_INT8: return (multiply_loop){"portable", portable_int8};
        case AK_CEILING_BF16: return none;
        case AK_CEILING_F32: return (multiply_loop){"portable", portable_f32};
    }
#endif
    return none;
}

const char *ak_ceiling_instructions(ak_ceiling kind) { return multiply(kind).instructions; }

double ak_ceiling_multiply(ak_ceiling kind, int64_t rounds) {
    const multiply_loop loop = multiply(kind);
    return loop.run != NULL && rounds > 0 ? loop.run(rounds) : 0;
}

uint64_t ak_ceiling_read(const void *data, size_t bytes, int32_t streams) {
    if (streams < 1) streams = 1;
    const size_t part = bytes / (size_t)streams / LINE * LINE;
    const uint8_t *rest = (const uint8_t *)data + part * (size_t)streams;
    uint64_t sum = portable_read(rest, bytes / LINE * LINE - part * (size_t)streams, 1);
#if AK_X86
    if (ak_avx512_available()) return sum + avx512_read(data, part, streams);
    if (ak_avx2_available()) return sum + avx2_read(data, part, streams);
#endif
    return sum + portable_read(data, part, streams);
}
