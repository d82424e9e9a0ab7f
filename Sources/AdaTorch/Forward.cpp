// From a batch to its loss: tower, projector, latency encoder, prefix layers, scheduler, the remaining layers under the sampled plan.
#include <algorithm>
#include <cmath>

#include "AttentionKernel.h"
#include "Checkpointing.h"
#include "Operations.h"
#include "Selection.h"

using adatorch::Intermediates;
using adatorch::Loss;
using adatorch::Places;
using at::Tensor;

namespace {

Tensor from_host(const void *values, at::IntArrayRef shape, at::ScalarType type, at::Device device) {
    const Tensor view = at::from_blob(const_cast<void *>(values), shape, at::TensorOptions().dtype(type));
    return device.is_cpu() ? view : view.to(device);
}

// Minus the information that a sample gives about its first switch, in nats: the mean entropy of the switches' probabilities, which is low where
// each sample is sure, less the entropy of their mean, which is high where samples differ. logits (samples, switches).
Tensor balance(const Tensor &logits) {
    const Tensor p = at::softmax(logits, 1), mean = p.mean(0);
    const auto entropy = [](const Tensor &q, int64_t dimension) { return -(q * (q + 1e-9).log()).sum(dimension); };
    return entropy(p, 1).mean() - entropy(mean, 0);
}

Tensor activate(const Tensor &x, int32_t activation) {
    switch (activation) {
    case AT_QUICK_GELU: return x * at::sigmoid(1.702 * x);
    case AT_GELU_TANH: return at::gelu(x, "tanh");
    default: return at::gelu(x);
    }
}

} // namespace

// The tower's features of all images, (images * rows, vision_hidden_size).
Tensor at_model::tower_features(const at_batch &batch) const {
    const auto &c = config;
    if (c.image_size == 0) return from_host(batch.pixels, {batch.images * rows_per_image(), c.vision_hidden_size}, at::kFloat, device);
    // A frozen tower needs no graph; the projector after it may.
    Tensor features;
    {
        torch::autograd::AutoGradMode mode(at::GradMode::is_enabled() && trains("vision_model."));
        const int64_t hidden = c.vision_hidden_size, heads = c.vision_heads;
        const Tensor pixels = from_host(batch.pixels, {batch.images, 3, c.image_size, c.image_size}, at::kFloat, device);
        const std::string embeddings = "vision_model.embeddings.";
        const Tensor patches = at::conv2d(
            pixels.to(compute_type), weight(embeddings + "patch_embedding.weight").to(compute_type), {}, c.patch_size);
        const Tensor first = weight(embeddings + "class_embedding").expand({batch.images, 1, hidden});
        Tensor x = at::cat({first, patches.flatten(2).transpose(1, 2).to(at::kFloat)}, 1) + weight(embeddings + "position_embedding.weight");
        auto norm = [&](const Tensor &y, const std::string &name, at::ScalarType type) {
            return adatorch::layer_norm(y, weight(name + ".weight"), weight(name + ".bias"), c.vision_epsilon, type);
        };
        x = norm(x, "vision_model.pre_layrnorm", at::kFloat);
        for (int64_t layer = 0; layer < c.vision_layers; layer++) {
            const std::string name = "vision_model.encoder.layers." + std::to_string(layer) + ".";
            const Tensor normed = norm(x, name + "layer_norm1", compute_type);
            auto split = [&](const char *part) {
                return linear(normed, name + "self_attn." + part).view({batch.images, -1, heads, hidden / heads}).transpose(1, 2);
            };
            const Tensor attended = adatorch::attention(split("q_proj"), split("k_proj"), split("v_proj"), false);
            x = x + linear(attended.transpose(1, 2).reshape({batch.images, -1, hidden}), name + "self_attn.out_proj");
            const Tensor middle = activate(linear(norm(x, name + "layer_norm2", compute_type), name + "mlp.fc1"), c.vision_activation);
            x = x + linear(middle, name + "mlp.fc2");
        }
        features = c.keeps_class_token ? x : x.slice(1, 1);
    }
    return features.reshape({-1, c.vision_hidden_size});
}

