#include "layers/linear.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "tensor/dequantize.h"

namespace pagemill {

void Activations::reserve(ActivationFormat format) {
  auto& buffer = buffers_[static_cast<std::size_t>(format)];
  if (!buffer) buffer.emplace(max_rows_, max_cols_);
}

void Activations::prepare(std::span<const ActivationFormat> formats,
                          const float* x,
                          std::int64_t cols,
                          std::int64_t row) {
  for (ActivationFormat format : formats) {
    prepare_row(isa_, format, x, cols, *buffers_[static_cast<std::size_t>(format)], row);
  }
}

const ActivationBuffer& Activations::buffer(ActivationFormat format) const {
  const auto& buffer = buffers_[static_cast<std::size_t>(format)];
  PM_CHECK(buffer.has_value(), "activation format {} was not reserved", static_cast<int>(format));
  return *buffer;
}

Result<std::vector<float>> load_vector(const LoadContext& context,
                                       std::string_view name,
                                       std::int64_t size,
                                       RowOrder order) {
  const std::int64_t shape[] = {size};
  PM_ASSIGN(const CheckpointTensor* tensor, require_tensor(context.checkpoint, name, shape));
  std::vector<float> stored(size);
  dequantize_row(tensor->view.dtype, tensor->view.data, size, stored.data());
  if (order.rotary_heads == 0) return stored;
  std::vector<float> values(size);
  const std::int64_t head = size / order.rotary_heads;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::int64_t in_head = i % head;
    // Output row j < head/2 is the even row 2j of the interleaved head, j >= head/2 the odd row.
    const std::int64_t source = 2 * (in_head % (head / 2)) + in_head / (head / 2);
    values[i] = stored[i - in_head + source];
  }
  return values;
}

namespace {

// Empty unless the weight is I8.
Result<std::vector<float>> load_row_scales(const CheckpointTensor& weight) {
  std::vector<float> scales;
  if (!weight.row_scales) return scales;
  scales.resize(static_cast<std::size_t>(weight.row_scales->elements()));
  dequantize_row(weight.row_scales->dtype,
                 weight.row_scales->data,
                 weight.row_scales->elements(),
                 scales.data());
  const auto bad = std::ranges::find_if_not(scales, [](float s) { return std::isfinite(s); });
  if (bad == scales.end()) return scales;
  return corrupt(fmt::format("{}: {}: the scale of row {} is {}",
                             weight.file,
                             weight.source_name,
                             bad - scales.begin(),
                             *bad));
}

}  // namespace

Result<LinearGroup> LinearGroup::load(const LoadContext& context,
                                      std::span<const LinearSpec> specs,
                                      std::int64_t in_features) {
  LinearGroup group;
  for (const LinearSpec& spec : specs) {
    const std::int64_t shape[] = {spec.out_features, in_features};
    PM_ASSIGN(const CheckpointTensor* tensor,
              require_tensor(context.checkpoint, spec.name + ".weight", shape));
    PM_ASSIGN(const std::vector<float> row_scales, load_row_scales(*tensor));
    auto packed = pack_matrix(context.isa,
                              tensor->view,
                              context.compute.value_or(tensor->view.dtype),
                              spec.order,
                              context.pool,
                              row_scales);
    if (!packed.ok()) {
      Error error = std::move(packed).error();
      error.message = tensor->file + ": " + tensor->source_name + ": " + error.message;
      return error;
    }
    context.checkpoint.release(*tensor);
    group.weights_.push_back(std::move(packed).value());
    group.biases_.emplace_back();
    if (spec.bias) {
      PM_ASSIGN(group.biases_.back(),
                load_vector(context, spec.name + ".bias", spec.out_features, spec.order));
    }
    const ActivationFormat format = group.weights_.back().activation_format();
    if (std::find(group.formats_.begin(), group.formats_.end(), format) == group.formats_.end()) {
      group.formats_.push_back(format);
    }
  }
  return group;
}

void LinearGroup::run(ThreadPool& pool,
                      const Activations& x,
                      std::int64_t num_rows,
                      std::span<const Output> outputs,
                      bool accumulate) const {
  constexpr std::size_t kMaxTargets = 8;
  PM_CHECK(outputs.size() == weights_.size() && outputs.size() <= kMaxTargets, "outputs");
  for (ActivationFormat format : formats_) {
    std::array<MatmulTarget, kMaxTargets> targets;
    std::size_t count = 0;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      if (weights_[i].activation_format() != format) continue;
      targets[count++] = {.weight = &weights_[i],
                          .y = outputs[i].y,
                          .ldy = outputs[i].ldy,
                          .bias = biases_[i].empty() ? nullptr : biases_[i].data(),
                          .accumulate = accumulate};
    }
    matmul(pool, x.buffer(format), num_rows, {targets.data(), count});
  }
}

std::size_t LinearGroup::bytes() const {
  std::size_t total = 0;
  for (const PackedMatrix& weight : weights_) total += weight.bytes();
  return total;
}

}  // namespace pagemill
