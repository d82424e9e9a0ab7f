// The scheduler's sampling as one differentiable operation.
#pragma once

#include "Model.h"

namespace adatorch {

// Gumbel noise, given or drawn. Draws are SplitMix64's, so they are the same on every machine.
class Noise {
public:
    Noise(const float *given, const float *end) : given_(given), end_(end) {}
    explicit Noise(uint64_t seed) : state_(seed) {}
    std::vector<float> take(size_t count);
    const float *position() const { return given_; }

private:
    const float *given_ = nullptr, *end_ = nullptr;
    uint64_t state_ = 0;
};

// Hard samples of the switches with their straight-through gradient (AdaLLaVA, section 3.3; docs/architecture.md, reference semantics).
// logits (samples, switches) float32 on any device; returns (samples, switches) of zeros and ones. noise scales the Gumbel noise; salt changes
// which noise the batch's seeds give.
Tensor select_switches(const Tensor &logits, const at_config &config, const at_batch &batch, float noise, uint64_t salt = 0);

} // namespace adatorch
