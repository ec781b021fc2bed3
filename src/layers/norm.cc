#include "layers/norm.h"

#include "base/check.h"

namespace pagemill {
namespace {

Result<std::vector<float>> load_weights(const LoadContext& context,
                                        const NormSpec& spec,
                                        std::int64_t size) {
  const std::size_t place = spec.name.find("{}");
  if (place == std::string::npos) {
    // Cohere's are [groups, group_size].
    const CheckpointTensor* tensor = context.checkpoint.find(spec.name + ".weight");
    const bool is_table = tensor != nullptr && tensor->view.shape.size() == 2;
    return is_table ? load_table(context, spec.name + ".weight", spec.groups, size / spec.groups)
                    : load_vector(context, spec.name + ".weight", size);
  }
  std::vector<float> all;
  for (std::int64_t group = 0; group < spec.groups; ++group) {
    std::string name = spec.name;
    name.replace(place, 2, std::to_string(group));
    PM_ASSIGN(const std::vector<float> weights,
              load_vector(context, name + ".weight", size / spec.groups));
    all.insert(all.end(), weights.begin(), weights.end());
  }
  return all;
}

}  // namespace

Result<Norm> Norm::load(const LoadContext& context, const NormSpec& spec, std::int64_t size) {
  PM_CHECK(size % spec.groups == 0, "{} elements in {} groups", size, spec.groups);
  Norm norm;
  norm.kind_ = spec.kind;
  norm.eps_ = spec.eps;
  norm.groups_ = spec.groups;
  norm.group_size_ = size / spec.groups;
  norm.weight_stride_ = spec.shares_weight ? 0 : norm.group_size_;
  const std::int64_t num_weights = spec.shares_weight ? norm.group_size_ : size;
  if (spec.name.empty()) {
    norm.weight_.assign(num_weights, 1.0f);
    return norm;
  }
  PM_ASSIGN(norm.weight_, load_weights(context, spec, num_weights));
  for (float& weight : norm.weight_) weight += spec.weight_offset;
  if (spec.bias) {
    PM_ASSIGN(norm.bias_, load_vector(context, spec.name + ".bias", num_weights));
  }
  return norm;
}

void Norm::apply(const ElementwiseKernels& kernels, const float* x, float* y) const {
  for (std::int64_t group = 0; group < groups_; ++group) {
    const float* weight = weight_.data() + group * weight_stride_;
    const std::int64_t at = group * group_size_;
    if (kind_ == NormKind::kRms) {
      kernels.rms_norm(x + at, weight, eps_, group_size_, y + at);
    } else {
      const float* bias = bias_.empty() ? nullptr : bias_.data() + group * weight_stride_;
      kernels.layer_norm(x + at, weight, bias, eps_, group_size_, y + at);
    }
  }
}

void Norm::reorder(RowOrder order) {
  const auto size = static_cast<std::int64_t>(weight_.size());
  if (order.rotary_heads == 0) return;
  order.rotary_heads = size / group_size_;
  const auto reordered = [&](const std::vector<float>& stored) {
    std::vector<float> values(stored.size());
    for (std::size_t i = 0; i < stored.size(); ++i) {
      values[i] = stored[order.source_row(static_cast<std::int64_t>(i), size)];
    }
    return values;
  };
  weight_ = reordered(weight_);
  bias_ = reordered(bias_);
}

}  // namespace pagemill
