// One draw takes the highest of (logits + scale * noise) / temperature among the remaining entries. Forward it is hard; backward it is the softmax of
// the same scores: for a weight w on the draw, soft * (w - sum(soft * w)) / temperature. Which entries were taken is not differentiated.
//
// Layers: the sample is the sum of the draws. Heads: each unit draws one entry among all and so a layer, then `rank` heads and
// `rank` groups h of that layer c; it adds s (x) h, s being the entry's draw summed over each layer, and the logits drawn from are
// sum_i s_i l_i. So for a gradient w of the sample, with u the gradient of the two draws for w[c]:
//     gradient[c] += u
//     gradient    += draw's gradient for v,  v[i, .] = sum_k w[i, k] h[k] + sum_k l[i, k] u[k]
// Logits are few, so all of it is plain loops on the CPU, the gradient in double.
#include "Selection.h"

#include <cmath>
#include <limits>

namespace adatorch {

std::vector<float> Noise::take(size_t count) {
    std::vector<float> values(count);
    if (given_) {
        if (size_t(end_ - given_) < count) throw std::invalid_argument("the batch has too little noise for its units");
        std::copy_n(given_, count, values.begin());
        given_ += count;
        return values;
    }
    for (float &value : values) {
        uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        // Uniform inside (0, 1): neither logarithm meets a zero.
        const double uniform = (double(z >> 11) + 0.5) * 0x1.0p-53;
        value = float(-std::log(-std::log(uniform)));
    }
    return values;
}

namespace {

struct Draw {
    std::vector<float> scores; // -infinity where nothing can be drawn
    std::vector<size_t> chosen;
    double temperature;

    Draw(const float *logits, const char *taken, const std::vector<float> &noise, float scale, const at_config &c, size_t top)
        : scores(noise.size()), temperature(c.temperature) {
        constexpr float none = -std::numeric_limits<float>::infinity();
        for (size_t i = 0; i < scores.size(); i++) scores[i] = taken[i] ? none : (logits[i] + scale * noise[i]) / c.temperature;
        std::vector<float> left = scores;
        while (chosen.size() < top) {
            size_t best = left.size();
            float highest = none;
            for (size_t i = 0; i < left.size(); i++)
                if (left[i] > highest) highest = left[i], best = i;
            if (best == left.size()) break;
            chosen.push_back(best);
            left[best] = none;
        }
    }

    // The gradient of sum(weight * draw).
    std::vector<double> gradient(const double *weight) const {
        std::vector<double> soft(scores.size(), 0.0);
        if (chosen.empty()) return soft;
        double sum = 0, mean = 0;
        for (size_t i = 0; i < soft.size(); i++) sum += soft[i] = std::exp(double(scores[i]) - double(scores[chosen[0]]));
        for (size_t i = 0; i < soft.size(); i++) mean += (soft[i] /= sum) * weight[i];
        for (size_t i = 0; i < soft.size(); i++) soft[i] *= (weight[i] - mean) / temperature;
        return soft;
    }
};

struct Round {
    Draw entry;
    size_t layer;
    std::vector<Draw> within; // heads: the layer's attention heads, then its MLP groups
};

struct Sample {
    std::vector<float> logits;
    std::vector<Round> rounds;
    size_t heads; // 0: whole layers

    Sample(const float *given, size_t count, int units, Noise &noise, float scale, const at_config &c)
        : logits(given, given + count), heads(c.scheduler == AT_SCHEDULER_HEADS ? size_t(c.heads) : 0) {
        std::vector<char> taken(count, 0);
        for (int unit = 0; unit < units; unit++) {
            Draw entry(logits.data(), taken.data(), noise.take(count), scale, c, 1);
            if (entry.chosen.empty()) break;
            Round round{std::move(entry), 0, {}};
            if (heads == 0) {
                round.layer = round.entry.chosen[0];
                taken[round.layer] = 1;
            } else {
                round.layer = round.entry.chosen[0] / (2 * heads);
                for (size_t half = 0; half < 2; half++) {
                    const size_t start = (round.layer * 2 + half) * heads;
                    round.within.emplace_back(&logits[start], &taken[start], noise.take(heads), scale, c, size_t(c.scheduler_rank));
                    for (size_t i : round.within.back().chosen) taken[start + i] = 1;
                }
            }
            rounds.push_back(std::move(round));
        }
    }

