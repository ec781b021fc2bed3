#include "loading/gguf_names.h"

#include <algorithm>
#include <array>
#include <utility>

namespace pagemill {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

constexpr std::array<Renaming, 3> kWhole = {{
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
}};

constexpr std::array<Renaming, 11> kPerLayer = {{
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

template <std::size_t N>
std::string_view renamed(const std::array<Renaming, N>& table, std::string_view from) {
  for (const auto& [gguf, huggingface] : table) {
    if (gguf == from) return huggingface;
  }
  return {};
}

}  // namespace

std::string huggingface_tensor_name(std::string_view gguf_name) {
  const std::size_t dot = gguf_name.rfind('.');
  if (dot == std::string_view::npos) return std::string(gguf_name);
  const std::string_view suffix = gguf_name.substr(dot);  // ".weight" or ".bias"
  std::string_view stem = gguf_name.substr(0, dot);
  if (suffix != ".weight" && suffix != ".bias") return std::string(gguf_name);
  if (const auto whole = renamed(kWhole, stem); !whole.empty()) {
    return std::string(whole) + std::string(suffix);
  }
  if (!stem.starts_with("blk.")) return std::string(gguf_name);
  stem.remove_prefix(4);
  const std::size_t layer_end = stem.find('.');
  if (layer_end == 0 || layer_end == std::string_view::npos) return std::string(gguf_name);
  const std::string_view layer = stem.substr(0, layer_end);
  if (!std::all_of(layer.begin(), layer.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return std::string(gguf_name);
  }
  const auto part = renamed(kPerLayer, stem.substr(layer_end + 1));
  if (part.empty()) return std::string(gguf_name);
  return "model.layers." + std::string(layer) + "." + std::string(part) + std::string(suffix);
}

}  // namespace pagemill
