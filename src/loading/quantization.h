// Quantized Hugging Face checkpoints: compressed-tensors W8A8 (as llm-compressor writes them), int8
// weights with a scale for each row that meet activations quantized to int8 by token.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "loading/checkpoint.h"

namespace pagemill {

struct Quantization {
  std::vector<std::string> ignore;  // modules that are not quantized, and "re:" patterns
};

// What config.json's "quantization_config" says; none where it has none. Anything but the format
// above is kUnsupported or, where it makes no sense, kCorrupt: the error names `file`
// (config.json), the key, what it says and what is supported.
Result<std::optional<Quantization>> parse_quantization(const nlohmann::json& config,
                                                       const std::string& file);

// Finds the scales of every I8 weight matrix among `tensors` (NAME.weight has NAME.weight_scale)
// and sets its row_scales. Errors name the weight's file and tensor: an I8 weight that
// `quantization` (config_file's) does not account for, scales that are missing or of another shape
// or type.
Status attach_row_scales(std::span<CheckpointTensor> tensors,
                         const std::optional<Quantization>& quantization,
                         const std::string& config_file);

}  // namespace pagemill