    void write(float *out) const {
        for (const Round &round : rounds) {
            if (heads == 0) out[round.layer] = 1;
            for (size_t half = 0; half < round.within.size(); half++)
                for (size_t i : round.within[half].chosen) out[(round.layer * 2 + half) * heads + i] = 1;
        }
    }

    // Adds the gradient of sum(weight * sample) to `out`.
    void add_gradient(const float *weights, float *out) const {
        const std::vector<double> weight(weights, weights + logits.size());
        std::vector<double> total(logits.size(), 0.0);
        for (const Round &round : rounds) {
            std::vector<double> entry_weight = weight;
            if (heads > 0) {
                const size_t width = 2 * heads, start = round.layer * width;
                std::vector<double> hard(width, 0.0), within;
                for (size_t half = 0; half < 2; half++) {
                    for (size_t i : round.within[half].chosen) hard[half * heads + i] = 1;
                    const auto part = round.within[half].gradient(&weight[start + half * heads]);
                    within.insert(within.end(), part.begin(), part.end());
                }
                for (size_t first = 0; first < logits.size(); first += width) {
                    double sum = 0;
                    for (size_t k = 0; k < width; k++) sum += weight[first + k] * hard[k] + double(logits[first + k]) * within[k];
                    std::fill_n(entry_weight.begin() + long(first), width, sum);
                }
                for (size_t k = 0; k < width; k++) total[start + k] += within[k];
            }
            const auto part = round.entry.gradient(entry_weight.data());
            for (size_t i = 0; i < total.size(); i++) total[i] += part[i];
        }
        for (size_t i = 0; i < total.size(); i++) out[i] += float(total[i]);
    }
};

struct Samples : torch::CustomClassHolder {
    std::vector<Sample> samples;
};

struct Selection : torch::autograd::Function<Selection> {
    static Tensor forward(
        torch::autograd::AutogradContext *context, const Tensor &logits, const at_config *config, const at_batch *batch, double scale, int64_t salt) {
        const Tensor values = logits.to(at::kCPU, at::kFloat).contiguous();
        const size_t switches = size_t(values.size(1));
        Tensor out = at::zeros_like(values);
        auto samples = c10::make_intrusive<Samples>();
        const float *given = batch->noise;
        for (int32_t i = 0; i < batch->samples; i++) {
            Noise noise = given ? Noise(given, batch->noise + batch->noise_count) : Noise(batch->seeds[i] ^ uint64_t(salt));
            Sample sample(values.data_ptr<float>() + size_t(i) * switches, switches, batch->units[i], noise, float(scale), *config);
            sample.write(out.data_ptr<float>() + size_t(i) * switches);
            samples->samples.push_back(std::move(sample));
            if (given) given = noise.position();
        }
        context->saved_data["samples"] = c10::IValue::make_capsule(std::move(samples));
        return out.to(logits.device());
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradients) {
        const auto capsule = context->saved_data["samples"].toCapsule();
        const auto &samples = static_cast<Samples &>(*capsule).samples;
        const Tensor weight = gradients[0].to(at::kCPU, at::kFloat).contiguous();
        Tensor out = at::zeros_like(weight);
        const size_t switches = size_t(weight.size(1));
        for (size_t i = 0; i < samples.size(); i++)
            samples[i].add_gradient(weight.data_ptr<float>() + i * switches, out.data_ptr<float>() + i * switches);
        return {out.to(gradients[0].device()), Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

} // namespace

Tensor select_switches(const Tensor &logits, const at_config &config, const at_batch &batch, float noise, uint64_t salt) {
    return Selection::apply(logits, &config, &batch, double(noise), int64_t(salt));
}

} // namespace adatorch
