// What the families have in common that name their tensors as LLaMA does.
#pragma once

#include "models/config_reader.h"

namespace pagemill {

struct LlamaBiases {
  bool qkv = false;
  bool output = false;  // of the attention's output projection
  bool mlp = false;
};

// The sizes, a gated MLP by `hidden_act`, separate Q, K and V, no norms, no rotation yet.
Result<DecoderSpec> llama_like(const ConfigReader& reader, const LlamaBiases& biases);

// The elements of a head that turn: a GGUF file's rope.dimension_count counts, as in llama.cpp.
// Transformers' Llama, Mistral and Qwen2 turn whole heads whatever their config's
// partial_rotary_factor says; with a rope_scaling, which does look at it, they have no answer
// (tensors of two sizes meet).
Result<std::int32_t> whole_rotary_dim(const ConfigReader& reader, const DecoderSpec& spec);

// RMSNorms before attention and MLP and at the end.
void add_rms_norms(float eps, DecoderSpec* spec);

NormSpec rms_norm(const std::string& name, float eps);
NormSpec layer_norm(const std::string& name, float eps, bool bias = true);

// The output projection: the embedding's weights, or `name` where they are not tied.
void set_head(const ConfigReader& reader,
              const std::string& name,
              bool tied_by_default,
              DecoderSpec* spec);

// The number of experts, by its key, and num_experts_per_tok.
Status read_experts(const ConfigReader& reader, const char* key, MoeSpec* moe);

// `sliding_window` in every layer, if the config has one.
Status read_window(const ConfigReader& reader, DecoderSpec* spec);

}  // namespace pagemill