// The projector: (rows, vision_hidden_size) to (rows, hidden_size).
Tensor at_model::project(Tensor features) const {
    const auto &c = config;
    features = features.to(compute_type);
    if (c.projector_layers == 1) features = linear(features, "model.mm_projector");
    for (int64_t layer = 0; c.projector_layers > 1 && layer < c.projector_layers; layer++) {
        if (layer > 0) features = at::gelu(features);
        features = linear(features, "model.mm_projector." + std::to_string(2 * layer));
    }
    return features.to(at::kFloat);
}

// Cross entropy of the region labels, summed over rows and slots, and of the tokens that name a row's content.
Loss at_model::region_loss(const at_batch &batch) const {
    if (label_classes.empty()) throw std::invalid_argument("the batch has region labels, but the model has no head for them");
    const int64_t slots = int64_t(label_classes.size()), rows = batch.images * rows_per_image();
    const Tensor features = tower_features(batch);
    const Tensor logits = linear(features.to(compute_type), "region_labels").to(at::kFloat);
    const Tensor labels = from_host(batch.region_labels, {rows, slots}, at::kInt, device).to(at::kLong);
    Loss loss;
    int64_t first = 0;
    for (int64_t slot = 0; slot < slots; slot++) {
        const int64_t classes = label_classes[size_t(slot)];
        const Tensor wanted = labels.select(1, slot);
        if (wanted.max().item<int64_t>() >= classes) throw std::invalid_argument("a region label is not below " + std::to_string(classes));
        const Tensor mine = logits.slice(1, first, first + classes);
        const Tensor sum = at::cross_entropy_loss(mine, wanted, {}, at::Reduction::Sum, AT_IGNORED_LABEL);
        loss.sum = loss.sum.defined() ? loss.sum + sum : sum;
        const Tensor present = wanted > 0;
        loss.scored += (wanted >= 0).sum().item<int64_t>();
        loss.counts.push_back(present.sum().item<int64_t>());
        loss.counts.push_back((present & (mine.argmax(1) == wanted)).sum().item<int64_t>());
        first += classes;
    }
    if (batch.region_tokens) {
        const int64_t before = loss.scored;
        const Tensor naming = naming_loss(batch, project(features), loss);
        if (loss.scored > before) loss.sum = loss.sum + naming;
    } else {
        loss.counts.insert(loss.counts.end(), {0, 0});
    }
    return loss;
}

// Cross entropy of the tokens that name the content of projected rows (rows, hidden_size), summed; undefined if there are none. Adds their number to
// the scored positions of `loss`, and to its counts that number and how many of them are among the row's best.
Tensor at_model::naming_loss(const at_batch &batch, const Tensor &projected, Loss &loss) const {
    const int64_t rows = batch.images * rows_per_image(), names = batch.region_names;
    std::vector<int64_t> places, pairs, tokens, last; // for each name its row among the places; for each place how many names it has, less one
    for (int64_t row = 0; row < rows; row++) {
        const size_t before = tokens.size();
        for (int64_t i = 0; i < names; i++) {
            const int64_t token = batch.region_tokens[row * names + i];
            if (token == AT_IGNORED_LABEL) continue;
            if (token < 0 || token >= config.vocabulary_size) throw std::invalid_argument("token " + std::to_string(token) + " is not in the vocabulary");
            pairs.push_back(int64_t(places.size()));
            tokens.push_back(token);
        }
        if (tokens.size() == before) continue;
        places.push_back(row);
        last.push_back(int64_t(tokens.size() - before) - 1);
    }
    loss.counts.insert(loss.counts.end(), {int64_t(tokens.size()), 0});
    if (tokens.empty()) return {};
    const auto indices = [&](const std::vector<int64_t> &values) { return from_host(values.data(), {int64_t(values.size())}, at::kLong, device).clone(); };
    const Tensor row = indices(pairs), wanted = indices(tokens).unsqueeze(1);
    const Tensor logits = output_logits(projected.index_select(0, indices(places)));
    const Tensor likelihoods = at::log_softmax(logits, -1).index_select(0, row).gather(1, wanted);
    {
        torch::autograd::AutoGradMode off(false);
        const Tensor best = std::get<0>(logits.topk(std::min(names, int64_t(config.vocabulary_size)), 1));
        const Tensor least = best.gather(1, indices(last).unsqueeze(1)).index_select(0, row);
        loss.counts.back() = (logits.index_select(0, row).gather(1, wanted) >= least).sum().item<int64_t>();
    }
    loss.scored += int64_t(tokens.size());
    return -likelihoods.sum();
}

