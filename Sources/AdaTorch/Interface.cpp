// The C functions: no C++ exception leaves them.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/version.h>

#include "Distributed.h"
#include "Step.h"

#ifdef ADATORCH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace {

thread_local std::string last_error;

template <typename Body> int32_t guarded(Body body) {
    try {
        body();
        return 0;
    } catch (const c10::Error &error) {
        last_error = error.what_without_backtrace();
    } catch (const std::exception &error) {
        last_error = error.what();
    } catch (...) {
        last_error = "an unknown exception";
    }
    return 1;
}

const char *description() {
    static const std::string text = [] {
        std::string text = "libtorch " TORCH_VERSION;
        text += at::hasCUDA() ? ", CUDA" : ", CPU";
#ifdef USE_C10D_NCCL
        text += ", NCCL";
#endif
#ifdef USE_C10D_GLOO
        text += ", gloo";
#endif
        return text;
    }();
    return text.c_str();
}

int32_t cuda_devices() { return at::hasCUDA() ? int32_t(at::detail::getCUDAHooks().getNumGPUs()) : 0; }

// Tensors of a step come and go by the hundred: memory that is given back to the system each time must be cleared by it each time.
void keep_freed_memory() {
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}

void set_threads(int32_t threads) {
    at::set_num_threads(threads);
    // OpenBLAS keeps its own count.
    if (void *function = dlsym(RTLD_DEFAULT, "openblas_set_num_threads")) reinterpret_cast<void (*)(int)>(function)(threads);
}

at_model *model_create(const at_config *config) {
    at_model *model = nullptr;
    guarded([&] {
        if (config->device >= cuda_devices())
            throw std::invalid_argument(
                "CUDA device " + std::to_string(config->device) + " was asked for; " + description() + " sees " + std::to_string(cuda_devices()));
        keep_freed_memory();
        set_threads(std::max(1, config->threads));
        model = new at_model(*config);
    });
    return model;
}

adatorch::Parameter &at_index(at_model &model, int32_t index) {
    if (index < 0 || size_t(index) >= model.parameters.size()) throw std::out_of_range("no parameter " + std::to_string(index));
    return model.parameters[size_t(index)];
}

int32_t parameter_info(const at_model *model, int32_t index, const char **name, int64_t shape[4]) {
    int32_t dimensions = -1;
    guarded([&] {
        const auto &parameter = at_index(const_cast<at_model &>(*model), index);
        *name = parameter.name.c_str();
        dimensions = int32_t(parameter.value.dim());
        for (int32_t i = 0; i < dimensions; i++) shape[i] = parameter.value.size(i);
    });
    return dimensions;
}

at::Tensor &tensor_of(adatorch::Parameter &parameter, int32_t kind) {
    switch (kind) {
    case AT_VALUE: return parameter.value;
    case AT_GRADIENT: return parameter.gradient;
    case AT_FIRST_MOMENT: return parameter.first_moment;
    case AT_SECOND_MOMENT: return parameter.second_moment;
    default: throw std::invalid_argument("no such kind of tensor: " + std::to_string(kind));
    }
}

// Tensors that do not exist yet read as zeros.
int32_t read_tensor(const at_model *model, int32_t index, int32_t kind, float *out, int64_t count) {
    return guarded([&] {
        torch::autograd::AutoGradMode off(false);
        auto &parameter = at_index(const_cast<at_model &>(*model), index);
        if (count != parameter.value.numel()) throw std::invalid_argument(parameter.name + " has " + std::to_string(parameter.value.numel()) + " values");
        const at::Tensor tensor = kind == AT_MERGED ? model->merged(parameter) : tensor_of(parameter, kind);
        if (!tensor.defined()) return void(std::fill_n(out, count, 0.0f));
        const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
        std::copy_n(values.data_ptr<float>(), count, out);
    });
}

int32_t write_tensor(at_model *model, int32_t index, int32_t kind, const float *values, int64_t count) {
    return guarded([&] {
        torch::autograd::AutoGradMode off(false);
        auto &parameter = at_index(*model, index);
        if (count != parameter.value.numel()) throw std::invalid_argument(parameter.name + " has " + std::to_string(parameter.value.numel()) + " values");
        at::Tensor &tensor = tensor_of(parameter, kind);
        if (!tensor.defined()) tensor = at::zeros_like(parameter.value.detach());
        tensor.detach().copy_(at::from_blob(const_cast<float *>(values), parameter.value.sizes(), at::TensorOptions().dtype(at::kFloat)));
    });
}

int32_t set_training(at_model *model, int32_t index, double learning_rate, double weight_decay) {
    return guarded([&] {
        auto &parameter = at_index(*model, index);
        parameter.learning_rate = learning_rate;
        parameter.weight_decay = weight_decay;
        parameter.value.set_requires_grad(learning_rate > 0);
    });
}

int32_t accumulate(at_model *model, const at_batch *batches, int32_t count, const at_step_options *options, at_result *results) {
    return guarded([&] { adatorch::accumulate(*model, batches, count, *options, results); });
}

int32_t update(at_model *model, at_process_group *group, const at_update_options *options, double *grad_norm) {
    return guarded([&] { *grad_norm = adatorch::update(*model, group, *options); });
}

void clear_gradients(at_model *model) {
    for (auto &parameter : model->parameters) parameter.gradient = at::Tensor();
}

int64_t peak_memory(const at_model *model) {
#ifdef ADATORCH_CUDA
    if (model->device.is_cuda()) {
        int64_t bytes = 0;
        guarded([&] {
            bytes = c10::cuda::CUDACachingAllocator::getDeviceStats(model->device.index()).reserved_bytes[0].peak;
        });
        return bytes;
    }
#endif
    (void)model;
    return 0;
}

at_process_group *group_create(const char *address, int32_t port, int32_t rank, int32_t world_size, int32_t device, int32_t timeout_seconds) {
    at_process_group *group = nullptr;
    guarded([&] { group = adatorch::make_group(address, port, rank, world_size, device, timeout_seconds); });
    return group;
}

const at_functions functions = {
    AT_INTERFACE_VERSION,
    description,
    [] { return last_error.c_str(); },
    cuda_devices,
    model_create,
    [](at_model *model) { delete model; },
    [](const at_model *model) { return int32_t(model->parameters.size()); },
    parameter_info,
    read_tensor,
    write_tensor,
    set_training,
    accumulate,
    update,
    clear_gradients,
    peak_memory,
    group_create,
    [](at_process_group *group) { adatorch::free_group(group); },
    [](at_process_group *group, double *values, int64_t count) { return guarded([&] { adatorch::sum_values(*group, values, count); }); },
    [](at_model *model, at_process_group *group) { return guarded([&] { adatorch::sum_gradients(*model, *group); }); },
    [](at_model *model, at_process_group *group) { return guarded([&] { adatorch::broadcast_parameters(*model, *group); }); },
};

} // namespace

extern "C" __attribute__((visibility("default"))) const at_functions *at_interface(int32_t version) {
    return version == AT_INTERFACE_VERSION ? &functions : nullptr;
}
