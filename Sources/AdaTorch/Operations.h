// The operations that both transformers are made of.
#pragma once

#include "Model.h"

namespace adatorch {

// x / rms(x) * weight in float32, given on in `type`.
Tensor rms_norm(const Tensor &x, const Tensor &weight, double epsilon, at::ScalarType type);

Tensor layer_norm(const Tensor &x, const Tensor &weight, const Tensor &bias, double epsilon, at::ScalarType type);

// Rotary position embedding of x (samples, positions, heads, head_dim), pairs (i, i + head_dim / 2); cosines, sines (positions, head_dim / 2).
Tensor rotate(const Tensor &x, const Tensor &cosines, const Tensor &sines);

// softmax(q k^T / sqrt(d)) v; all (samples, heads, positions, d). Causal: a position sees itself and those before it.
Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value, bool causal);

// silu(gate) * up.
Tensor gated(const Tensor &gate, const Tensor &up);

} // namespace adatorch
