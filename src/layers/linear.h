// Linear layers over packed weights, grouped where they share an input, and the activations they
// read.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "loading/checkpoint.h"

namespace pagemill {

// What loading a layer needs besides the checkpoint.
struct LoadContext {
  const Checkpoint& checkpoint;
  Isa isa;
  std::optional<DType> compute;  // none: each weight as it is stored
  ThreadPool& pool;
};

// Prepared activations of a step, one buffer per format in use. Written by rows, read by
// LinearGroup::run.
class Activations {
 public:
  Activations(Isa isa, std::int64_t max_rows, std::int64_t max_cols)
      : isa_(isa), max_rows_(max_rows), max_cols_(max_cols) {}

  // Allocates the buffer of `format`; at load, never in a step.
  void reserve(ActivationFormat format);
  // Converts one row [cols] for each of `formats`. Rows may be prepared concurrently.
  void prepare(std::span<const ActivationFormat> formats,
               const float* x,
               std::int64_t cols,
               std::int64_t row);
  const ActivationBuffer& buffer(ActivationFormat format) const;

 private:
  Isa isa_;
  std::int64_t max_rows_, max_cols_;
  std::array<std::optional<ActivationBuffer>, kNumActivationFormats> buffers_;
};

// Which rows of a tensor that holds several layers are one's own: row i is row
// first + i / group * stride + i % group.
struct StoredRows {
  std::int64_t total = 0;  // rows of the tensor; 0: it is this layer's alone
  std::int64_t first = 0;
  std::int64_t group = 1;
  std::int64_t stride = 1;

  std::int64_t source_row(std::int64_t row) const {
    return total == 0 ? row : first + row / group * stride + row % group;
  }
};

// One weight of a group and where it comes from.
struct LinearSpec {
  std::string name;  // Hugging Face's, without ".weight" and ".bias"
  std::int64_t out_features = 0;
  bool bias = false;
  RowOrder order = {};
  StoredRows rows = {};
  bool transposed = false;  // stored [in_features, rows] (GPT-2's Conv1D)
};

// Linear layers that read the same activations: computed in one fork-join per activation format.
class LinearGroup {
 public:
  // Loads and packs each weight [out_features, in_features] and bias [out_features].
  static Result<LinearGroup> load(const LoadContext& context,
                                  std::span<const LinearSpec> specs,
                                  std::int64_t in_features);

  // The formats that its activations must be prepared in.
  std::span<const ActivationFormat> formats() const { return formats_; }

  struct Output {
    float* y = nullptr;  // [num_rows, out_features], row stride ldy (elements)
    std::int64_t ldy = 0;
  };
  // outputs: one per weight, in the order of the specs. `accumulate` adds to y (the residual
  // stream).
  void run(ThreadPool& pool,
           const Activations& x,
           std::int64_t num_rows,
           std::span<const Output> outputs,
           bool accumulate = false) const;

  const PackedMatrix& weight(std::size_t index) const { return weights_[index]; }
  std::size_t bytes() const;

 private:
  std::vector<PackedMatrix> weights_;
  std::vector<std::vector<float>> biases_;  // empty: none
  std::vector<ActivationFormat> formats_;
};

// The vector [size] as f32.
Result<std::vector<float>> load_vector(const LoadContext& context,
                                       std::string_view name,
                                       std::int64_t size);

// The table [rows, cols] as f32, one row after the other.
Result<std::vector<float>> load_table(const LoadContext& context,
                                      std::string_view name,
                                      std::int64_t rows,
                                      std::int64_t cols);

// Runs fn(row) for every row, several rows a task where there are many.
template <typename Fn>
void for_each_row(ThreadPool& pool, std::int64_t num_rows, Fn&& fn) {
  constexpr std::int64_t kRowsPerTask = 8;
  const auto num_tasks = static_cast<int>((num_rows + kRowsPerTask - 1) / kRowsPerTask);
  pool.parallel_for(num_tasks, [&](int task) {
    const std::int64_t end = std::min(num_rows, (task + 1) * kRowsPerTask);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) fn(row);
  });
}

}  // namespace pagemill
