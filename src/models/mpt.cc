// MPT: positions by ALiBi, no biases.
//
// Source: MosaicML, "Introducing MPT-7B" (2023).
#include <fmt/format.h>

#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> mpt_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_TRY(reader.require_flag("no_bias", true));
  PM_TRY(reader.refuse("logit_scale"));
  PM_ASSIGN(DecoderSpec spec,
            read_sizes(reader,
                       {.hidden = "d_model",
                        .intermediate = nullptr,
                        .layers = "n_layers",
                        .heads = "n_heads",
                        .kv_heads = nullptr,
                        .head_size = nullptr,
                        .positions = "max_seq_len"}));
  std::int32_t ratio = 4;
  PM_TRY(reader.read_optional_int("expansion_ratio", 64, &ratio));
  spec.intermediate_size = ratio * spec.hidden_size;
  if (spec.max_positions == 0) spec.max_positions = 2048;
  spec.activation = Activation::kGeluErf;
  double max_bias = 8;
  if (reader.has("attn_config")) {
    const nlohmann::json& attention = reader.json()["attn_config"];
    for (const char* key : {"qk_ln", "prefix_lm"}) {
      if (attention.value(key, false))
        return reader.not_supported("attn_config", fmt::format("{} is not supported", key));
    }
    if (!attention.value("alibi", true)) {
      return reader.not_supported("attn_config", "only alibi is supported");
    }
    const auto number = [&](const char* key, double fallback) {
      const auto it = attention.find(key);
      return it != attention.end() && it->is_number() ? it->get<double>() : fallback;
    };
    spec.clip_qkv = static_cast<float>(number("clip_qkv", 0));
    spec.attention_scale = static_cast<float>(number("softmax_scale", spec.attention_scale));
    max_bias = number("alibi_bias_max", max_bias);
  }
  spec.alibi_slopes = alibi_slopes(spec.num_heads, max_bias);
  float eps = 1e-5f;
  PM_TRY(reader.read_float("layer_norm_epsilon", &eps));
  const std::string prefix = prefix_of(checkpoint, "transformer.", "wte.weight");
  spec.embedding = prefix + "wte";
  spec.layer_prefix = prefix + "blocks.";
  DecoderLayerSpec& layer = spec.layer;
  layer.attention_norm = layer_norm("norm_1", eps, false);
  layer.mlp_norm = layer_norm("norm_2", eps, false);
  layer.qkv = stacked_qkv(spec, "attn.Wqkv", false);
  layer.output = {"attn.out_proj", spec.hidden_size, false};
  layer.up = {{"ffn.up_proj", spec.intermediate_size, false}};
  layer.down = {"ffn.down_proj", spec.hidden_size, false};
  spec.final_norm = layer_norm(prefix + "norm_f", eps, false);
  set_head(reader, "lm_head", true, &spec);
  return spec;
}

}  // namespace pagemill
