// Qwen2-MoE (an expert that every token passes beside those chosen) and Qwen3-MoE (without).
//
// Sources: arXiv 2407.10671, arXiv 2505.09388.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {
namespace {

// All layers but those in mlp_only_layers, of them every decoder_sparse_step-th.
Status read_moe_layers(const ConfigReader& reader, DecoderSpec* spec) {
  std::int32_t step = 1;
  PM_TRY(reader.read_optional_int("decoder_sparse_step", kMaxLayers, &step));
  spec->moe_layers.assign(spec->num_layers, false);
  for (std::int32_t i = step - 1; i < spec->num_layers; i += step) spec->moe_layers[i] = true;
  if (!reader.has("mlp_only_layers")) return ok_status();
  const nlohmann::json& dense = reader.json()["mlp_only_layers"];
  if (!dense.is_array()) return reader.fail("mlp_only_layers", "expected a list of layers");
  for (const nlohmann::json& layer : dense) {
    const std::int64_t index = layer.is_number_integer() ? layer.get<std::int64_t>() : -1;
    if (index < 0 || index >= spec->num_layers) {
      return reader.fail("mlp_only_layers", "expected numbers of layers, got " + layer.dump());
    }
    spec->moe_layers[index] = false;
  }
  return ok_status();
}

ExpertSpec expert(const std::string& prefix, std::int64_t intermediate_size) {
  return {prefix + "gate_proj", prefix + "up_proj", prefix + "down_proj", intermediate_size};
}

}  // namespace

Result<DecoderSpec> qwen_moe_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, qwen_spec(checkpoint));
  std::int32_t width = 0, shared_width = 0;
  PM_TRY(reader.read_int("moe_intermediate_size", kMaxDimension, &width));
  MoeSpec moe;
  moe.router = "mlp.gate";
  moe.normalizes_weights = reader.flag("norm_topk_prob", false);
  moe.expert = expert("mlp.experts.{}.", width);
  PM_TRY(read_experts(reader, "num_experts", &moe));
  if (spec.architecture == "Qwen2MoeForCausalLM") {
    PM_TRY(reader.read_int("shared_expert_intermediate_size", kMaxDimension, &shared_width));
    moe.shared = expert("mlp.shared_expert.", shared_width);
    moe.shared_gate = "mlp.shared_expert_gate";
  }
  spec.moe = std::move(moe);
  PM_TRY(read_moe_layers(reader, &spec));
  return spec;
}

}  // namespace pagemill
