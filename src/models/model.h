// Model: an architecture with its weights. One file per architecture; registry.cc lists them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "kernels/isa.h"
#include "kv/kv_spec.h"
#include "layers/forward_batch.h"
#include "layers/kv_storage.h"
#include "loading/checkpoint.h"

namespace pagemill {

struct ModelSpec {
  std::string architecture;  // "LlamaForCausalLM"
  std::string dtype;         // the dtype of most of its weights as computed on: "Q4_1", "BF16"
  std::int32_t num_layers = 0;
  std::int32_t hidden_size = 0;
  std::int32_t vocab_size = 0;
  std::int32_t max_model_len = 0;  // positions that its RoPE was made for
  std::int64_t num_parameters = 0;
  std::size_t weight_bytes = 0;  // resident, packed
  std::vector<KvSpec> kv_specs;  // bytes_per_token for a bf16 cache
  bool prefix_cacheable = true;  // false where a key depends on the prompt's length (dynamic NTK)
};

struct ModelOptions {
  Isa isa = Isa::kScalar;
  std::optional<DType> compute;       // kF32 or kBF16: convert every weight; none: as stored
  std::int32_t max_tokens = 2048;     // rows of the largest ForwardBatch
  std::int32_t max_logits_rows = 64;  // rows of one logits() call
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelSpec& spec() const = 0;

  // Runs every layer over the batch, storing its keys and values, and writes the final hidden state
  // of batch.logits_rows to `hidden` [logits_rows.size(), hidden_size], not yet normed.
  virtual void forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) = 0;

  // Final norm and vocabulary projection: logits [num_rows, vocab_size] of hidden rows
  // [num_rows, hidden_size]; num_rows <= max_logits_rows.
  virtual void logits(const float* hidden, std::int64_t num_rows, float* logits) = 0;
};

// Builds the checkpoint's architecture; kUnsupported lists the known ones. `pool` and `comm` must
// outlive it.
Result<std::unique_ptr<Model>> load_model(const Checkpoint& checkpoint,
                                          const ModelOptions& options,
                                          ThreadPool& pool,
                                          Communicator& comm);

}  // namespace pagemill