// The latency tokens' embeddings, (samples, hidden_size).
Tensor at_model::latency_embedding(const at_batch &batch) const {
    const std::string net = "scheduler.scheduler_up_proj.net.";
    constexpr int64_t half = 128;
    Tensor code = at::empty({batch.samples, 2 * half}, at::kFloat);
    for (int64_t i = 0; i < batch.samples; i++) {
        float *row = code.data_ptr<float>() + i * 2 * half;
        for (int64_t k = 0; k < half; k++) {
            const float angle = batch.latency[i] * float(2 * M_PI) * float(std::pow(10000.0, -double(k) / double(half)));
            row[k] = std::sin(angle);
            row[half + k] = std::cos(angle);
        }
    }
    const Tensor normed = at::layer_norm(code.to(device), {2 * half}, weight(net + "0.weight"), weight(net + "0.bias"), 1e-5);
    return linear(at::gelu(linear(normed, net + "1")), net + "3");
}

// The places of a batch's tokens, for attention and its rotary positions.
Places at_model::positions(const at_batch &batch) const {
    const int64_t samples = batch.samples, length = batch.length;
    Places places;
    const bool in_spans = device.is_cpu() && compute_type == at::kFloat && config.heads == config.key_value_heads && config.head_dim % 8 == 0 &&
        adatorch::can_attend_spans();
    Tensor numbers;
    Tensor spans = at::empty({batch.branches ? samples : 1, length, 2}, at::kInt);
    if (batch.branches) {
        numbers = at::empty({samples, length}, at::kFloat);
        if (!in_spans) places.mask = at::full({samples, 1, length, length}, -INFINITY, at::kFloat);
        for (int64_t i = 0; i < samples; i++) {
            const int32_t *branch = batch.branches + i * length;
            float *number = numbers.data_ptr<float>() + i * length, *mask = in_spans ? nullptr : places.mask.data_ptr<float>() + i * length * length;
            int32_t *span = spans.data_ptr<int32_t>() + i * length * 2;
            int64_t shared = 0;
            while (shared < length && branch[shared] == 0) shared++;
            for (int64_t t = 0, start = 0; t < length; t++) {
                if (t >= shared && branch[t] == 0) throw std::invalid_argument("what all branches see must come before them");
                if (t == 0 || branch[t] != branch[t - 1]) start = t;
                const bool is_shared = branch[t] == 0;
                number[t] = float(is_shared ? t : shared + t - start);
                const int64_t seen = is_shared ? t + 1 : shared, own = is_shared ? t + 1 : start;
                span[2 * t] = int32_t(seen), span[2 * t + 1] = int32_t(own);
                if (!mask) continue;
                std::fill_n(mask + t * length, seen, 0.0f);
                std::fill(mask + t * length + own, mask + t * length + t + 1, 0.0f);
            }
        }
        numbers = numbers.to(device).unsqueeze(-1);
        if (places.mask.defined()) places.mask = places.mask.to(device);
    } else {
        numbers = at::arange(length, inverse_frequencies.options()).unsqueeze(-1);
        for (int64_t t = 0; t < length; t++) std::fill_n(spans.data_ptr<int32_t>() + 2 * t, 2, int32_t(t + 1));
    }
    if (in_spans) places.spans = spans;
    const Tensor angles = numbers * inverse_frequencies;
    places.cosines = (angles.cos() * config.rotary_scale).to(compute_type);
    places.sines = (angles.sin() * config.rotary_scale).to(compute_type);
    return places;
}

