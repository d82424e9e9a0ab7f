// Data parallelism over libtorch's own c10d.
#pragma once

#include <string>

#include "Model.h"

namespace adatorch {

// Sums the gradients of all trained parameters over processes, in buckets. A parameter without a gradient here may have one elsewhere.
void sum_gradients(at_model &model, at_process_group &group);
void broadcast_parameters(at_model &model, at_process_group &group);
void sum_values(at_process_group &group, double *values, int64_t count);
at_process_group *make_group(const std::string &address, int port, int rank, int world_size, int device, int timeout_seconds);
void free_group(at_process_group *group);

} // namespace adatorch
