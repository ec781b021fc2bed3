#include "models/llama_config.h"

#include <fmt/format.h>

#include <cmath>

namespace pagemill {
namespace {

using nlohmann::json;

// Hyper-parameters beyond these are hostile or damaged, not models.
constexpr std::int64_t kMaxDimension = 1 << 20;
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxVocabulary = 1 << 24;

class ConfigReader {
 public:
  explicit ConfigReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  bool has(const char* key) const {
    const auto it = checkpoint_.config().find(key);
    return it != checkpoint_.config().end() && !it->is_null();
  }

  Status read_int(const char* key, std::int64_t max, std::int32_t* out) const {
    const auto it = checkpoint_.config().find(key);
    if (it == checkpoint_.config().end()) return fail(key, "expected an integer, found nothing");
    if (!it->is_number_integer())
      return fail(key, fmt::format("expected an integer, got {}", it->dump()));
    const std::int64_t value = it->get<std::int64_t>();
    if (value < 1 || value > max) {
      return fail(key, fmt::format("expected 1..{}, got {}", max, value));
    }
    *out = static_cast<std::int32_t>(value);
    return ok_status();
  }

  Status read_optional_int(const char* key, std::int64_t max, std::int32_t* out) const {
    return has(key) ? read_int(key, max, out) : ok_status();
  }

  bool flag(const char* key, bool fallback) const {
    const auto it = checkpoint_.config().find(key);
    return it != checkpoint_.config().end() && it->is_boolean() ? it->get<bool>() : fallback;
  }

  Status read_float(const char* key, float* out) const {
    if (!has(key)) return ok_status();
    const json& value = checkpoint_.config()[key];
    if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) {
      return fail(key, fmt::format("expected a number >= 0, got {}", value.dump()));
    }
    *out = value.get<float>();
    return ok_status();
  }

  Error fail(const char* key, const std::string& what) const {
    return corrupt(fmt::format("{}: config: {}: {}", checkpoint_.path(), key, what));
  }

 private:
  const Checkpoint& checkpoint_;
};

// Which layers see a sliding window only: layer_types where the config lists them, else
// sliding_window for all layers (Mistral), else for those from max_window_layers on and only where
// use_sliding_window says so (Qwen2).
Status read_windows(const Checkpoint& checkpoint, const ConfigReader& reader, LlamaConfig* config) {
  config->window.assign(config->num_layers, 0);
  std::int32_t window = 0;
  PM_TRY(reader.read_optional_int("sliding_window", INT32_MAX, &window));
  const bool is_qwen = config->architecture == "Qwen2ForCausalLM";
  if (window == 0 || !reader.flag("use_sliding_window", !is_qwen)) return ok_status();

  const json& json_config = checkpoint.config();
  const auto types = json_config.find("layer_types");
  if (is_qwen && types != json_config.end() && types->is_array()) {
    if (types->size() != static_cast<std::size_t>(config->num_layers)) {
      return reader.fail(
          "layer_types",
          fmt::format("expected {} entries, got {}", config->num_layers, types->size()));
    }
    for (std::int32_t i = 0; i < config->num_layers; ++i) {
      if ((*types)[i] == "sliding_attention") config->window[i] = window;
    }
    return ok_status();
  }
  std::int32_t first = 0;
  if (is_qwen && reader.has("max_window_layers") && json_config["max_window_layers"] != 0) {
    PM_TRY(reader.read_int("max_window_layers", kMaxLayers, &first));
  }
  for (std::int32_t i = first; i < config->num_layers; ++i) config->window[i] = window;
  return ok_status();
}

// A GGUF file's rope.dimension_count counts, as in llama.cpp. Transformers' Llama, Mistral and
// Qwen2 turn whole heads whatever their config's partial_rotary_factor says; with a rope_scaling,
// which does look at it, they have no answer (tensors of two sizes meet).
Status read_rotary_dim(const Checkpoint& checkpoint,
                       const ConfigReader& reader,
                       LlamaConfig* config) {
  constexpr const char* kKey = "partial_rotary_factor";
  config->rotary_dim = config->head_size;
  if (!reader.has(kKey)) return ok_status();
  const json& value = checkpoint.config()[kKey];
  const double factor = value.is_number() ? value.get<double>() : 0;
  if (!(factor > 0 && factor <= 1)) {
    return reader.fail(kKey, fmt::format("expected a number in (0, 1], got {}", value.dump()));
  }
  const auto rotary_dim = static_cast<std::int32_t>(config->head_size * factor) / 2 * 2;
  if (rotary_dim == config->head_size) return ok_status();
  if (checkpoint.format() == CheckpointFormat::kGguf) {
    if (rotary_dim == 0) return reader.fail(kKey, "nothing of a head would turn");
    config->rotary_dim = rotary_dim;
  } else if (reader.has("rope_scaling")) {
    return unsupported(fmt::format("{}: config: {}: {} has no meaning together with rope_scaling",
                                   checkpoint.path(),
                                   kKey,
                                   config->architecture));
  }
  return ok_status();
}

}  // namespace

Result<LlamaConfig> LlamaConfig::parse(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  LlamaConfig config;
  config.architecture = checkpoint.config()["architectures"].front().get<std::string>();
  PM_TRY(reader.read_int("hidden_size", kMaxDimension, &config.hidden_size));
  PM_TRY(reader.read_int("intermediate_size", kMaxDimension, &config.intermediate_size));
  PM_TRY(reader.read_int("num_hidden_layers", kMaxLayers, &config.num_layers));
  PM_TRY(reader.read_int("num_attention_heads", kMaxDimension, &config.num_heads));
  PM_TRY(reader.read_int("vocab_size", kMaxVocabulary, &config.vocab_size));
  config.num_kv_heads = config.num_heads;
  PM_TRY(reader.read_optional_int("num_key_value_heads", kMaxDimension, &config.num_kv_heads));
  if (config.num_heads % config.num_kv_heads != 0) {
    return reader.fail("num_key_value_heads",
                       fmt::format("expected a divisor of num_attention_heads ({}), got {}",
                                   config.num_heads,
                                   config.num_kv_heads));
  }
  config.head_size = config.hidden_size / config.num_heads;
  PM_TRY(reader.read_optional_int("head_dim", 256, &config.head_size));
  if (config.head_size % 2 != 0 || config.head_size < 2 || config.head_size > 256) {
    return reader.fail("head_dim",
                       fmt::format("expected an even number up to 256, got {}", config.head_size));
  }
  PM_TRY(read_rotary_dim(checkpoint, reader, &config));
  PM_TRY(reader.read_float("rms_norm_eps", &config.rms_norm_eps));

  const auto act = checkpoint.config().find("hidden_act");
  if (act != checkpoint.config().end() && *act != "silu" && *act != "swish") {
    return unsupported(fmt::format(
        "{}: config: hidden_act: expected 'silu', got {}", checkpoint.path(), act->dump()));
  }
  const bool is_qwen = config.architecture == "Qwen2ForCausalLM";
  config.tie_word_embeddings = reader.flag("tie_word_embeddings", false);
  config.qkv_bias = is_qwen || reader.flag("attention_bias", false);
  config.output_bias = !is_qwen && reader.flag("attention_bias", false);
  config.mlp_bias = reader.flag("mlp_bias", false);
  PM_TRY(read_windows(checkpoint, reader, &config));
  return config;
}

}  // namespace pagemill
