// Which parameters a model has: the names and shapes of the reference's checkpoints (the tower's without their outer prefix).
#include "Model.h"

using adatorch::Parameter;

static void require(bool holds, const char *what) {
    if (!holds) throw std::invalid_argument(std::string("the configuration is not usable: ") + what);
}

at_model::at_model(const at_config &given) : config(given) {
    const auto &c = config;
    require(c.vocabulary_size > 0 && c.hidden_size > 0 && c.intermediate_size > 0 && c.layers > 0, "sizes must be positive");
    require(c.heads > 0 && c.key_value_heads > 0 && c.heads % c.key_value_heads == 0, "key-value heads must divide the heads");
    require(c.head_dim > 1 && c.head_dim % 2 == 0 && c.inverse_frequencies, "head_dim must be even and have rotary frequencies");
    require(c.scheduler == AT_SCHEDULER_NONE || (c.prefix_layers > 0 && c.prefix_layers < c.layers), "prefix layers");
    require(c.scheduler != AT_SCHEDULER_HEADS || (c.scheduler_rank > 0 && c.scheduler_rank <= c.heads), "scheduler rank");
    require(c.scheduler == AT_SCHEDULER_NONE || c.temperature > 0, "the temperature must be positive");
    require(c.image_size == 0 || (c.patch_size > 0 && c.patch_size <= c.image_size && c.vision_hidden_size > 0 && c.vision_heads > 0
            && c.vision_hidden_size % c.vision_heads == 0 && c.vision_layers >= 0), "the vision tower's sizes");
    require(c.vision_hidden_size == 0 || c.image_size > 0 || c.feature_rows > 0, "features need a number of rows");
    require(c.label_slots == 0 || (c.vision_hidden_size > 0 && c.label_classes), "region labels need a vision tower");
    for (int32_t slot = 0; slot < c.label_slots; slot++) {
        require(c.label_classes[slot] > 1, "a region label needs two classes");
        label_classes.push_back(c.label_classes[slot]);
    }
    config.label_classes = nullptr;
    if (c.device >= 0) device = at::Device(at::kCUDA, static_cast<int8_t>(c.device));
    compute_type = c.bfloat16 ? at::kBFloat16 : at::kFloat;

    std::string targets = c.lora_rank > 0 && c.lora_targets ? c.lora_targets : "";
    for (size_t start = 0; start < targets.size();) {
        const size_t end = std::min(targets.find(',', start), targets.size());
        if (end > start) lora_targets.push_back(targets.substr(start, end - start));
        start = end + 1;
    }
    config.lora_targets = nullptr;

    inverse_frequencies = at::empty({c.head_dim / 2}, at::kFloat);
    std::copy_n(c.inverse_frequencies, c.head_dim / 2, inverse_frequencies.data_ptr<float>());
    inverse_frequencies = inverse_frequencies.to(device);
    config.inverse_frequencies = nullptr;

    // The first `intermediate % heads` groups have one neuron more.
    group_of_neuron = at::empty({c.intermediate_size}, at::kLong);
    int64_t *group = group_of_neuron.data_ptr<int64_t>();
    for (int64_t head = 0; head < c.heads; head++) {
        const int64_t size = c.intermediate_size / c.heads + (head < c.intermediate_size % c.heads ? 1 : 0);
        for (int64_t i = 0; i < size; i++) *group++ = head;
    }
    group_of_neuron = group_of_neuron.to(device);

    add_decoder();
    if (c.vision_hidden_size > 0) add_vision();
    if (c.scheduler != AT_SCHEDULER_NONE) add_scheduler();
}

const Parameter &at_model::parameter(const std::string &name) const {
    const auto found = index.find(name);
    if (found == index.end()) throw std::out_of_range("no parameter is called " + name);
    return parameters[found->second];
}

bool at_model::trains(const std::string &prefix) const {
    for (const auto &parameter : parameters)
        if (parameter.trained() && parameter.name.compare(0, prefix.size(), prefix) == 0) return true;
    return false;
}

void at_model::add(const std::string &name, std::vector<int64_t> shape) {
    index[name] = parameters.size();
    Parameter parameter;
    parameter.name = name;
    parameter.value = at::zeros(shape, at::TensorOptions().dtype(at::kFloat).device(device));
    parameters.push_back(std::move(parameter));
}

void at_model::add_linear(const std::string &name, int64_t outputs, int64_t inputs, bool bias) {
    add(name + ".weight", {outputs, inputs});
    if (bias) add(name + ".bias", {outputs});
    for (const auto &target : lora_targets) {
        const bool matches = name.size() > target.size() && name.compare(name.size() - target.size() - 1, std::string::npos, "." + target) == 0;
        if (!matches || name.compare(0, 13, "model.layers.") != 0) continue;
        add(name + ".lora_A.weight", {config.lora_rank, inputs});
        add(name + ".lora_B.weight", {outputs, config.lora_rank});
    }
}

