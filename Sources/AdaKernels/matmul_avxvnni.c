// Products for processors with AVX-VNNI and without AVX-512: tiles of vnni256.h, and AVX2's other kernels. AVX2's GEMV reaches memory bandwidth already.
#include "avx2.h"

#if AK_X86
#define VNNI_TARGET __attribute__((target(AK_AVX2_FEATURES ",avxvnni")))
#define VNNI_INLINE static inline __attribute__((always_inline, target(AK_AVX2_FEATURES ",avxvnni")))
#define DOT _mm256_dpbusd_avx_epi32
#define VNNI_PARTS ak_vnni256_vex
#include "vnni256.h"

// Attention with 8-bit keys and values.
#define Q8_TARGET VNNI_TARGET
#define Q8_INLINE VNNI_INLINE
#define Q8_DOT DOT
#define Q8_START(query) (query).start
#define Q8_ADD_PAIRS _mm256_dpwssd_avx_epi32
#define Q8_SCORES ak_vex_q8_scores
#define Q8_COMBINE ak_vex_q8_combine
#include "q8_attention256.h"

void ak_avxvnni_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                       const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags,
                       const ak_upcoming *upcoming, void *scratch) {
    const ak_vnni256 *vnni = ak_has_avxvnni() ? &ak_vnni256_vex : &ak_vnni256_evex;
    ak_matmul_parts parts = ak_avx2_matmul_parts;
    parts.q8 = vnni->q8, parts.q4_0 = vnni->q4_0, parts.q4_1 = vnni->q4_1;
    parts.wide_q8 = parts.wide_q4_0 = parts.wide_q4_1 = NULL;
    ak_matmul_with(&parts, out, ldo, act, weight, bias, panels, panel_count, blocks, block_count, flags, upcoming, scratch);
}
#endif
