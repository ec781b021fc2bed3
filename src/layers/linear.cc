#include "layers/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/aligned_buffer.h"
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

namespace {

Result<std::vector<float>> load_floats(const LoadContext& context,
                                       std::string_view name,
                                       std::span<const std::int64_t> shape) {
  PM_ASSIGN(const CheckpointTensor* tensor, require_tensor(context.checkpoint, name, shape));
  std::vector<float> values(tensor->view.elements());
  dequantize_row(tensor->view.dtype, tensor->view.data, tensor->view.elements(), values.data());
  return values;
}

}  // namespace

Result<std::vector<float>> load_vector(const LoadContext& context,
                                       std::string_view name,
                                       std::int64_t size) {
  const std::int64_t shape[] = {size};
  return load_floats(context, name, shape);
}

Result<std::vector<float>> load_table(const LoadContext& context,
                                      std::string_view name,
                                      std::int64_t rows,
                                      std::int64_t cols) {
  const std::int64_t shape[] = {rows, cols};
  return load_floats(context, name, shape);
}

namespace {

Result<std::vector<float>> load_bias(const LoadContext& context, const LinearSpec& spec) {
  const std::int64_t stored_size = spec.rows.total > 0 ? spec.rows.total : spec.out_features;
  PM_ASSIGN(const std::vector<float> stored,
            load_vector(context, spec.name + ".bias", stored_size));
  std::vector<float> bias(spec.out_features);
  for (std::int64_t i = 0; i < spec.out_features; ++i) {
    bias[i] = stored[spec.rows.source_row(spec.order.source_row(i, spec.out_features))];
  }
  return bias;
}

// The layer's rows as a matrix of their own: the tensor itself where it holds nothing else, else a
// copy in `copy`.
TensorView own_rows(const TensorView& stored, const LinearSpec& spec, AlignedBuffer& copy) {
  if (spec.rows.total == 0 && !spec.transposed) return stored;
  const std::int64_t in_features = stored.shape[spec.transposed ? 0 : 1];
  TensorView own{stored.dtype, {spec.out_features, in_features}, nullptr};
  copy = AlignedBuffer(own.bytes());
  const std::size_t row_bytes = dtype_bytes(stored.dtype, in_features);
  const std::size_t element_bytes = dtype_info(stored.dtype).block_bytes;
  for (std::int64_t row = 0; row < spec.out_features; ++row) {
    const std::int64_t source = spec.rows.source_row(row);
    std::byte* const target = copy.data() + row * row_bytes;
    if (!spec.transposed) {
      std::memcpy(target, stored.data + source * row_bytes, row_bytes);
      continue;
    }
    const std::int64_t num_stored = stored.shape[1];
    for (std::int64_t col = 0; col < in_features; ++col) {
      std::memcpy(target + col * element_bytes,
                  stored.data + (col * num_stored + source) * element_bytes,
                  element_bytes);
    }
  }
  own.data = copy.data();
  return own;
}

// Of the layer's own rows; empty unless the weight is I8.
Result<std::vector<float>> load_row_scales(const CheckpointTensor& weight, const LinearSpec& spec) {
  std::vector<float> scales;
  if (!weight.row_scales) return scales;
  scales.resize(static_cast<std::size_t>(weight.row_scales->elements()));
  dequantize_row(weight.row_scales->dtype,
                 weight.row_scales->data,
                 weight.row_scales->elements(),
                 scales.data());
  const auto bad = std::ranges::find_if_not(scales, [](float s) { return std::isfinite(s); });
  if (bad != scales.end()) {
    return corrupt(fmt::format("{}: {}: the scale of row {} is {}",
                               weight.file,
                               weight.source_name,
                               bad - scales.begin(),
                               *bad));
  }
  std::vector<float> own(static_cast<std::size_t>(spec.out_features));
  for (std::int64_t row = 0; row < spec.out_features; ++row) {
    own[row] = scales[spec.rows.source_row(row)];
  }
  return own;
}

Result<PackedMatrix> load_weight(const LoadContext& context,
                                 const LinearSpec& spec,
                                 std::int64_t in_features) {
  const std::int64_t num_stored = spec.rows.total > 0 ? spec.rows.total : spec.out_features;
  const std::int64_t shape[] = {spec.transposed ? in_features : num_stored,
                                spec.transposed ? num_stored : in_features};
  PM_ASSIGN(const CheckpointTensor* tensor,
            require_tensor(context.checkpoint, spec.name + ".weight", shape));
  const auto in_tensor = [&](Error error) {
    error.message = tensor->file + ": " + tensor->source_name + ": " + error.message;
    return error;
  };
  if (spec.transposed &&
      (dtype_info(tensor->view.dtype).block_elements != 1 || tensor->row_scales)) {
    return in_tensor(unsupported("a transposed weight cannot be quantized"));
  }
  PM_ASSIGN(const std::vector<float> row_scales, load_row_scales(*tensor, spec));
  AlignedBuffer copy;
  auto packed = pack_matrix(context.isa,
                            own_rows(tensor->view, spec, copy),
                            context.compute.value_or(tensor->view.dtype),
                            spec.order,
                            context.pool,
                            row_scales);
  if (!packed.ok()) return in_tensor(std::move(packed).error());
  context.checkpoint.release(*tensor);
  return packed;
}

}  // namespace

Result<LinearGroup> LinearGroup::load(const LoadContext& context,
                                      std::span<const LinearSpec> specs,
                                      std::int64_t in_features) {
  LinearGroup group;
  for (const LinearSpec& spec : specs) {
    PM_ASSIGN(PackedMatrix weight, load_weight(context, spec, in_features));
    group.weights_.push_back(std::move(weight));
    group.biases_.emplace_back();
    if (spec.bias) {
      PM_ASSIGN(group.biases_.back(), load_bias(context, spec));
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
