#include "layers/moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pagemill {
namespace {

float* floats(AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

AlignedBuffer float_buffer(std::int64_t elements) {
  return AlignedBuffer(static_cast<std::size_t>(elements) * sizeof(float));
}

std::string with_number(std::string name, const std::string& number) {
  const std::size_t place = name.find("{}");
  return place == std::string::npos ? name : name.replace(place, 2, number);
}

// Softmax of the logits [n] in place; then the k most likely, the lower index on ties.
void choose_experts(
    float* logits, std::int32_t n, std::int32_t k, std::int32_t* experts, float* weights) {
  const float max = *std::max_element(logits, logits + n);
  float sum = 0;
  for (std::int32_t i = 0; i < n; ++i) sum += logits[i] = std::exp(logits[i] - max);
  for (std::int32_t rank = 0; rank < k; ++rank) {
    const auto best = static_cast<std::int32_t>(std::max_element(logits, logits + n) - logits);
    experts[rank] = best;
    weights[rank] = logits[best] / sum;
    logits[best] = -1;
  }
}

}  // namespace

MoeScratch::MoeScratch(const MoeSpec& spec, std::int64_t max_rows, std::int64_t hidden_size)
    : router(float_buffer(max_rows * spec.num_experts)),
      out(float_buffer(max_rows * hidden_size)),
      shared_gate(float_buffer(max_rows)),
      experts(max_rows * spec.experts_per_token),
      weights(max_rows * spec.experts_per_token),
      first(spec.num_experts + 1),
      places(max_rows * spec.experts_per_token) {
  const std::int64_t shared = spec.shared ? spec.shared->intermediate_size : 0;
  up = float_buffer(max_rows * 2 * std::max(spec.expert.intermediate_size, shared));
}

Result<MixtureOfExperts::Expert> MixtureOfExperts::load_expert(const LoadContext& context,
                                                               const ExpertSpec& spec,
                                                               const std::string& prefix,
                                                               const std::string& number,
                                                               std::int64_t hidden_size) {
  const auto linear = [&](const std::string& name, std::int64_t size) {
    return LinearSpec{.name = prefix + with_number(name, number), .out_features = size};
  };
  const LinearSpec gate_up[] = {linear(spec.gate, spec.intermediate_size),
                                linear(spec.up, spec.intermediate_size)};
  const LinearSpec down[] = {linear(spec.down, hidden_size)};
  Expert expert;
  PM_ASSIGN(expert.gate_up, LinearGroup::load(context, gate_up, hidden_size));
  PM_ASSIGN(expert.down, LinearGroup::load(context, down, spec.intermediate_size));
  expert.width = spec.intermediate_size;
  return expert;
}

Result<MixtureOfExperts> MixtureOfExperts::load(const LoadContext& context,
                                                const MoeSpec& spec,
                                                const std::string& prefix,
                                                std::int64_t hidden_size) {
  MixtureOfExperts moe;
  moe.spec_ = spec;
  moe.hidden_ = hidden_size;
  LoadContext exact = context;
  exact.compute = DType::kF32;
  const LinearSpec router[] = {{.name = prefix + spec.router, .out_features = spec.num_experts}};
  PM_ASSIGN(moe.router_, LinearGroup::load(exact, router, hidden_size));
  for (std::int32_t i = 0; i < spec.num_experts; ++i) {
    PM_ASSIGN(Expert expert,
              load_expert(context, spec.expert, prefix, std::to_string(i), hidden_size));
    moe.experts_.push_back(std::move(expert));
  }
  if (!spec.shared) return moe;
  PM_ASSIGN(moe.shared_, load_expert(context, *spec.shared, prefix, "", hidden_size));
  const LinearSpec gate[] = {{.name = prefix + spec.shared_gate, .out_features = 1}};
  PM_ASSIGN(moe.shared_gate_, LinearGroup::load(exact, gate, hidden_size));
  return moe;
}

void MixtureOfExperts::reserve(Activations& activations) const {
  const auto reserve_group = [&](const LinearGroup& group) {
    for (const ActivationFormat format : group.formats()) activations.reserve(format);
  };
  reserve_group(router_);
  reserve_group(shared_gate_);
  const auto reserve_expert = [&](const Expert& expert) {
    reserve_group(expert.gate_up);
    reserve_group(expert.down);
  };
  for (const Expert& expert : experts_) reserve_expert(expert);
  if (shared_) reserve_expert(*shared_);
}

std::size_t MixtureOfExperts::bytes() const {
  const auto of = [](const Expert& e) { return e.gate_up.bytes() + e.down.bytes(); };
  std::size_t total = router_.bytes() + shared_gate_.bytes();
  for (const Expert& expert : experts_) total += of(expert);
  return shared_ ? total + of(*shared_) : total;
}

void MixtureOfExperts::route(ThreadPool& pool,
                             Activations& activations,
                             MoeScratch& scratch,
                             const float* x,
                             std::int64_t num_rows) const {
  for_each_row(pool, num_rows, [&](std::int64_t row) {
    activations.prepare(router_.formats(), x + row * hidden_, hidden_, row);
  });
  const std::int32_t n = spec_.num_experts, k = spec_.experts_per_token;
  const LinearGroup::Output logits[] = {{floats(scratch.router), n}};
  router_.run(pool, activations, num_rows, logits);
  if (shared_) {  // which reads the same f32 rows
    const LinearGroup::Output gate[] = {{floats(scratch.shared_gate), 1}};
    shared_gate_.run(pool, activations, num_rows, gate);
  }
  for_each_row(pool, num_rows, [&](std::int64_t row) {
    float* weights = scratch.weights.data() + row * k;
    choose_experts(
        floats(scratch.router) + row * n, n, k, scratch.experts.data() + row * k, weights);
    if (!spec_.normalizes_weights) return;
    const float sum = std::accumulate(weights, weights + k, 0.0f);
    for (std::int32_t rank = 0; rank < k; ++rank) weights[rank] /= sum;
  });
  group_by_expert(scratch, num_rows);
}

// Counting sort of the rows' choices, those of an expert in the order of the rows.
void MixtureOfExperts::group_by_expert(MoeScratch& scratch, std::int64_t num_rows) const {
  const std::int64_t num_places = num_rows * spec_.experts_per_token;
  std::fill(scratch.first.begin(), scratch.first.end(), 0);
  for (std::int64_t i = 0; i < num_places; ++i) ++scratch.first[scratch.experts[i] + 1];
  std::partial_sum(scratch.first.begin(), scratch.first.end(), scratch.first.begin());
  for (std::int64_t i = 0; i < num_places; ++i) {
    scratch.places[scratch.first[scratch.experts[i]]++] = static_cast<std::int32_t>(i);
  }
  std::copy_backward(scratch.first.begin(), scratch.first.end() - 1, scratch.first.end());
  scratch.first[0] = 0;
}

template <typename RowOf>
void MixtureOfExperts::run_expert(const Expert& expert,
                                  ThreadPool& pool,
                                  const ElementwiseKernels& kernels,
                                  Activations& activations,
                                  MoeScratch& scratch,
                                  const float* x,
                                  std::int64_t num_rows,
                                  RowOf row_of) const {
  const std::int64_t width = expert.width, stride = 2 * width;
  for_each_row(pool, num_rows, [&](std::int64_t i) {
    activations.prepare(expert.gate_up.formats(), x + row_of(i) * hidden_, hidden_, i);
  });
  float* gate = floats(scratch.up);
  const LinearGroup::Output gate_up[] = {{gate, stride}, {gate + width, stride}};
  expert.gate_up.run(pool, activations, num_rows, gate_up);
  const auto activate = activation_kernel(kernels, Activation::kSilu);
  for_each_row(pool, num_rows, [&](std::int64_t i) {
    float* of_row = gate + i * stride;
    activate(of_row, of_row + width, width, of_row);
    activations.prepare(expert.down.formats(), of_row, width, i);
  });
  const LinearGroup::Output out[] = {{floats(scratch.out), hidden_}};
  expert.down.run(pool, activations, num_rows, out);
}

void MixtureOfExperts::run(ThreadPool& pool,
                           const ElementwiseKernels& kernels,
                           Activations& activations,
                           MoeScratch& scratch,
                           const float* x,
                           std::int64_t num_rows,
                           float* y) const {
  route(pool, activations, scratch, x, num_rows);
  std::fill_n(y, num_rows * hidden_, 0.0f);
  const std::int32_t k = spec_.experts_per_token;
  for (std::int32_t e = 0; e < spec_.num_experts; ++e) {
    const std::int32_t* places = scratch.places.data() + scratch.first[e];
    const std::int64_t count = scratch.first[e + 1] - scratch.first[e];
    if (count == 0) continue;
    const auto row_of = [&](std::int64_t i) { return places[i] / k; };
    run_expert(experts_[e], pool, kernels, activations, scratch, x, count, row_of);
    for_each_row(pool, count, [&](std::int64_t i) {
      kernels.add_scaled(floats(scratch.out) + i * hidden_,
                         scratch.weights[places[i]],
                         hidden_,
                         y + row_of(i) * hidden_);
    });
  }
  if (!shared_) return;
  run_expert(*shared_, pool, kernels, activations, scratch, x, num_rows, [](auto i) { return i; });
  for_each_row(pool, num_rows, [&](std::int64_t row) {
    const float weight = 1.0f / (1.0f + std::exp(-floats(scratch.shared_gate)[row]));
    kernels.add_scaled(floats(scratch.out) + row * hidden_, weight, hidden_, y + row * hidden_);
  });
}

}  // namespace pagemill
