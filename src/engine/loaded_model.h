// LoadedModel: everything that is read from a model's files, ready to run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "engine/engine_client.h"
#include "engine/engine_options.h"
#include "kernels/isa.h"
#include "loading/checkpoint.h"
#include "models/model.h"
#include "tokenizer/tokenizer.h"

namespace pagemill {

// Rows of logits computed at once: bounds their memory (rows * vocabulary * 4 bytes).
inline constexpr std::int32_t kMaxLogitsRows = 64;

struct LoadedModel {
  Isa isa = Isa::kScalar;
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;         // null: the model has none, token ids only
  std::shared_ptr<const ChatTemplate> chat_template;  // null: none
  DType kv_dtype = DType::kBF16;
  ModelInfo info;  // max_model_len as the model has it
};

// Opens options.model and loads its weights and tokenizer (side by side).
Result<LoadedModel> load_engine_model(const EngineOptions& options);

}  // namespace pagemill
