// Sampling parameters in a line of --prompts.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "request/sampling_params.h"

namespace pagemill::cli {

// Reads every field of sampling_fields() that `object` has; null and absent ones keep their value.
// A wrong type is kInvalidArgument with the field as `param`; ranges are checked later, by
// validate().
Status read_sampling_params(const nlohmann::ordered_json& object, SamplingParams* params);

}  // namespace pagemill::cli