// One LLaMA block. x (samples, positions, hidden_size) float32; heads (samples, 1, heads, 1) and neurons (samples, 1, intermediate_size) are
// the plan's factors, undefined where everything runs. With places.wanted, keys and values are those of all positions, but only the wanted
// rows, (count, hidden_size), go further.
Tensor at_model::decoder_layer(
    int64_t layer, const Tensor &x, const Tensor &heads, const Tensor &neurons, const Places &places) const {
    const auto &c = config;
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const int64_t samples = x.size(0), length = x.size(1);
    Tensor normed = adatorch::rms_norm(x, weight(name + "input_layernorm.weight"), c.rms_epsilon, compute_type);
    const std::vector<Tensor> parts = linears(normed, name + "self_attn.", {"q_proj", "k_proj", "v_proj"});
    const auto split = [&](const Tensor &part, int64_t count) { return part.view({samples, length, count, c.head_dim}); };
    const Tensor query = adatorch::rotate(split(parts[0], c.heads), places.cosines, places.sines);
    const Tensor key = adatorch::rotate(split(parts[1], c.key_value_heads), places.cosines, places.sines), value = split(parts[2], c.key_value_heads);
    Tensor attended; // (samples, positions, heads, head_dim)
    if (places.spans.defined()) {
        attended = adatorch::span_attention(query, key, value, places.spans);
    } else {
        const int64_t sharing = c.heads / c.key_value_heads;
        const auto by_head = [&](const Tensor &y) { return sharing > 1 ? y.transpose(1, 2).repeat_interleave(sharing, 1) : y.transpose(1, 2); };
        attended = adatorch::attention(query.transpose(1, 2), by_head(key), by_head(value), true, places.mask).transpose(1, 2);
    }
    if (heads.defined()) attended = attended * heads.to(compute_type);
    attended = attended.reshape({samples, length, int64_t(c.heads) * c.head_dim});
    // Whether any head, and any neuron, is on: (samples, 1, 1).
    Tensor some_head, some_neuron;
    if (heads.defined()) some_head = (heads.detach() != 0).any(2);
    if (neurons.defined()) some_neuron = (neurons.detach() != 0).any(2, true);
    Tensor input = x, factors = neurons;
    if (places.wanted.defined()) {
        attended = attended.flatten(0, 1).index_select(0, places.wanted);
        input = x.flatten(0, 1).index_select(0, places.wanted);
        const Tensor sample = at::floor_divide(places.wanted, length);
        for (Tensor *of_samples : {&factors, &some_head, &some_neuron})
            if (of_samples->defined()) *of_samples = of_samples->squeeze(1).index_select(0, sample);
    }
    // The engine skips attention and MLPs that have no switch on, output biases included. Subtracting the bias leaves the gradient of the factors,
    // which goes through W (factors * x), as it is.
    const auto output = [&](const Tensor &z, const Tensor &some, const std::string &projection) {
        const Tensor out = linear(z, name + projection);
        if (!some.defined() || !has(name + projection + ".bias")) return out;
        return out - weight(name + projection + ".bias").to(compute_type) * (1 - some.to(compute_type));
    };
    const Tensor y = input + output(attended, some_head, "self_attn.o_proj");

    normed = adatorch::rms_norm(y, weight(name + "post_attention_layernorm.weight"), c.rms_epsilon, compute_type);
    const std::vector<Tensor> gates = linears(normed, name + "mlp.", {"gate_proj", "up_proj"});
    Tensor middle = adatorch::gated(gates[0], gates[1]);
    if (factors.defined()) middle = middle * factors.to(compute_type);
    return y + output(middle, some_neuron, "mlp.down_proj");
}

Tensor at_model::maybe_checkpointed(
    int64_t layer, const Tensor &x, const Tensor &heads, const Tensor &neurons, const Places &places) const {
    if (!config.gradient_checkpointing || !at::GradMode::is_enabled()) return decoder_layer(layer, x, heads, neurons, places);
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    std::vector<Tensor> inputs{x};
    if (heads.defined()) inputs.insert(inputs.end(), {heads, neurons});
    const size_t own = inputs.size();
    for (const auto &parameter : parameters)
        if (parameter.trained() && parameter.name.compare(0, prefix.size(), prefix) == 0) inputs.push_back(parameter.value);
    return adatorch::checkpointed(inputs, own, [this, layer, places](const std::vector<Tensor> &in) {
        const Tensor none;
        return in.size() > 1 ? decoder_layer(layer, in[0], in[1], in[2], places) : decoder_layer(layer, in[0], none, none, places);
    });
}

// Logits of x (rows, hidden_size), float32.
Tensor at_model::output_logits(Tensor x) const {
    x = adatorch::rms_norm(x, weight("model.norm.weight"), config.rms_epsilon, compute_type);
    if (config.tied_embeddings) return at::linear(x, weight("model.embed_tokens.weight").to(compute_type)).to(at::kFloat);
    return linear(x, "lm_head").to(at::kFloat);
}

