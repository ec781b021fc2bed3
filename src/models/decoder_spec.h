// DecoderSpec: what distinguishes one decoder-only transformer from another, as data. A family's
// file (llama.cc, gpt2.cc, ...) makes one out of a checkpoint's config; Decoder loads and runs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "layers/linear.h"
#include "layers/moe.h"
#include "layers/norm.h"
#include "layers/rotary.h"

namespace pagemill {

// Rows of a table of position embeddings are numbered from position -offset on (OPT: 2).
struct PositionTable {
  std::string name;  // without ".weight"
  std::int64_t rows = 0;
  std::int64_t offset = 0;
};

// One layer's tensors, their names without the layer's prefix.
struct DecoderLayerSpec {
  // What is left out does not exist. In a parallel block without an mlp_norm, attention_norm serves
  // both.
  std::optional<NormSpec> attention_norm, mlp_norm;            // of what a branch reads
  std::optional<NormSpec> attention_post_norm, mlp_post_norm;  // of what it adds
  std::optional<NormSpec> q_norm, k_norm;                      // before the rotation
  std::vector<LinearSpec> qkv;                                 // Q, K, V
  LinearSpec output;
  std::vector<LinearSpec> up;  // gate and up, or up alone
  LinearSpec down;
};

struct DecoderSpec {
  std::string architecture;
  std::int32_t hidden_size = 0;
  std::int32_t intermediate_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_size = 0;
  std::int32_t vocab_size = 0;
  std::int32_t max_positions = 0;

  std::string embedding;  // without ".weight"
  float embedding_scale = 1;
  std::optional<PositionTable> positions;
  std::optional<NormSpec> embedding_norm;

  // Rotations, and which one each layer uses: [num_layers]; empty: none.
  std::vector<RotaryEmbedding> ropes;
  std::vector<std::int32_t> rope_of_layer;
  std::vector<float> alibi_slopes;  // [num_heads] or empty

  float attention_scale = 0;
  float attention_softcap = 0;       // 0: none
  float clip_qkv = 0;                // Q, K and V are held within +-clip_qkv; 0: none
  std::vector<std::int32_t> window;  // [num_layers]; 0: the layer sees everything

  std::string layer_prefix;  // "model.layers.", before the layer's number and a dot
  DecoderLayerSpec layer;
  std::optional<MoeSpec> moe;    // in place of the MLP ..
  std::vector<bool> moe_layers;  // .. in these layers: [num_layers], empty without
  Activation activation = Activation::kSilu;
  bool parallel = false;   // attention and MLP read the same residual stream
  float branch_scale = 1;  // of what a branch adds to the residual stream

  std::optional<NormSpec> final_norm;
  LinearSpec lm_head;  // named as the embedding where they are tied
  float logits_scale = 1;
  float logits_softcap = 0;  // 0: none

  std::int64_t q_size() const { return std::int64_t{num_heads} * head_size; }
  std::int64_t kv_size() const { return std::int64_t{num_kv_heads} * head_size; }
  bool has_experts(std::int32_t index) const { return moe && moe_layers[index]; }
  bool is_gated() const { return layer.up.size() == 2; }
};

}  // namespace pagemill
