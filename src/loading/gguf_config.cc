#include "loading/gguf_config.h"

#include <array>
#include <cmath>
#include <string>
#include <utility>

namespace pagemill {
namespace {

using nlohmann::json;

constexpr std::string_view kSupported = "llama, qwen2";
constexpr std::int64_t kMaxDimension = 1 << 28;

bool has_tensor(const GgufFile& file, std::string_view name) {
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name == name) return true;
  }
  return false;
}

class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)) {}

  Result<json> run() {
    PM_TRY(check_no_experts());
    PM_TRY(model_name());
    PM_TRY(dimensions());
    PM_TRY(attention_heads());
    PM_TRY(vocabulary());
    PM_TRY(rope());
    PM_TRY(sliding_window());
    config_["hidden_act"] = "silu";
    config_["tie_word_embeddings"] = !has_tensor(file_, "output.weight");
    config_["attention_bias"] = has_tensor(file_, "blk.0.attn_q.bias");
    config_["mlp_bias"] = has_tensor(file_, "blk.0.ffn_gate.bias");
    return std::move(config_);
  }

 private:
  std::string key(std::string_view suffix) const {
    return architecture_ + "." + std::string(suffix);
  }
  Error missing(std::string_view suffix) const {
    return corrupt(fmt::format("{}: the metadata lack key '{}'", file_.name(), key(suffix)));
  }
  template <typename T>
  Error bad(std::string_view suffix, T value, std::string_view wanted) const {
    const GgufEntry* const entry = file_.find(key(suffix));
    return corrupt(fmt::format("{}: offset {}: key '{}': {} is not {}",
                               file_.name(),
                               entry != nullptr ? entry->offset : 0,
                               key(suffix),
                               value,
                               wanted));
  }

  // 1..kMaxDimension, or nothing if absent.
  Result<std::optional<std::int64_t>> dimension(std::string_view suffix) const {
    PM_ASSIGN(const auto value, file_.integer(key(suffix)));
    if (value && (*value < 1 || *value > kMaxDimension)) {
      return bad(suffix, *value, fmt::format("between 1 and {}", kMaxDimension));
    }
    return value;
  }
  Result<std::int64_t> required_dimension(std::string_view suffix) const {
    PM_ASSIGN(const auto value, dimension(suffix));
    if (!value) return missing(suffix);
    return *value;
  }
  // Finite and positive, or nothing if absent.
  Result<std::optional<double>> positive(std::string_view suffix) const {
    PM_ASSIGN(const auto value, file_.number(key(suffix)));
    if (value && !(std::isfinite(*value) && *value > 0)) {
      return bad(suffix, *value, "finite and positive");
    }
    return value;
  }

  Status check_no_experts() const {
    PM_ASSIGN(const auto experts, file_.integer(key("expert_count")));
    if (experts.value_or(0) != 0) {
      return unsupported(fmt::format("{}: key '{}' is {}: mixtures of experts are not supported",
                                     file_.name(),
                                     key("expert_count"),
                                     *experts));
    }
    PM_ASSIGN(const auto parts, file_.integer("split.count"));
    if (parts.value_or(1) > 1) {
      return unsupported(fmt::format(
          "{}: key 'split.count' is {}: a split GGUF model is not supported; merge its parts",
          file_.name(),
          *parts));
    }
    return ok_status();
  }

  Status model_name() {
    const bool qwen2 = architecture_ == "qwen2";
    config_["architectures"] = {qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"};
    config_["model_type"] = qwen2 ? "qwen2" : "llama";
    PM_ASSIGN(const auto name, file_.string("general.name"));
    if (name) config_["_name_or_path"] = printable(*name);
    return ok_status();
  }

  // JSON holds UTF-8 only; a file's string may hold anything.
  static std::string printable(std::string_view text) {
    const json escaped = std::string(text);
    const std::string dumped = escaped.dump(-1, ' ', false, json::error_handler_t::replace);
    return json::parse(dumped).get<std::string>();
  }

  Status dimensions() {
    constexpr std::array<std::pair<const char*, const char*>, 4> kKeys = {{
        {"block_count", "num_hidden_layers"},
        {"context_length", "max_position_embeddings"},
        {"embedding_length", "hidden_size"},
        {"feed_forward_length", "intermediate_size"},
    }};
    for (const auto& [suffix, name] : kKeys) {
      PM_ASSIGN(config_[name], required_dimension(suffix));
    }
    constexpr const char* kEpsilon = "attention.layer_norm_rms_epsilon";
    PM_ASSIGN(const auto epsilon, positive(kEpsilon));
    if (!epsilon) return missing(kEpsilon);
    config_["rms_norm_eps"] = *epsilon;
    return ok_status();
  }

  Status attention_heads() {
    PM_ASSIGN(const std::int64_t heads, required_dimension("attention.head_count"));
    PM_ASSIGN(const auto kv_heads, dimension("attention.head_count_kv"));
    config_["num_attention_heads"] = heads;
    config_["num_key_value_heads"] = kv_heads.value_or(heads);
    if (heads % kv_heads.value_or(heads) != 0) {
      return bad("attention.head_count_kv", *kv_heads, fmt::format("a divisor of {} heads", heads));
    }
    const auto hidden = config_["hidden_size"].get<std::int64_t>();
    PM_ASSIGN(const auto key_length, dimension("attention.key_length"));
    PM_ASSIGN(const auto value_length, dimension("attention.value_length"));
    if (!key_length && hidden % heads != 0) {
      return bad("attention.head_count", heads, fmt::format("a divisor of {}", hidden));
    }
    head_dim_ = key_length.value_or(hidden / heads);
    if (value_length.value_or(head_dim_) != head_dim_) {
      return bad(
          "attention.value_length", *value_length, fmt::format("the key length {}", head_dim_));
    }
    config_["head_dim"] = head_dim_;
    return ok_status();
  }

  Status vocabulary() {
    PM_ASSIGN(auto size, dimension("vocab_size"));
    if (!size) {
      PM_ASSIGN(const auto tokens, file_.array("tokenizer.ggml.tokens"));
      if (!tokens) return missing("vocab_size");
      size = static_cast<std::int64_t>(tokens->count);
    }
    config_["vocab_size"] = *size;
    return ok_status();
  }

  Status rope() {
    PM_ASSIGN(const auto theta, positive("rope.freq_base"));
    config_["rope_theta"] = theta.value_or(10'000.0);
    PM_ASSIGN(const auto rotated, dimension("rope.dimension_count"));
    if (rotated && *rotated != head_dim_) {
      if (*rotated > head_dim_ || *rotated % 2 != 0) {
        return bad("rope.dimension_count", *rotated, fmt::format("even and at most {}", head_dim_));
      }
      config_["partial_rotary_factor"] =
          static_cast<double>(*rotated) / static_cast<double>(head_dim_);
    }
    PM_ASSIGN(config_["rope_scaling"], rope_scaling());
    return ok_status();
  }

  // A file whose frequencies are scaled one by one (Llama 3) has the factors in a tensor,
  // "rope_freqs.weight", and no rope.scaling keys.
  Result<json> rope_scaling() const {
    PM_ASSIGN(const auto type, file_.string(key("rope.scaling.type")));
    PM_ASSIGN(auto factor, positive("rope.scaling.factor"));
    if (!factor) {
      PM_ASSIGN(factor, positive("rope.scale_linear"));  // before rope.scaling.* existed
    }
    if (type.value_or("linear") == "none" || (!type && !factor)) return json(nullptr);
    json scaling = {{"rope_type", std::string(type.value_or("linear"))}};
    if (scaling["rope_type"] == "linear") {
      if (factor.value_or(1.0) == 1.0) return json(nullptr);
    } else if (scaling["rope_type"] != "yarn") {
      return unsupported(fmt::format("{}: key '{}' is {}; supported: none, linear, yarn",
                                     file_.name(),
                                     key("rope.scaling.type"),
                                     in_quotes(*type)));
    }
    if (!factor) return missing("rope.scaling.factor");
    scaling["factor"] = *factor;
    PM_ASSIGN(const auto original, dimension("rope.scaling.original_context_length"));
    if (original) scaling["original_max_position_embeddings"] = *original;
    if (scaling["rope_type"] == "yarn") PM_TRY(yarn(*factor, scaling));
    return scaling;
  }

  Status yarn(double factor, json& scaling) const {
    PM_ASSIGN(const auto beta_fast, positive("rope.scaling.yarn_beta_fast"));
    PM_ASSIGN(const auto beta_slow, positive("rope.scaling.yarn_beta_slow"));
    if (beta_fast) scaling["beta_fast"] = *beta_fast;
    if (beta_slow) scaling["beta_slow"] = *beta_slow;
    // ggml multiplies this by YaRN's own 0.1 ln(factor) + 1, where Hugging Face replaces it.
    PM_ASSIGN(const auto attention, positive("rope.scaling.attn_factor"));
    if (attention && *attention != 1.0) {
      scaling["attention_factor"] = *attention * (0.1 * std::log(factor) + 1.0);
    }
    return ok_status();
  }

  Status sliding_window() {
    PM_ASSIGN(const auto window, file_.integer(key("attention.sliding_window")));
    config_["sliding_window"] = nullptr;
    if (window.value_or(0) == 0) return ok_status();
    if (*window < 0 || *window > kMaxDimension) {
      return bad("attention.sliding_window", *window, fmt::format("0 to {}", kMaxDimension));
    }
    config_["sliding_window"] = *window;
    if (architecture_ == "qwen2") {
      config_["use_sliding_window"] = true;
      config_["max_window_layers"] = 0;
    } else {  // Hugging Face's Llama ignores a window; its Mistral is the same model with one
      config_["architectures"] = {"MistralForCausalLM"};
      config_["model_type"] = "mistral";
    }
    return ok_status();
  }

  const GgufFile& file_;
  std::string architecture_;
  std::int64_t head_dim_ = 0;
  json config_ = json::object();
};

}  // namespace

