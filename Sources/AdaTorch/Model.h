// The model's parameters and its differentiable forward pass.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "AdaTorch.h"

namespace adatorch {

using at::Tensor;

struct Parameter {
    std::string name;
    Tensor value;    // a leaf, float32
    Tensor gradient; // undefined: none yet
    Tensor first_moment, second_moment;
    double learning_rate = 0, weight_decay = 0;
    bool trained() const { return learning_rate > 0; }
};

// Intermediate tensors of a forward pass with the reference's names, for comparison with recorded numbers.
struct Intermediates {
    std::vector<std::pair<std::string, Tensor>> tensors;
    void keep(const char *name, const Tensor &tensor) { tensors.emplace_back(name, tensor); }
};

// The places of a batch's tokens.
struct Places {
    Tensor cosines, sines; // of their positions: (positions, head_dim / 2), or with samples before that
    Tensor mask;           // (samples, 1, positions, positions), 0 or -infinity; undefined: causal, or as spans say
    Tensor spans;          // (samples or 1, positions, 2) int32, for span_attention; undefined where that does not work
    Tensor wanted;         // the places among (samples * positions) whose outputs a layer gives, one row each; undefined: all, in x's shape
};

// Sums over the scored positions of a batch.
struct Loss {
    Tensor sum, distill, naming, balance, ranking; // scalars; undefined without the term. The last two are means over samples
    int64_t scored = 0;
    std::vector<int64_t> counts; // as at_step_options' region_counts
};

} // namespace adatorch

struct at_model {
    at_config config{};
    std::vector<std::string> lora_targets;
    std::vector<int64_t> label_classes; // of each slot
    std::vector<adatorch::Parameter> parameters;
    std::unordered_map<std::string, size_t> index;
    at::Device device = at::kCPU;
    at::ScalarType compute_type = at::kFloat;
    at::Tensor inverse_frequencies; // (head_dim / 2)
    at::Tensor group_of_neuron;     // (intermediate_size)

    explicit at_model(const at_config &config);

    const adatorch::Parameter &parameter(const std::string &name) const;
    const at::Tensor &weight(const std::string &name) const { return parameter(name).value; }
    bool has(const std::string &name) const { return index.count(name) != 0; }
    bool trains(const std::string &prefix) const;

    // W x + b, with the LoRA path where there is one.
    at::Tensor linear(const at::Tensor &x, const std::string &name) const;

    // Several such products of one x, as one where all are plain: x is read once, forward and backward.
    std::vector<at::Tensor> linears(const at::Tensor &x, const std::string &prefix, const std::vector<std::string> &names) const;

    // A parameter's value, LoRA's product added where there is one.
    at::Tensor merged(const adatorch::Parameter &parameter) const;

    adatorch::Loss forward(
        const at_batch &batch, const at_step_options &options, adatorch::Intermediates *intermediates) const;

private:
    void add(const std::string &name, std::vector<int64_t> shape);
    void add_linear(const std::string &name, int64_t outputs, int64_t inputs, bool bias);
    void add_decoder();
    void add_vision();
    void add_scheduler();
    int64_t rows_per_image() const;

    at::Tensor tower_features(const at_batch &batch) const;
    at::Tensor project(at::Tensor features) const;
    adatorch::Loss region_loss(const at_batch &batch) const;
    at::Tensor naming_loss(const at_batch &batch, const at::Tensor &projected, adatorch::Loss &loss) const;
    at::Tensor latency_embedding(const at_batch &batch) const;
    adatorch::Places positions(const at_batch &batch) const;
    at::Tensor decoder_layer(
        int64_t layer, const at::Tensor &x, const at::Tensor &heads, const at::Tensor &neurons,
        const adatorch::Places &places) const;
    at::Tensor maybe_checkpointed(
        int64_t layer, const at::Tensor &x, const at::Tensor &heads, const at::Tensor &neurons,
        const adatorch::Places &places) const;
    at::Tensor output_logits(at::Tensor x) const;
};
