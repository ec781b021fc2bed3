// The Llama family's hyper-parameters, as Hugging Face's config.json names them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "loading/checkpoint.h"

namespace pagemill {

struct LlamaConfig {
  std::string architecture;
  std::int32_t hidden_size = 0;
  std::int32_t intermediate_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_size = 0;
  std::int32_t rotary_dim = 0;  // how much of a head turns, even
  std::int32_t vocab_size = 0;
  float rms_norm_eps = 1e-6f;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool mlp_bias = false;
  std::vector<std::int32_t> window;  // [num_layers]; 0: the layer sees everything

  // Errors name the file and the key.
  static Result<LlamaConfig> parse(const Checkpoint& checkpoint);
};

}  // namespace pagemill
