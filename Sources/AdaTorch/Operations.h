// The operations that both transformers are made of.
#pragma once

#include "Model.h"

namespace adatorch {

// x / rms(x) * weight in float32, given on in `type`.
Tensor rms_norm(const Tensor &x, const Tensor &weight, double epsilon, at::ScalarType type);

Tensor layer_norm(const Tensor &x, const Tensor &weight, const Tensor &bias, double epsilon, at::ScalarType type);

// Rotary position embedding of x (samples, positions, heads, head_dim), pairs (i, i + head_dim / 2); cosines, sines (positions, head_dim / 2), or
// with samples before that.
Tensor rotate(const Tensor &x, const Tensor &cosines, const Tensor &sines);

// softmax(q k^T / sqrt(d) + mask) v; all (samples, heads, positions, d). Causal: a position sees itself and those before it; with a mask
// (samples, 1, positions, positions), 0 or -infinity, the mask alone decides.
Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value, bool causal, const Tensor &mask = {});

// The same over spans (samples or 1, positions, 2) int32, as AttentionKernel.h has them; q, k, v and the result (samples, positions, heads, d).
// Float32 on the CPU, d a multiple of 8.
Tensor span_attention(const Tensor &query, const Tensor &key, const Tensor &value, const Tensor &spans);

// silu(gate) * up.
Tensor gated(const Tensor &gate, const Tensor &up);

} // namespace adatorch
