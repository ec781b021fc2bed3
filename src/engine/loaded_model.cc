#include "engine/loaded_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <sstream>

#include "base/logging.h"

namespace pagemill {
namespace {

using nlohmann::json;

Result<std::optional<DType>> parse_dtype(const std::string& name, const char* option) {
  if (name == "auto") return std::optional<DType>();
  if (name == "float32") return std::optional<DType>(DType::kF32);
  if (name == "bfloat16") return std::optional<DType>(DType::kBF16);
  return invalid_argument(
      fmt::format("--{}: expected auto, float32 or bfloat16, got '{}'", option, name), option);
}

// A directory without tokenizer files serves token ids only.
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.format() == CheckpointFormat::kGguf)
    return Tokenizer::from_gguf(checkpoint.path());
  const std::filesystem::path directory(checkpoint.path());
  for (const char* file : {"tokenizer.json", "vocab.json", "tokenizer.model"}) {
    if (std::filesystem::exists(directory / file)) {
      return Tokenizer::from_directory(checkpoint.path());
    }
  }
  spdlog::warn("{}: no tokenizer.json, vocab.json or tokenizer.model: token ids only",
               checkpoint.path());
  return std::shared_ptr<const Tokenizer>();
}

Result<std::shared_ptr<const ChatTemplate>> load_chat_template(const std::string& choice,
                                                               const Tokenizer* tokenizer) {
  std::shared_ptr<const ChatTemplate> none;
  if (tokenizer == nullptr) return none;
  std::string source = tokenizer->chat_template();
  if (!choice.empty()) {
    source = builtin_chat_template(choice);
    if (source.empty()) {
      std::ifstream file(choice, std::ios::binary);
      if (!file) {
        return not_found(fmt::format(
            "--chat-template: '{}' is neither a file nor one of chatml, llama2, vicuna", choice));
      }
      source = (std::ostringstream() << file.rdbuf()).str();
    }
  }
  if (source.empty()) return none;
  return ChatTemplate::compile(std::move(source), *tokenizer);
}

// What a weight of the checkpoint is computed in under --dtype auto. f16 checkpoints are kept in 16
// bits as bf16; quantized ones are kept as they are.
std::optional<DType> auto_compute(const Checkpoint& checkpoint) {
  if (checkpoint.format() == CheckpointFormat::kGguf) return std::nullopt;
  bool has_f16 = false;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (tensor.row_scales) return std::nullopt;
    has_f16 |= tensor.view.shape.size() == 2 && tensor.view.dtype == DType::kF16;
  }
  return has_f16 ? std::optional(DType::kBF16) : std::nullopt;
}

template <typename T>
void read_default(const json& config, const char* key, T* out) {
  const auto it = config.find(key);
  if (it != config.end() && it->is_number()) *out = it->get<T>();
}

void read_eos(const json& config, std::vector<TokenId>* ids) {
  const auto it = config.find("eos_token_id");
  if (it == config.end()) return;
  const auto add = [&](const json& value) {
    if (!value.is_number_integer()) return;
    const auto id = value.get<TokenId>();
    if (std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
  };
  if (it->is_array()) {
    for (const json& value : *it) add(value);
  } else {
    add(*it);
  }
}

ModelInfo describe(const EngineOptions& options, const LoadedModel& loaded) {
  const ModelSpec& spec = loaded.model->spec();
  const json& generation = loaded.checkpoint->generation_config();
  ModelInfo info;
  info.path = options.model;
  info.architecture = spec.architecture;
  info.vocab_size = spec.vocab_size;
  info.max_model_len = spec.max_model_len;
  info.num_parameters = spec.num_parameters;
  info.dtype = spec.dtype;
  read_default(generation, "temperature", &info.default_sampling.temperature);
  read_default(generation, "top_p", &info.default_sampling.top_p);
  read_default(generation, "top_k", &info.default_sampling.top_k);
  read_default(generation, "min_p", &info.default_sampling.min_p);
  read_default(generation, "repetition_penalty", &info.default_sampling.repetition_penalty);
  if (loaded.tokenizer) info.eos_token_ids = loaded.tokenizer->eos_token_ids();
  read_eos(generation, &info.eos_token_ids);
  read_eos(loaded.checkpoint->config(), &info.eos_token_ids);
  std::erase_if(info.eos_token_ids, [&](TokenId id) { return id < 0 || id >= info.vocab_size; });
  return info;
}

}  // namespace

Result<LoadedModel> load_engine_model(const EngineOptions& options) {
  PM_ASSIGN(std::optional<DType> compute, parse_dtype(options.dtype, "dtype"));
  PM_ASSIGN(const std::optional<DType> kv_dtype,
            parse_dtype(options.kv_cache_dtype, "kv-cache-dtype"));
  LoadedModel loaded;
  PM_ASSIGN(loaded.isa, choose_isa());
  loaded.pool =
      std::make_unique<ThreadPool>(options.threads > 0 ? options.threads : default_num_threads());
  loaded.comm = make_single_communicator();
  PM_ASSIGN(loaded.checkpoint, Checkpoint::open(options.model));
  if (!compute) compute = auto_compute(*loaded.checkpoint);

  // The vocabulary takes about as long as packing the weights: both at once.
  auto tokenizer =
      std::async(std::launch::async, [&] { return load_tokenizer(*loaded.checkpoint); });
  auto model = load_model(*loaded.checkpoint,
                          {.isa = loaded.isa,
                           .compute = compute,
                           .max_tokens = options.max_num_batched_tokens,
                           .max_logits_rows = kMaxLogitsRows},
                          *loaded.pool,
                          *loaded.comm);
  PM_ASSIGN(loaded.tokenizer, tokenizer.get());
  PM_ASSIGN(loaded.model, std::move(model));
  PM_ASSIGN(loaded.chat_template,
            load_chat_template(options.chat_template, loaded.tokenizer.get()));
  loaded.info = describe(options, loaded);
  const bool computes_in_f32 = loaded.info.dtype == dtype_info(DType::kF32).name;
  loaded.kv_dtype = kv_dtype.value_or(computes_in_f32 ? DType::kF32 : DType::kBF16);
  return loaded;
}

}  // namespace pagemill