void at_model::add_decoder() {
    const auto &c = config;
    const int64_t queries = int64_t(c.heads) * c.head_dim, keys = int64_t(c.key_value_heads) * c.head_dim;
    add("model.embed_tokens.weight", {c.vocabulary_size, c.hidden_size});
    for (int64_t layer = 0; layer < c.layers; layer++) {
        const std::string name = "model.layers." + std::to_string(layer) + ".";
        add(name + "input_layernorm.weight", {c.hidden_size});
        add_linear(name + "self_attn.q_proj", queries, c.hidden_size, c.attention_bias);
        add_linear(name + "self_attn.k_proj", keys, c.hidden_size, c.attention_bias);
        add_linear(name + "self_attn.v_proj", keys, c.hidden_size, c.attention_bias);
        add_linear(name + "self_attn.o_proj", c.hidden_size, queries, c.attention_bias);
        add(name + "post_attention_layernorm.weight", {c.hidden_size});
        add_linear(name + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
        add_linear(name + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
        add_linear(name + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
    }
    add("model.norm.weight", {c.hidden_size});
    if (!c.tied_embeddings) add("lm_head.weight", {c.vocabulary_size, c.hidden_size});
}

void at_model::add_vision() {
    const auto &c = config;
    const int64_t hidden = c.vision_hidden_size;
    if (c.image_size > 0) {
        const int64_t side = c.image_size / c.patch_size;
        const std::string embeddings = "vision_model.embeddings.";
        add(embeddings + "class_embedding", {hidden});
        add(embeddings + "patch_embedding.weight", {hidden, 3, c.patch_size, c.patch_size});
        add(embeddings + "position_embedding.weight", {side * side + 1, hidden});
        for (const char *part : {"weight", "bias"}) add(std::string("vision_model.pre_layrnorm.") + part, {hidden});
        for (int64_t layer = 0; layer < c.vision_layers; layer++) {
            const std::string name = "vision_model.encoder.layers." + std::to_string(layer) + ".";
            for (const char *norm : {"layer_norm1", "layer_norm2"})
                for (const char *part : {".weight", ".bias"}) add(name + norm + part, {hidden});
            for (const char *part : {"q_proj", "k_proj", "v_proj", "out_proj"}) add_linear(name + "self_attn." + part, hidden, hidden, true);
            add_linear(name + "mlp.fc1", c.vision_intermediate_size, hidden, true);
            add_linear(name + "mlp.fc2", hidden, c.vision_intermediate_size, true);
        }
    }
    if (c.projector_layers == 1) add_linear("model.mm_projector", c.hidden_size, hidden, c.projector_bias);
    for (int64_t layer = 0; c.projector_layers > 1 && layer < c.projector_layers; layer++)
        add_linear("model.mm_projector." + std::to_string(2 * layer), c.hidden_size, layer == 0 ? hidden : c.hidden_size, c.projector_bias);
    int64_t classes = 0;
    for (int64_t count : label_classes) classes += count;
    if (classes > 0) add_linear("region_labels", classes, hidden, true);
}

int64_t at_model::rows_per_image() const {
    if (config.image_size == 0) return config.feature_rows;
    const int64_t side = config.image_size / config.patch_size;
    return side * side + (config.keeps_class_token ? 1 : 0);
}

void at_model::add_scheduler() {
    const auto &c = config;
    const std::string encoder = "scheduler.scheduler_up_proj.net.";
    for (const char *part : {"0.weight", "0.bias"}) add(encoder + part, {256});
    add_linear(encoder + "1", c.hidden_size, 256, true);
    add_linear(encoder + "3", c.hidden_size, c.hidden_size, true);
    const int64_t optional = c.layers - c.prefix_layers;
    add_linear("scheduler.mlp_head", c.scheduler == AT_SCHEDULER_LAYERS ? optional : optional * 2 * c.heads, c.hidden_size, true);
}

at::Tensor at_model::linear(const at::Tensor &x, const std::string &name) const {
    auto cast = [&](const std::string &part) { return weight(part).to(x.scalar_type()); };
    at::Tensor y = has(name + ".bias") ? at::linear(x, cast(name + ".weight"), cast(name + ".bias")) : at::linear(x, cast(name + ".weight"));
    if (config.lora_rank > 0 && has(name + ".lora_A.weight")) {
        const at::Tensor low = at::linear(x, cast(name + ".lora_A.weight"));
        y = y + at::linear(low, cast(name + ".lora_B.weight")) * (config.lora_alpha / float(config.lora_rank));
    }
    return y;
}

std::vector<at::Tensor> at_model::linears(const at::Tensor &x, const std::string &prefix, const std::vector<std::string> &names) const {
    bool plain = true;
    std::vector<at::Tensor> weights, results;
    std::vector<int64_t> sizes;
    for (const auto &name : names) {
        plain = plain && !has(prefix + name + ".bias") && !(config.lora_rank > 0 && has(prefix + name + ".lora_A.weight"));
        weights.push_back(weight(prefix + name + ".weight"));
        sizes.push_back(weights.back().size(0));
    }
    if (plain) return at::split_with_sizes(at::linear(x, at::cat(weights, 0).to(x.scalar_type())), sizes, -1);
    for (const auto &name : names) results.push_back(linear(x, prefix + name));
    return results;
}

at::Tensor at_model::merged(const Parameter &parameter) const {
    const std::string suffix = ".weight";
    const size_t end = parameter.name.size() - std::min(parameter.name.size(), suffix.size());
    const std::string module = parameter.name.substr(0, end);
    if (parameter.name.compare(end, std::string::npos, suffix) != 0 || !has(module + ".lora_A.weight")) return parameter.value;
    const double scale = double(config.lora_alpha) / double(config.lora_rank);
    return parameter.value + at::matmul(weight(module + ".lora_B.weight"), weight(module + ".lora_A.weight")) * scale;
}
