// Shared by the NEON files. 64-bit ARM always has these instructions except the 8-bit dot products, which are detected at run time.
#pragma once
#include "approximations.h"
#include "internal.h"

#if AK_ARM
#include <arm_neon.h>

// 1 if the processor has the 8-bit dot products.
int ak_neon_has_dot(void);

extern const ak_kernels ak_neon_kernels;
extern const ak_tuning ak_neon_tuning;

void ak_neon_matmul(float *out, size_t ldo, const ak_activations *act, const ak_matrix *weight, const float *bias,
                    const int32_t *panels, int32_t panel_count, const int32_t *blocks, int32_t block_count, int32_t flags, const ak_upcoming *upcoming, void *scratch);
void ak_neon_attention(float *out, size_t ldo, const float *q, size_t ldq, const ak_paged_head *kv, int32_t positions,
                       int32_t queries, int32_t first, int32_t window, float scale, void *scratch);
void ak_neon_attention_span(float *out, size_t ldo, float *logs, const float *q, size_t ldq, const void *k, const void *v, ak_type kv_type,
                            int32_t head_dim, int32_t skip, int32_t keys, int32_t queries, float scale, const void *next, void *scratch);

AK_INLINE float32x4_t ak_load_half4(const uint16_t *halves) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves))); }

// e^x with a relative error below 2e-7; zero below about -104, infinity above about 88.7, NaN for NaN.
AK_INLINE float32x4_t ak_exp4(float32x4_t x) {
    const float32x4_t clamped = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-110.0f)), vdupq_n_f32(100.0f));
    const float32x4_t n = vrndnq_f32(vmulq_f32(clamped, vdupq_n_f32(AK_LOG2_E)));
    float32x4_t r = vfmsq_f32(clamped, n, vdupq_n_f32(AK_LN2_HIGH));
    r = vfmsq_f32(r, n, vdupq_n_f32(AK_LN2_LOW));
    float32x4_t p = vdupq_n_f32(AK_EXP_4);
    p = vfmaq_f32(vdupq_n_f32(AK_EXP_3), p, r);
    p = vfmaq_f32(vdupq_n_f32(AK_EXP_2), p, r);
    p = vfmaq_f32(vdupq_n_f32(AK_EXP_1), p, r);
    p = vfmaq_f32(vdupq_n_f32(AK_EXP_0), p, r);
    const float32x4_t y = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), vmulq_f32(r, r), p);
    // 2^n in two factors, because n can be outside the range of float exponents. (For NaN any n will do.)
    const int32x4_t power = vcvtq_s32_f32(n), half = vshrq_n_s32(power, 1), bias = vdupq_n_s32(127);
    const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(power, half), bias), 23);
    return vmulq_f32(vmulq_f32(y, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}
#endif
