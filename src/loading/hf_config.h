// config.json in one spelling, whichever version of Transformers wrote it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace pagemill {

// Adds the classic keys where only newer ones stand, so that a reader needs to know one spelling:
// "rope_theta" (a number, default 10000), "rope_scaling" (null or an object with "rope_type"),
// "partial_rotary_factor" out of "rope_parameters" (Transformers 5), and "torch_dtype" as well as
// "dtype". `file` is named in errors.
Result<nlohmann::json> normalize_config(nlohmann::json config, const std::string& file);

}  // namespace pagemill
