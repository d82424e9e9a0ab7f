#include "Step.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

#include "Distributed.h"

namespace adatorch {

namespace {

std::vector<size_t> trained(const at_model &model) {
    std::vector<size_t> indices;
    for (size_t i = 0; i < model.parameters.size(); i++)
        if (model.parameters[i].trained()) indices.push_back(i);
    return indices;
}

// Hands named values to the caller's visitor.
void visit(const at_step_options &options, const std::string &name, const Tensor &tensor) {
    const Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    options.visitor(options.context, name.c_str(), values.data_ptr<float>(), values.numel());
}

// The gradients of one batch's share of the loss, in the order of `indices`; undefined where nothing flows.
std::vector<Tensor> gradients(
    const at_model &model, const std::vector<size_t> &indices, const at_batch &batch, const at_step_options &options, at_result &result) {
    torch::autograd::AutoGradMode on(true);
    Intermediates intermediates;
    const Loss loss = model.forward(batch, options, options.visitor ? &intermediates : nullptr);
    Tensor total = loss.sum / options.scored;
    if (loss.distill.defined()) total = total + loss.distill * (options.distill_weight / options.scored);
    if (loss.naming.defined()) total = total + loss.naming * (options.naming_weight / options.named);
    // Both are means over the samples of a batch, which count by their share of the step.
    const double share = double(loss.scored) / options.scored;
    if (loss.balance.defined()) total = total + loss.balance * (options.balance_weight * share);
    if (loss.ranking.defined()) total = total + loss.ranking * (options.ranking_weight * share);
    std::vector<Tensor> wanted;
    for (size_t index : indices) wanted.push_back(model.parameters[index].value);
    for (const auto &item : intermediates.tensors)
        if (item.second.requires_grad()) wanted.push_back(item.second);
    std::vector<Tensor> found;
    if (!wanted.empty()) found = torch::autograd::grad({total}, wanted, {}, c10::nullopt, false, /* allow_unused */ true);
    result.loss_sum = loss.sum.item<double>();
    result.distill_sum = loss.distill.defined() ? loss.distill.item<double>() : 0;
    result.naming_sum = loss.naming.defined() ? loss.naming.item<double>() : 0;
    result.balance_sum = loss.balance.defined() ? loss.balance.item<double>() * double(loss.scored) : 0;
    result.ranking_sum = loss.ranking.defined() ? loss.ranking.item<double>() * double(loss.scored) : 0;
    result.scored = loss.scored;
    if (options.region_counts) {
        static std::mutex counting;
        std::lock_guard<std::mutex> lock(counting);
        // A language batch has no labels' slots; the names' counts come last.
        const size_t slots = model.label_classes.size() + 1, first = 2 * slots - loss.counts.size();
        for (size_t i = 0; i < loss.counts.size(); i++) options.region_counts[first + i] += loss.counts[i];
    }
    size_t next = indices.size();
    for (const auto &item : intermediates.tensors) {
        visit(options, item.first, item.second);
        if (item.second.requires_grad() && found[next].defined()) visit(options, "grad_of_" + item.first, found[next]);
        if (item.second.requires_grad()) next++;
    }
    found.resize(std::min(found.size(), indices.size()));
    return found;
}

} // namespace

// Batches are handed out one at a time, so that a core which another program has taken slows us by its share. Each thread computes whole
// batches with its own share of libtorch's threads; gradients are added in the order of the batches, so that sums do not depend on timing.
void accumulate(at_model &model, const at_batch *batches, int32_t count, const at_step_options &options, at_result *results) {
    if (!(options.scored > 0)) throw std::invalid_argument("a step without a scored position");
    if (options.visitor && count != 1) throw std::invalid_argument("intermediates are told of one batch at a time");
    const auto indices = trained(model);
    std::vector<std::vector<Tensor>> found(static_cast<size_t>(count));
    std::atomic<int32_t> next{0};
    int32_t added = 0;
    std::mutex mutex;
    std::exception_ptr failure;
    auto work = [&] {
        for (int32_t i; (i = next++) < count;) {
            try {
                auto mine = gradients(model, indices, batches[i], options, results[i]);
                std::lock_guard<std::mutex> lock(mutex);
                found[size_t(i)] = std::move(mine);
                torch::autograd::AutoGradMode off(false);
                for (; added < count && (!found[size_t(added)].empty() || indices.empty()); added++) {
                    for (size_t k = 0; k < indices.size(); k++) {
                        const Tensor &gradient = found[size_t(added)][k];
                        if (!gradient.defined()) continue;
                        Tensor &sum = model.parameters[indices[k]].gradient;
                        if (sum.defined()) sum.add_(gradient);
                        else sum = gradient.to(at::kFloat).clone();
                    }
                    found[size_t(added)].clear();
                    if (indices.empty()) break;
                }
            } catch (...) {
                std::lock_guard<std::mutex> lock(mutex);
                if (!failure) failure = std::current_exception();
                next = count;
            }
        }
    };
    const int32_t helpers = model.device.is_cpu() ? std::min(model.config.workers, count) - 1 : 0;
    std::vector<std::thread> threads;
    for (int32_t i = 0; i < helpers; i++) threads.emplace_back(work);
    work();
    for (auto &thread : threads) thread.join();
    if (failure) std::rethrow_exception(failure);
}

// AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW computes it.
double update(at_model &model, at_process_group *group, const at_update_options &options) {
    torch::autograd::AutoGradMode off(false);
    const auto indices = trained(model);
    if (group) sum_gradients(model, *group);
    Tensor squares = at::zeros({}, at::TensorOptions().dtype(at::kDouble).device(model.device));
    for (size_t index : indices) {
        const Tensor &gradient = model.parameters[index].gradient;
        if (gradient.defined()) squares += gradient.square().sum(at::kDouble);
    }
    const double norm = std::sqrt(squares.item<double>());
    const double clip = options.max_grad_norm > 0 ? std::min(1.0, options.max_grad_norm / (norm + 1e-6)) : 1.0;
    // Weights that not-a-number has reached are lost; the caller is told by the norm.
    if (!std::isfinite(norm)) return norm;
    const double correction1 = 1 - std::pow(options.beta1, double(options.step));
    const double correction2 = std::sqrt(1 - std::pow(options.beta2, double(options.step)));
    for (size_t index : indices) {
        Parameter &parameter = model.parameters[index];
        if (!parameter.gradient.defined()) continue;
        Tensor gradient = parameter.gradient;
        if (clip < 1) gradient.mul_(clip);
        if (!parameter.first_moment.defined()) {
            parameter.first_moment = at::zeros_like(gradient);
            parameter.second_moment = at::zeros_like(gradient);
        }
        const double rate = parameter.learning_rate * options.learning_rate_scale;
        // Through the detached tensor: a leaf that needs gradients is changed in place only without them.
        Tensor value = parameter.value.detach();
        if (parameter.weight_decay != 0) value.mul_(1 - rate * parameter.weight_decay);
        parameter.first_moment.mul_(options.beta1).add_(gradient, 1 - options.beta1);
        parameter.second_moment.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
        const Tensor denominator = parameter.second_moment.sqrt().div_(correction2).add_(options.epsilon);
        value.addcdiv_(parameter.first_moment, denominator, -rate / correction1);
        parameter.gradient = Tensor();
    }
    return norm;
}

} // namespace adatorch
