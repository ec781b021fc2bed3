// A mixture of experts: a router sends every row to a few of many gated MLPs and adds up what they
// make of it.
//
// Sources: Jiang et al., "Mixtral of Experts" (arXiv 2401.04088); Qwen2-MoE (arXiv 2407.10671).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "layers/linear.h"
#include "tensor/aligned_buffer.h"

namespace pagemill {

// A gated MLP by the names of its products, without the layer's prefix; "{}" stands for an expert's
// number.
struct ExpertSpec {
  std::string gate, up, down;
  std::int64_t intermediate_size = 0;
};

struct MoeSpec {
  std::string router;
  std::int32_t num_experts = 0;
  std::int32_t experts_per_token = 0;  // 1..num_experts
  bool normalizes_weights = true;      // of a token's experts, to a sum of 1
  ExpertSpec expert;
  std::optional<ExpertSpec> shared;  // an expert that every row passes ..
  std::string shared_gate;           // .. weighted by the sigmoid of this product
};

// What a step needs for up to max_rows rows; one serves all layers.
struct MoeScratch {
  MoeScratch(const MoeSpec& spec, std::int64_t max_rows, std::int64_t hidden_size);

  AlignedBuffer router;               // [max_rows, num_experts]
  AlignedBuffer up;                   // [max_rows, 2 * the widest expert's intermediate_size]
  AlignedBuffer out;                  // [max_rows, hidden_size]
  AlignedBuffer shared_gate;          // [max_rows]
  std::vector<std::int32_t> experts;  // [max_rows, experts_per_token], most likely first
  std::vector<float> weights;         // likewise
  std::vector<std::int32_t> first;    // [num_experts + 1]: where each expert's places begin
  std::vector<std::int32_t> places;   // [max_rows * experts_per_token]: row * k + rank, by expert
};

class MixtureOfExperts {
 public:
  static Result<MixtureOfExperts> load(const LoadContext& context,
                                       const MoeSpec& spec,
                                       const std::string& prefix,
                                       std::int64_t hidden_size);

  // y [num_rows, hidden_size] = the experts' sum for x. A row's experts are added in ascending
  // order: it depends on nothing but the row.
  void run(ThreadPool& pool,
           const ElementwiseKernels& kernels,
           Activations& activations,
           MoeScratch& scratch,
           const float* x,
           std::int64_t num_rows,
           float* y) const;

  void reserve(Activations& activations) const;
  std::size_t bytes() const;
  const PackedMatrix& expert_weight() const { return experts_.front().gate_up.weight(0); }

 private:
  struct Expert {
    LinearGroup gate_up, down;
    std::int64_t width = 0;
  };

  static Result<Expert> load_expert(const LoadContext& context,
                                    const ExpertSpec& spec,
                                    const std::string& prefix,
                                    const std::string& number,
                                    std::int64_t hidden_size);
  void route(ThreadPool& pool,
             Activations& activations,
             MoeScratch& scratch,
             const float* x,
             std::int64_t num_rows) const;
  void group_by_expert(MoeScratch& scratch, std::int64_t num_rows) const;
  // scratch.out [num_rows, hidden_size] = the expert's output for the rows that row_of gives.
  template <typename RowOf>
  void run_expert(const Expert& expert,
                  ThreadPool& pool,
                  const ElementwiseKernels& kernels,
                  Activations& activations,
                  MoeScratch& scratch,
                  const float* x,
                  std::int64_t num_rows,
                  RowOf row_of) const;

  MoeSpec spec_;
  std::int64_t hidden_ = 0;
  LinearGroup router_;  // in f32: a rounded router chooses other experts
  LinearGroup shared_gate_;
  std::vector<Expert> experts_;
  std::optional<Expert> shared_;
};

}  // namespace pagemill
