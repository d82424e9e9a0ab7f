// Constants of the vector versions of exp and of the normal distribution, fitted to the least largest error.
#pragma once

// e^x = 2^n e^r with n = round(x log2 e), r = x - n ln 2; ln 2 in two parts, the first with few enough bits for an exact product.
#define AK_LOG2_E 0x1.715476p+0f
#define AK_LN2_HIGH 0x1.62e4p-1f
#define AK_LN2_LOW 0x1.7f7d1cp-20f
// e^r = 1 + r + r^2 p(r) for |r| <= ln 2 / 2, relative error 3e-9.
#define AK_EXP_0 0x1.fffffcp-2f
#define AK_EXP_1 0x1.555492p-3f
#define AK_EXP_2 0x1.5558f2p-5f
#define AK_EXP_3 0x1.1239e8p-7f
#define AK_EXP_4 0x1.6a2436p-10f

// 2^r = p(r) for 0 <= r <= 1, relative error 8e-8.
#define AK_EXP2_0 0x1.fffffep-1f
#define AK_EXP2_1 0x1.62e4f6p-1f
#define AK_EXP2_2 0x1.ebd5a8p-3f
#define AK_EXP2_3 0x1.c95446p-5f
#define AK_EXP2_4 0x1.26900cp-7f
#define AK_EXP2_5 0x1.ec320ap-10f

// The normal distribution function, Phi(x) = (1 + erf(x / sqrt 2)) / 2, that GELU multiplies with.
// |x| <= 1.5: Phi(x) = 1/2 + x p(x^2), absolute error 1e-9.
#define AK_PHI_LIMIT 1.5f
#define AK_PHI_NEAR_0 0x1.988452p-2f
#define AK_PHI_NEAR_1 -0x1.10581ap-4f
#define AK_PHI_NEAR_2 0x1.46cbaep-7f
#define AK_PHI_NEAR_3 -0x1.36f0c4p-10f
#define AK_PHI_NEAR_4 0x1.de9760p-14f
#define AK_PHI_NEAR_5 -0x1.2193b6p-17f
#define AK_PHI_NEAR_6 0x1.ad156ep-22f
// Beyond: 1 - Phi(|x|) = e^-p(|x|), absolute error 6e-9; p grows without end.
#define AK_PHI_FAR_0 0x1.648eaap-1f
#define AK_PHI_FAR_1 0x1.93dc9ep-1f
#define AK_PHI_FAR_2 0x1.505df6p-2f
#define AK_PHI_FAR_3 0x1.f855f0p-6f
#define AK_PHI_FAR_4 -0x1.d450a2p-9f
#define AK_PHI_FAR_5 0x1.94a102p-13f

// gelu_tanh(x) = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), because (1 + tanh u) / 2 = sigmoid(2 u).
#define AK_GELU_TANH_SCALE 1.5957691216057308f
#define AK_GELU_TANH_CUBE 0.044715f
#define AK_GELU_QUICK_SCALE 1.702f
