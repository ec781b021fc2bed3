// A machine for the simulator, measured with a real model.
#pragma once

#include <vector>

#include "engine/engine_options.h"
#include "simulate/cost_model.h"

namespace pagemill::cli {

struct MeasuredMachine {
  Machine machine;
  std::vector<CostSample> samples;  // what the cost was fitted to
  double worst_error = 0;           // |predicted / measured - 1| of the worst sample
};

// Loads the model, runs batches of different sizes and lengths and fits the time of a step to
// them. Takes some tens of seconds.
Result<MeasuredMachine> measure_machine(EngineOptions options);

}  // namespace pagemill::cli
