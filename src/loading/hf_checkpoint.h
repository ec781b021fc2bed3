// A Hugging Face directory as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "loading/checkpoint.h"

namespace pagemill {

// `directory` holds config.json (required), generation_config.json (optional), and the weights as
// the first of model.safetensors.index.json with its shards, model.safetensors,
// pytorch_model.bin.index.json with its shards, pytorch_model.bin.
Result<std::unique_ptr<Checkpoint>> open_hf_checkpoint(const std::string& directory);

}  // namespace pagemill
