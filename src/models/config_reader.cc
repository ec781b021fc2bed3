#include "models/config_reader.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

namespace pagemill {

using nlohmann::json;

bool ConfigReader::has(const char* key) const {
  const auto it = json().find(key);
  return it != json().end() && !it->is_null();
}

const char* ConfigReader::first_of(std::initializer_list<const char*> keys) const {
  for (const char* key : keys) {
    if (has(key)) return key;
  }
  return *keys.begin();
}

Status ConfigReader::read_int(const char* key, std::int64_t max, std::int32_t* out) const {
  const auto it = json().find(key);
  if (it == json().end()) return fail(key, "expected an integer, found nothing");
  if (!it->is_number_integer()) {
    return fail(key, fmt::format("expected an integer, got {}", it->dump()));
  }
  const std::int64_t value = it->get<std::int64_t>();
  if (value < 1 || value > max) {
    return fail(key, fmt::format("expected 1..{}, got {}", max, value));
  }
  *out = static_cast<std::int32_t>(value);
  return ok_status();
}

Status ConfigReader::read_optional_int(const char* key, std::int64_t max, std::int32_t* out) const {
  return has(key) ? read_int(key, max, out) : ok_status();
}

Status ConfigReader::read_float(const char* key, float* out) const {
  if (!has(key)) return ok_status();
  const auto& value = json()[key];
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0) {
    return fail(key, fmt::format("expected a number >= 0, got {}", value.dump()));
  }
  *out = value.get<float>();
  return ok_status();
}

bool ConfigReader::flag(const char* key, bool fallback) const {
  const auto it = json().find(key);
  return it != json().end() && it->is_boolean() ? it->get<bool>() : fallback;
}

std::string ConfigReader::text(const char* key, const std::string& fallback) const {
  const auto it = json().find(key);
  return it != json().end() && it->is_string() ? it->get<std::string>() : fallback;
}

Result<Activation> ConfigReader::activation(const char* key, const std::string& fallback) const {
  const std::string name = text(key, fallback);
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (name == "gelu") return Activation::kGeluErf;
  if (name == "relu") return Activation::kRelu;
  return not_supported(
      key,
      fmt::format("expected silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh or relu, got '{}'",
                  name));
}

Status ConfigReader::require_flag(const char* key, bool value) const {
  if (flag(key, value) == value) return ok_status();
  return not_supported(key, fmt::format("only {} is supported", value));
}

Status ConfigReader::refuse(const char* key) const {
  if (!has(key)) return ok_status();
  const auto& value = json()[key];
  if (value == false || value == 0) return ok_status();
  return not_supported(key, fmt::format("{} is not supported", value.dump()));
}

Error ConfigReader::fail(const char* key, const std::string& what) const {
  return corrupt(fmt::format("{}: config: {}: {}", checkpoint_.path(), key, what));
}

Error ConfigReader::not_supported(const char* key, const std::string& what) const {
  return unsupported(fmt::format("{}: config: {}: {}", checkpoint_.path(), key, what));
}

Result<DecoderSpec> read_sizes(const ConfigReader& reader, const SizeKeys& keys) {
  DecoderSpec spec;
  spec.architecture = reader.architecture();
  PM_TRY(reader.read_int(keys.hidden, kMaxDimension, &spec.hidden_size));
  spec.intermediate_size = 4 * spec.hidden_size;
  if (keys.intermediate != nullptr) {
    PM_TRY(reader.read_optional_int(keys.intermediate, kMaxDimension, &spec.intermediate_size));
  }
  PM_TRY(reader.read_int(keys.layers, kMaxLayers, &spec.num_layers));
  PM_TRY(reader.read_int(keys.heads, kMaxDimension, &spec.num_heads));
  PM_TRY(reader.read_int("vocab_size", kMaxVocabulary, &spec.vocab_size));
  spec.num_kv_heads = spec.num_heads;
  if (keys.kv_heads != nullptr) {
    PM_TRY(reader.read_optional_int(keys.kv_heads, kMaxDimension, &spec.num_kv_heads));
  }
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return reader.fail(keys.kv_heads,
                       fmt::format("expected a divisor of {} ({}), got {}",
                                   keys.heads,
                                   spec.num_heads,
                                   spec.num_kv_heads));
  }
  spec.head_size = spec.hidden_size / spec.num_heads;
  if (keys.head_size != nullptr) {
    PM_TRY(reader.read_optional_int(keys.head_size, 256, &spec.head_size));
  }
  if (spec.head_size % 2 != 0 || spec.head_size < 2 || spec.head_size > 256) {
    return reader.fail(
        keys.head_size != nullptr ? keys.head_size : keys.heads,
        fmt::format("expected heads of an even size up to 256, got {}", spec.head_size));
  }
  if (keys.positions != nullptr) {
    PM_TRY(reader.read_optional_int(keys.positions, INT32_MAX, &spec.max_positions));
  }
  spec.attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_size));
  spec.window.assign(spec.num_layers, 0);
  return spec;
}

