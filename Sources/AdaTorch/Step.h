// Gradients of one optimizer step, and the step.
#pragma once

#include "Model.h"

namespace adatorch {

class Group;

void accumulate(at_model &model, const at_batch *batches, int32_t count, const at_step_options &options, at_result *results);
double update(at_model &model, at_process_group *group, const at_update_options &options);

} // namespace adatorch
