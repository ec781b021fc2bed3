// Checkpoint: a model as it was published, whatever the file format: its configuration in Hugging
// Face's terms, its tensors by Hugging Face name, memory-mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor_view.h"

namespace pagemill {

struct CheckpointTensor {
  std::string name;         // Hugging Face's ("model.layers.0.self_attn.q_proj.weight")
  std::string source_name;  // the file's own ("blk.0.attn_q.weight")
  TensorView view;
  std::string file;
  std::uint64_t offset = 0;  // in `file`, bytes
  // Of an I8 weight [rows, cols]: F32, F16 or BF16, `rows` of them; what its integers are
  // multiplied by.
  std::optional<TensorView> row_scales = std::nullopt;
};

enum class CheckpointFormat { kGguf, kSafetensors, kTorch };

class Checkpoint {
 public:
  // `path`: a .gguf file or a Hugging Face directory (safetensors, else pytorch_model*.bin; sharded
  // too).
  static Result<std::unique_ptr<Checkpoint>> open(const std::string& path);
  virtual ~Checkpoint() = default;

  virtual CheckpointFormat format() const = 0;
  virtual const std::string& path() const = 0;
  // config.json, or the same keys derived from GGUF metadata ("architectures", "hidden_size",
  // "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
  // "rms_norm_eps", "rope_theta", "rope_scaling", "max_position_embeddings", "vocab_size",
  // "tie_word_embeddings", ...).
  virtual const nlohmann::json& config() const = 0;
  // generation_config.json, or what GGUF metadata says (eos_token_id, bos_token_id); {} if there is
  // none.
  virtual const nlohmann::json& generation_config() const = 0;
  virtual std::span<const CheckpointTensor> tensors() const = 0;
  // By Hugging Face name; null if absent.
  virtual const CheckpointTensor* find(std::string_view name) const = 0;
  // Whether Q and K rows interleave the rotary halves of each head (GGUF's llama architecture).
  virtual bool rotary_interleaved() const = 0;
  // A tensor's source pages are no longer needed (after packing): gives them back to the system.
  virtual void release(const CheckpointTensor& tensor) const = 0;
};

// Finds the tensor and checks its shape; the error names the file, the tensor and both shapes.
Result<const CheckpointTensor*> require_tensor(const Checkpoint& checkpoint,
                                               std::string_view name,
                                               std::span<const std::int64_t> shape);

}  // namespace pagemill
