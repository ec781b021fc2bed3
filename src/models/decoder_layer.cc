#include "models/decoder_layer.h"

namespace pagemill {
namespace {

LinearSpec with_prefix(LinearSpec spec, const std::string& prefix) {
  spec.name.insert(0, prefix);
  return spec;
}

Result<LinearGroup> load_group(const LoadContext& context,
                               std::vector<LinearSpec> specs,
                               const std::string& prefix,
                               std::int64_t in_features) {
  for (LinearSpec& spec : specs) spec = with_prefix(std::move(spec), prefix);
  return LinearGroup::load(context, specs, in_features);
}

}  // namespace

Result<std::optional<Norm>> load_norm(const LoadContext& context,
                                      const std::optional<NormSpec>& spec,
                                      const std::string& prefix,
                                      std::int64_t size) {
  if (!spec) return std::optional<Norm>();
  NormSpec full = *spec;
  if (!full.name.empty()) full.name.insert(0, prefix);
  PM_ASSIGN(Norm norm, Norm::load(context, full, size));
  return std::optional<Norm>(std::move(norm));
}

std::size_t DecoderLayer::bytes() const {
  return qkv.bytes() + output.bytes() + up.bytes() + down.bytes() +
         (experts ? experts->bytes() : 0);
}

DType DecoderLayer::dtype() const {
  return (experts ? experts->expert_weight() : up.weight(0)).dtype();
}

Result<DecoderLayer> DecoderLayer::load(const LoadContext& context,
                                        const DecoderSpec& spec,
                                        std::int32_t index) {
  const std::string prefix = spec.layer_prefix + std::to_string(index) + ".";
  const DecoderLayerSpec& from = spec.layer;
  DecoderLayer layer;
  const auto norm = [&](const std::optional<NormSpec>& norm_spec, std::int64_t size) {
    return load_norm(context, norm_spec, prefix, size);
  };
  PM_ASSIGN(layer.attention_norm, norm(from.attention_norm, spec.hidden_size));
  PM_ASSIGN(layer.q_norm, norm(from.q_norm, spec.q_size()));
  PM_ASSIGN(layer.k_norm, norm(from.k_norm, spec.kv_size()));
  if (layer.q_norm) layer.q_norm->reorder(from.qkv[0].order);
  if (layer.k_norm) layer.k_norm->reorder(from.qkv[1].order);
  PM_ASSIGN(layer.qkv, load_group(context, from.qkv, prefix, spec.hidden_size));
  PM_ASSIGN(layer.output, load_group(context, {from.output}, prefix, spec.q_size()));
  PM_ASSIGN(layer.attention_post_norm, norm(from.attention_post_norm, spec.hidden_size));
  PM_ASSIGN(layer.mlp_norm, norm(from.mlp_norm, spec.hidden_size));
  if (spec.has_experts(index)) {
    PM_ASSIGN(layer.experts, MixtureOfExperts::load(context, *spec.moe, prefix, spec.hidden_size));
  } else {
    PM_ASSIGN(layer.up, load_group(context, from.up, prefix, spec.hidden_size));
    PM_ASSIGN(layer.down, load_group(context, {from.down}, prefix, spec.intermediate_size));
  }
  PM_ASSIGN(layer.mlp_post_norm, norm(from.mlp_post_norm, spec.hidden_size));
  return layer;
}

}  // namespace pagemill
