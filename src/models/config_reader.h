// Reads a checkpoint's config.json; errors name the file and the key.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/elementwise.h"
#include "loading/checkpoint.h"
#include "models/decoder_spec.h"

namespace pagemill {

// Hyper-parameters beyond these are hostile or damaged, not models.
inline constexpr std::int64_t kMaxDimension = 1 << 20;
inline constexpr std::int64_t kMaxLayers = 4096;
inline constexpr std::int64_t kMaxVocabulary = 1 << 24;

class ConfigReader {
 public:
  explicit ConfigReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  const nlohmann::json& json() const { return checkpoint_.config(); }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  std::string architecture() const { return json()["architectures"].front().get<std::string>(); }
  bool has(const char* key) const;  // and it is not null
  // The first of the keys that the config has; the first of all if it has none.
  const char* first_of(std::initializer_list<const char*> keys) const;

  // 1..max
  Status read_int(const char* key, std::int64_t max, std::int32_t* out) const;
  Status read_optional_int(const char* key, std::int64_t max, std::int32_t* out) const;
  // A finite number >= 0; `out` stays where there is none.
  Status read_float(const char* key, float* out) const;
  bool flag(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  // By the name that Hugging Face gives it, `fallback` where the config names none.
  Result<Activation> activation(const char* key, const std::string& fallback) const;
  // kUnsupported unless the flag has this value, which is also the default.
  Status require_flag(const char* key, bool value) const;
  // kUnsupported if the key is there and has another value than null, false and 0.
  Status refuse(const char* key) const;

  Error fail(const char* key, const std::string& what) const;  // kCorrupt
  Error not_supported(const char* key, const std::string& what) const;

 private:
  const Checkpoint& checkpoint_;
};

// What a family calls its sizes; null: it has no such key.
struct SizeKeys {
  const char* hidden = "hidden_size";
  const char* intermediate = "intermediate_size";  // absent: four times the hidden size
  const char* layers = "num_hidden_layers";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
  const char* head_size = "head_dim";
  const char* positions = "max_position_embeddings";
};

// A spec with its architecture, sizes, attention_scale = 1/sqrt(head_size) and no windows.
Result<DecoderSpec> read_sizes(const ConfigReader& reader, const SizeKeys& keys);

// Adds a rotation of the first `rotary_dim` elements of every head, in every layer, and takes
// max_positions from it. `freq_factors`: as RotaryEmbedding::create takes them.
Status add_rope(const ConfigReader& reader,
                std::int32_t rotary_dim,
                DecoderSpec* spec,
                std::span<const float> freq_factors = {});
// The share `key` of a head that turns, an even number of elements; all of it without the key.
Result<std::int32_t> read_rotary_dim(const ConfigReader& reader,
                                     const char* key,
                                     double fallback,
                                     std::int32_t head_size);

// "sliding_attention" or "full_attention" of each layer, from `layer_types`; `fallback` gives the
// layers' windows where the config has none.
Status read_layer_types(const ConfigReader& reader,
                        std::int32_t window,
                        const std::vector<std::int32_t>& fallback,
                        DecoderSpec* spec);

// `prefix` where the checkpoint has prefix + name, else nothing: files of a base model lack the
// prefix of those with a head.
std::string prefix_of(const Checkpoint& checkpoint,
                      const std::string& prefix,
                      const std::string& name);

// Slopes of ALiBi (Press et al., arXiv 2108.12409) for any number of heads, the largest exponent
// being `max_bias`.
std::vector<float> alibi_slopes(std::int32_t num_heads, double max_bias = 8);

// Q, K and V in one tensor of the three after one another.
std::vector<LinearSpec> stacked_qkv(const DecoderSpec& spec, const std::string& name, bool bias);
// Q, K and V in one tensor, for each KV head the queries that share it, its key, its value.
std::vector<LinearSpec> grouped_qkv(const DecoderSpec& spec, const std::string& name, bool bias);

}  // namespace pagemill
