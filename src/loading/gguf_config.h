// A GGUF file's metadata as a Hugging Face configuration.
#pragma once

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "loading/gguf.h"

namespace pagemill {

// config.json's keys, from "<architecture>.*" and the tensors present. kUnsupported for an
// architecture other than llama (LlamaForCausalLM; MistralForCausalLM where it has a sliding
// window) and qwen2.
Result<nlohmann::json> gguf_config(const GgufFile& file);

// generation_config.json's keys, from tokenizer.ggml.*_token_id.
Result<nlohmann::json> gguf_generation_config(const GgufFile& file);

}  // namespace pagemill