Loss at_model::forward(const at_batch &batch, const at_step_options &options, Intermediates *intermediates) const {
    if (batch.region_labels) return region_loss(batch);
    const auto &c = config;
    const int64_t samples = batch.samples, length = batch.length, places = samples * length;
    // Rows of the input come from a table: text embeddings, image features, latency tokens, and zeros for padding.
    std::vector<int64_t> text, order(size_t(places), 0), images, latency, padding, scored, targets;
    for (int64_t i = 0; i < places; i++) {
        const int64_t token = batch.tokens[i], label = batch.labels[i];
        if (token == AT_IMAGE_ROW) images.push_back(i);
        else if (token == AT_LATENCY_TOKEN) latency.push_back(i);
        else if (token == AT_PADDING) padding.push_back(i);
        else if (token < 0 || token >= c.vocabulary_size) throw std::invalid_argument("token " + std::to_string(token) + " is not in the vocabulary");
        else order[size_t(i)] = int64_t(text.size()), text.push_back(token);
        if (label == AT_IGNORED_LABEL || i % length == 0) continue;
        if (label < 0 || label >= c.vocabulary_size) throw std::invalid_argument("label " + std::to_string(label) + " is not in the vocabulary");
        scored.push_back(i - 1);
        targets.push_back(label);
    }
    const bool adaptive = c.scheduler != AT_SCHEDULER_NONE;
    int64_t with_latency = 0; // samples, which come in order
    for (int64_t place : latency) with_latency += place / length == with_latency;
    if (adaptive && (with_latency != samples || (!batch.branches && int64_t(latency.size()) != samples)))
        throw std::invalid_argument("every sample needs one latency token");
    if (scored.empty()) throw std::invalid_argument("a batch without a scored position");

    auto indices = [&](const std::vector<int64_t> &values) {
        return from_host(values.data(), {int64_t(values.size())}, at::kLong, device).clone();
    };
    const Tensor embeddings = weight("model.embed_tokens.weight");
    std::vector<Tensor> table{at::embedding(embeddings, indices(text), c.padding_token)};
    int64_t rows = int64_t(text.size());
    Loss naming; // of the names of the images' rows
    if (!images.empty()) {
        const Tensor features = project(tower_features(batch));
        if (batch.region_tokens && options.naming_weight > 0) naming.naming = naming_loss(batch, features, naming);
        if (features.size(0) != int64_t(images.size()))
            throw std::invalid_argument(
                "the batch has " + std::to_string(images.size()) + " places for image features, its images give " + std::to_string(features.size(0)));
        for (int64_t place : images) order[size_t(place)] = rows++;
        table.push_back(features);
    }
    Tensor token;
    if (adaptive) {
        token = latency_embedding(batch);
        if (intermediates) intermediates->keep("latency_embedding", token);
        for (int64_t place : latency) order[size_t(place)] = rows + place / length;
        rows += samples;
        table.push_back(token);
    }
    for (int64_t place : padding) order[size_t(place)] = rows;
    if (!padding.empty()) table.push_back(at::zeros({1, c.hidden_size}, embeddings.options()));
    const Tensor input = at::cat(table, 0).index_select(0, indices(order)).view({samples, length, c.hidden_size});

    const Places where = positions(batch);
    const Tensor none;
    const int64_t all = c.scheduler == AT_SCHEDULER_HEADS ? (c.layers - c.prefix_layers) * c.heads / std::max(1, c.scheduler_rank) : c.layers - c.prefix_layers;
    // Where units leave no choice, branches need no plan. Of layers that nothing runs of, only a teacher has use.
    const auto every = [&](auto test) { return batch.branches && std::all_of(batch.units, batch.units + samples, test); };
    const bool everything = every([all](int32_t units) { return units >= all; });
    const bool nothing = adaptive && options.distill_weight <= 0 && every([](int32_t units) { return units <= 0; });
    const bool scheduled = adaptive && !everything && !nothing;
    const int64_t layers = nothing ? c.prefix_layers : c.layers, prefix = scheduled ? c.prefix_layers : layers;
    const Tensor places_scored = indices(scored), labels = indices(targets);
    // After the last layer only the rows that predict a scored token are computed.
    Places last = where;
    last.wanted = places_scored;
    const auto at = [&](int64_t layer) -> const Places & { return layer + 1 == layers ? last : where; };
    Tensor x = input;
    for (int64_t layer = 0; layer < prefix; layer++) x = maybe_checkpointed(layer, x, none, none, at(layer));

    Loss loss;
    loss.scored = int64_t(scored.size());
    loss.naming = naming.naming;
    loss.counts = naming.counts;
    Tensor teacher;
    if (scheduled) {
        if (options.distill_weight > 0) {
            // The full model's predictions are a target, not a path for gradients.
            torch::autograd::AutoGradMode off(false);
            Tensor full = x;
            for (int64_t layer = prefix; layer < c.layers; layer++) full = decoder_layer(layer, full, none, none, at(layer));
            teacher = at::softmax(output_logits(full) / options.distill_temperature, -1);
        }
        std::vector<int64_t> choosing; // each sample's first
        for (int64_t place : latency)
            if (int64_t(choosing.size()) <= place / length) choosing.push_back(place);
        const Tensor state = x.flatten(0, 1).index_select(0, indices(choosing));
        const Tensor logits = linear(state, "scheduler.mlp_head");
        const Tensor sample = adatorch::select_switches(logits, c, batch, options.gumbel_noise);
        const int64_t optional = c.layers - prefix;
        if (options.balance_weight > 0) loss.balance = balance(logits);
        const Tensor shared = x;
        // (samples, layers, 2, heads): attention heads, then MLP groups.
        const auto plan_of = [&](const Tensor &switches) {
            return c.scheduler == AT_SCHEDULER_LAYERS ? switches.view({samples, optional, 1, 1}).expand({samples, optional, 2, c.heads})
                                                      : switches.view({samples, optional, 2, c.heads});
        };
        Tensor plan = plan_of(sample);
        if (intermediates) {
            plan = at::cat({at::ones({samples, prefix, 2, c.heads}, plan.options()), plan}, 1);
            intermediates->keep("scheduler_input", state);
            intermediates->keep("scheduler_logits", logits);
            intermediates->keep("plan", plan);
            plan = plan.slice(1, prefix);
        }
        const auto run = [&](Tensor y, const Tensor &plan) {
            for (int64_t layer = prefix; layer < c.layers; layer++) {
                const Tensor row = plan.select(1, layer - prefix);
                const Tensor heads = row.select(1, 0).view({samples, 1, c.heads, 1});
                const Tensor neurons = row.select(1, 1).index_select(1, group_of_neuron).unsqueeze(1);
                y = maybe_checkpointed(layer, y, heads, neurons, at(layer));
            }
            return y;
        };
        x = run(x, plan);
        if (options.ranking_weight > 0) {
            const Tensor sample_of = at::floor_divide(places_scored, length);
            const auto losses = [&](const Tensor &y) {
                const Tensor each = at::cross_entropy_loss(output_logits(y), labels, {}, at::Reduction::None);
                const Tensor counts = at::zeros({samples}, each.options()).index_add(0, sample_of, at::ones_like(each));
                return at::zeros({samples}, each.options()).index_add(0, sample_of, each) / counts.clamp_min(1);
            };
            Tensor other, advantage; // how much better the first plan answers
            {
                torch::autograd::AutoGradMode off(false);
                other = adatorch::select_switches(logits.detach(), c, batch, std::max(1.0f, options.gumbel_noise), 0x9E3779B97F4A7C15ull);
                advantage = losses(run(shared, plan_of(other))) - losses(x);
            }
            const Tensor margin = ((sample.detach() - other) * logits).sum(1);
            const Tensor differs = (sample.detach() != other).any(1).to(at::kFloat);
            loss.ranking = (differs * advantage.abs() * at::softplus(-advantage.sign() * margin)).mean();
        }
    }
    const Tensor logits = output_logits(x);
    if (intermediates) intermediates->keep("supervised_logits", logits);
    loss.sum = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum);
    if (teacher.defined()) {
        const double temperature = options.distill_temperature;
        const Tensor student = at::log_softmax(logits / temperature, -1);
        loss.distill = at::kl_div(student, teacher, at::Reduction::Sum) * (temperature * temperature);
    }
    return loss;
}
