// What GPT-2 and GPT BigCode have in common.
#pragma once

#include "models/llama_like.h"

namespace pagemill {

// All but Q, K and V; no weight is transposed.
Result<DecoderSpec> gpt2_like(const ConfigReader& reader, const std::string& activation);

}  // namespace pagemill
