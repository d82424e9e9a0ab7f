// Gradient checkpointing (Chen et al., 2016): keep a layer's input, compute the layer again on the way back.
#pragma once

#include <functional>

#include "Model.h"

namespace adatorch {

using LayerBody = std::function<Tensor(const std::vector<Tensor> &)>;

// body(the first `own` inputs), whose gradient also flows to the other inputs: the parameters that the body reads itself.
Tensor checkpointed(const std::vector<Tensor> &inputs, size_t own, LayerBody body);

} // namespace adatorch
