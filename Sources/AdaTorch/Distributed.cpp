#include "Distributed.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <memory>

#if defined(USE_C10D_GLOO) || defined(USE_C10D_NCCL)
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#ifdef USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

struct at_process_group {
    c10::intrusive_ptr<c10d::Store> store;
#ifdef USE_C10D_GLOO
    c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
#endif
#ifdef USE_C10D_NCCL
    c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl;
#endif
    at::Device device = at::kCPU;

    // One group a process: NCCL on a CUDA device, where the few numbers of the host take a trip, gloo otherwise.
    template <typename Operation> void on_device(at::Tensor tensor, Operation operation) {
        const bool travels = tensor.device() != device;
        std::vector<at::Tensor> tensors{travels ? tensor.to(device) : tensor};
        operation(tensors);
        if (travels) tensor.copy_(tensors[0]);
    }

    void sum(at::Tensor tensor) {
        on_device(tensor, [&](std::vector<at::Tensor> &tensors) {
#ifdef USE_C10D_NCCL
            if (nccl) return void(nccl->allreduce(tensors)->wait());
#endif
#ifdef USE_C10D_GLOO
            gloo->allreduce(tensors)->wait();
#endif
        });
    }

    void broadcast(at::Tensor tensor) {
        on_device(tensor, [&](std::vector<at::Tensor> &tensors) {
#ifdef USE_C10D_NCCL
            if (nccl) return void(nccl->broadcast(tensors)->wait());
#endif
#ifdef USE_C10D_GLOO
            gloo->broadcast(tensors)->wait();
#endif
        });
    }
};

namespace adatorch {

at_process_group *make_group(const std::string &address, int port, int rank, int world_size, int device, int timeout_seconds) {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = rank == 0;
    options.numWorkers = world_size;
    options.timeout = std::chrono::seconds(timeout_seconds);
    auto group = std::make_unique<at_process_group>();
    group->store = c10::make_intrusive<c10d::TCPStore>(address, options);
    if (device >= 0) {
        group->device = at::Device(at::kCUDA, static_cast<int8_t>(device));
#ifdef USE_C10D_NCCL
        group->nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(
            c10::make_intrusive<c10d::PrefixStore>("nccl", group->store), rank, world_size);
        return group.release();
#else
        throw std::runtime_error("this libAdaTorch was built without NCCL, which several CUDA processes need");
#endif
    }
#ifdef USE_C10D_GLOO
    auto gloo = c10d::ProcessGroupGloo::Options::create();
    gloo->timeout = std::chrono::seconds(timeout_seconds);
    // The machine's own name need not resolve to an address that others reach; loopback serves processes of one machine.
    const bool local = address == "127.0.0.1" || address == "localhost" || address == "::1";
    gloo->devices.push_back(local ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1") : c10d::ProcessGroupGloo::createDefaultDevice());
    group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", group->store), rank, world_size, gloo);
    return group.release();
#else
    throw std::runtime_error("this libAdaTorch was built without gloo's headers, which several CPU processes need: apt-get install libgloo-dev");
#endif
}

void free_group(at_process_group *group) { delete group; }

void sum_values(at_process_group &group, double *values, int64_t count) {
    group.sum(at::from_blob(values, {count}, at::TensorOptions().dtype(at::kDouble)));
}

void sum_gradients(at_model &model, at_process_group &group) {
    torch::autograd::AutoGradMode off(false);
    constexpr int64_t bucket = 25 << 18; // 25 MiB of float32, as DistributedDataParallel
    std::vector<Parameter *> members;
    int64_t size = 0;
    auto flush = [&] {
        if (members.empty()) return;
        std::vector<at::Tensor> flat;
        for (Parameter *member : members) {
            if (!member->gradient.defined()) member->gradient = at::zeros_like(member->value);
            flat.push_back(member->gradient.reshape({-1}));
        }
        const at::Tensor all = at::cat(flat);
        group.sum(all);
        int64_t start = 0;
        for (Parameter *member : members) {
            const int64_t count = member->value.numel();
            member->gradient.copy_(all.narrow(0, start, count).view_as(member->value));
            start += count;
        }
        members.clear();
        size = 0;
    };
    for (auto &parameter : model.parameters) {
        if (!parameter.trained()) continue;
        members.push_back(&parameter);
        size += parameter.value.numel();
        if (size >= bucket) flush();
    }
    flush();
}

void broadcast_parameters(at_model &model, at_process_group &group) {
    torch::autograd::AutoGradMode off(false);
    for (auto &parameter : model.parameters) group.broadcast(parameter.value.detach());
}

} // namespace adatorch

#else

struct at_process_group {};

namespace adatorch {

at_process_group *make_group(const std::string &, int, int, int, int, int) {
    throw std::runtime_error("this libAdaTorch was built without gloo (apt-get install libgloo-dev) and NCCL, so it trains in one process only");
}
void free_group(at_process_group *group) { delete group; }
void sum_values(at_process_group &, double *, int64_t) {}
void sum_gradients(at_model &, at_process_group &) {}
void broadcast_parameters(at_model &, at_process_group &) {}

} // namespace adatorch

#endif
