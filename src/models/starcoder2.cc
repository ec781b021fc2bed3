// StarCoder2: Llama's names, with LayerNorms, biases and an MLP without a gate.
//
// Source: arXiv 2402.19173.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> starcoder2_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool bias = reader.flag("use_bias", true);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {.qkv = bias, .output = bias}));
  set_head(reader, "lm_head", true, &spec);
  PM_ASSIGN(spec.activation, reader.activation("hidden_act", "gelu_pytorch_tanh"));
  spec.layer.up = {{"mlp.c_fc", spec.intermediate_size, bias}};
  spec.layer.down = {"mlp.c_proj", spec.hidden_size, bias};
  float eps = 1e-5f;
  PM_TRY(reader.read_float("norm_epsilon", &eps));
  spec.layer.attention_norm = layer_norm("input_layernorm", eps);
  spec.layer.mlp_norm = layer_norm("post_attention_layernorm", eps);
  spec.final_norm = layer_norm("model.norm", eps);
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  PM_TRY(read_window(reader, &spec));
  return spec;
}

}  // namespace pagemill
