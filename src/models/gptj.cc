// GPT-J: attention and MLP side by side behind one LayerNorm; neighbouring elements of a part of
// every head are turned.
//
// Source: Wang and Komatsuzaki, "GPT-J-6B" (2021).
#include <fmt/format.h>

#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> gptj_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec,
            read_sizes(reader,
                       {.hidden = "n_embd",
                        .intermediate = "n_inner",
                        .layers = "n_layer",
                        .heads = "n_head",
                        .kv_heads = nullptr,
                        .head_size = nullptr,
                        .positions = "n_positions"}));
  PM_ASSIGN(spec.activation, reader.activation("activation_function", "gelu_new"));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_epsilon", &eps));
  std::int32_t rotary_dim = 64;
  PM_TRY(reader.read_optional_int("rotary_dim", spec.head_size, &rotary_dim));
  if (rotary_dim % 2 != 0) {
    return reader.fail("rotary_dim", fmt::format("expected an even number, got {}", rotary_dim));
  }
  const std::string prefix = prefix_of(checkpoint, "transformer.", "wte.weight");
  spec.embedding = prefix + "wte";
  spec.layer_prefix = prefix + "h.";
  spec.parallel = true;
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("ln_1", eps);
  const RowOrder order{.rotary_heads = spec.num_heads, .rotary_dim = rotary_dim};
  layer.qkv = {{"attn.q_proj", spec.q_size(), false, order},
               {"attn.k_proj", spec.q_size(), false, order},
               {"attn.v_proj", spec.q_size(), false, {}}};
  layer.output = {"attn.out_proj", spec.hidden_size, false};
  layer.up = {{"mlp.fc_in", spec.intermediate_size, true}};
  layer.down = {"mlp.fc_out", spec.hidden_size, true};
  spec.final_norm = layer_norm(prefix + "ln_f", eps);
  set_head(reader, "lm_head", false, &spec);
  spec.lm_head.bias = true;
  const std::int32_t positions = spec.max_positions > 0 ? spec.max_positions : 2048;
  PM_TRY(add_rope(reader, rotary_dim, &spec));
  spec.max_positions = positions;
  return spec;
}

}  // namespace pagemill
