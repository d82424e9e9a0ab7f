#include "Operations.h"

#include <torch/version.h>

#include <cmath>

namespace adatorch {

Tensor rms_norm(const Tensor &x, const Tensor &weight, double epsilon, at::ScalarType type) {
    const Tensor wide = x.to(at::kFloat);
    return (weight * (wide * at::rsqrt(wide.square().mean(-1, true) + epsilon))).to(type);
}

Tensor layer_norm(const Tensor &x, const Tensor &weight, const Tensor &bias, double epsilon, at::ScalarType type) {
    return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, weight, bias, epsilon).to(type);
}

Tensor rotate(const Tensor &x, const Tensor &cosines, const Tensor &sines) {
    const auto halves = x.chunk(2, -1);
    const Tensor c = cosines.unsqueeze(-2), s = sines.unsqueeze(-2); // (…, positions, 1, head_dim / 2)
    return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

Tensor attention(const Tensor &query, const Tensor &key, const Tensor &value, bool causal, const Tensor &mask) {
#if TORCH_VERSION_MAJOR >= 2
    if (mask.defined()) return at::scaled_dot_product_attention(query, key, value, mask.to(query.scalar_type()), 0.0, false);
    return at::scaled_dot_product_attention(query, key, value, {}, 0.0, causal);
#else
    Tensor scores = at::matmul(query * (1 / std::sqrt(double(query.size(-1)))), key.transpose(-2, -1));
    if (mask.defined()) {
        scores = scores + mask.to(scores.scalar_type());
    } else if (causal) {
        const int64_t length = query.size(-2);
        scores = scores + at::full({length, length}, -INFINITY, scores.options()).triu_(1);
    }
    return at::matmul(at::softmax(scores, -1), value);
#endif
}

Tensor gated(const Tensor &gate, const Tensor &up) { return at::silu(gate) * up; }

} // namespace adatorch