Status add_rope(const ConfigReader& reader,
                std::int32_t rotary_dim,
                DecoderSpec* spec,
                std::span<const float> freq_factors) {
  PM_ASSIGN(RotaryEmbedding rope, RotaryEmbedding::create(reader.json(), rotary_dim, freq_factors));
  spec->max_positions = rope.max_positions();
  spec->ropes.push_back(std::move(rope));
  spec->rope_of_layer.assign(spec->num_layers, 0);
  return ok_status();
}

Result<std::int32_t> read_rotary_dim(const ConfigReader& reader,
                                     const char* key,
                                     double fallback,
                                     std::int32_t head_size) {
  double factor = fallback;
  if (reader.has(key)) {
    const json& value = reader.json()[key];
    factor = value.is_number() ? value.get<double>() : 0;
    if (!(factor > 0 && factor <= 1)) {
      return reader.fail(key, fmt::format("expected a number in (0, 1], got {}", value.dump()));
    }
  }
  const auto rotary_dim = static_cast<std::int32_t>(head_size * factor) / 2 * 2;
  if (rotary_dim == 0) return reader.fail(key, "nothing of a head would turn");
  return rotary_dim;
}

Status read_layer_types(const ConfigReader& reader,
                        std::int32_t window,
                        const std::vector<std::int32_t>& fallback,
                        DecoderSpec* spec) {
  spec->window = fallback;
  const auto types = reader.json().find("layer_types");
  if (types == reader.json().end() || !types->is_array()) return ok_status();
  if (types->size() != static_cast<std::size_t>(spec->num_layers)) {
    return reader.fail("layer_types",
                       fmt::format("expected {} entries, got {}", spec->num_layers, types->size()));
  }
  for (std::int32_t i = 0; i < spec->num_layers; ++i) {
    const json& type = (*types)[i];
    if (type != "sliding_attention" && type != "full_attention") {
      return reader.not_supported(
          "layer_types",
          fmt::format("expected sliding_attention or full_attention, got {}", type.dump()));
    }
    spec->window[i] = type == "sliding_attention" ? window : 0;
  }
  return ok_status();
}

std::string prefix_of(const Checkpoint& checkpoint,
                      const std::string& prefix,
                      const std::string& name) {
  return checkpoint.find(prefix + name) != nullptr || checkpoint.find(name) == nullptr ? prefix
                                                                                       : "";
}

std::vector<float> alibi_slopes(std::int32_t num_heads, double max_bias) {
  const auto heads = static_cast<std::uint32_t>(num_heads);
  const std::uint32_t below = std::bit_floor(heads);
  std::vector<float> slopes;
  for (std::uint32_t i = 1; i <= below; ++i) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * i / below)));
  }
  // Where heads are no power of two: the odd slopes of twice as many.
  for (std::uint32_t i = 1; slopes.size() < heads; i += 2) {
    slopes.push_back(static_cast<float>(std::exp2(-max_bias * i / (2 * below))));
  }
  return slopes;
}

std::vector<LinearSpec> stacked_qkv(const DecoderSpec& spec, const std::string& name, bool bias) {
  const std::int64_t q = spec.q_size(), kv = spec.kv_size(), total = q + 2 * kv;
  const auto part = [&](std::int64_t size, std::int64_t first) {
    return LinearSpec{.name = name,
                      .out_features = size,
                      .bias = bias,
                      .rows = {.total = total, .first = first, .group = size, .stride = size}};
  };
  return {part(q, 0), part(kv, q), part(kv, q + kv)};
}

std::vector<LinearSpec> grouped_qkv(const DecoderSpec& spec, const std::string& name, bool bias) {
  const std::int64_t head = spec.head_size;
  const std::int64_t queries = spec.num_heads / spec.num_kv_heads * head;
  const auto part = [&](std::int64_t size, std::int64_t first, std::int64_t group) {
    return LinearSpec{.name = name,
                      .out_features = size,
                      .bias = bias,
                      .rows = {.total = spec.q_size() + 2 * spec.kv_size(),
                               .first = first,
                               .group = group,
                               .stride = queries + 2 * head}};
  };
  return {part(spec.q_size(), 0, queries),
          part(spec.kv_size(), queries, head),
          part(spec.kv_size(), queries + head, head)};
}

}  // namespace pagemill