Result<json> gguf_config(const GgufFile& file) {
  PM_ASSIGN(const auto architecture, file.string("general.architecture"));
  if (!architecture) {
    return corrupt(fmt::format("{}: the metadata lack key 'general.architecture'", file.name()));
  }
  if (*architecture != "llama" && *architecture != "qwen2") {
    return unsupported(fmt::format("{}: offset {}: architecture {} is not supported; supported: {}",
                                   file.name(),
                                   file.find("general.architecture")->offset,
                                   in_quotes(*architecture),
                                   kSupported));
  }
  return ConfigReader(file, std::string(*architecture)).run();
}

Result<json> gguf_generation_config(const GgufFile& file) {
  json config = json::object();
  for (const char* const name : {"bos_token_id", "eos_token_id"}) {
    const std::string key = std::string("tokenizer.ggml.") + name;
    PM_ASSIGN(const auto id, file.integer(key));
    if (!id) continue;
    if (*id < 0 || *id > INT32_MAX) {
      return corrupt(fmt::format("{}: offset {}: key '{}': {} is no token id",
                                 file.name(),
                                 file.find(key)->offset,
                                 key,
                                 *id));
    }
    config[name] = *id;
  }
  // Chat models end a turn with a token of its own beside the end of text.
  PM_ASSIGN(const auto end_of_turn, file.integer("tokenizer.ggml.eot_token_id"));
  if (end_of_turn && *end_of_turn >= 0 && *end_of_turn <= INT32_MAX &&
      config.contains("eos_token_id") && config["eos_token_id"] != *end_of_turn) {
    config["eos_token_id"] = json::array({config["eos_token_id"], *end_of_turn});
  }
  PM_ASSIGN(const auto padding, file.integer("tokenizer.ggml.padding_token_id"));
  if (padding && *padding >= 0 && *padding <= INT32_MAX) config["pad_token_id"] = *padding;
  return config;
}

}  // namespace pagemill
