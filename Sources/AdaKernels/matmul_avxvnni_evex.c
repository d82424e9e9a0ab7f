// The products of matmul_avxvnni.c for processors that have 256-bit vpdpbusd as a part of AVX-512 only. They are for tests, because such processors
// run the faster avx512 kernels.
#include "avx2.h"

#if AK_X86
#define EVEX_FEATURES AK_AVX2_FEATURES ",avx512f,avx512vl,avx512vnni"
#define VNNI_TARGET __attribute__((target(EVEX_FEATURES)))
#define VNNI_INLINE static inline __attribute__((always_inline, target(EVEX_FEATURES)))
#define DOT _mm256_dpbusd_epi32
#define VNNI_PARTS ak_vnni256_evex
#include "vnni256.h"

// Attention with 8-bit keys and values.
#define Q8_TARGET VNNI_TARGET
#define Q8_INLINE VNNI_INLINE
#define Q8_DOT DOT
#define Q8_START(query) (query).start
#define Q8_ADD_PAIRS _mm256_dpwssd_epi32
#define Q8_SCORES ak_evex_q8_scores
#define Q8_COMBINE ak_evex_q8_combine
#include "q8_attention256.h"
#endif
