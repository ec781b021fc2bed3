// Matrix products of activations with packed weights: y = x W^T (+ bias) (+ y).
//
// Every output is one chain of additions over K in ascending order, whatever the number of rows,
// the tile it falls in or the thread that computes it: a row's result is the same bits alone or
// among 1,000 others (docs/ARCHITECTURE.md, "Same bits").
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/isa.h"
#include "tensor/dtype.h"
#include "tensor/tensor_view.h"

namespace pagemill {

// How a weight format wants its activations.
enum class ActivationFormat {
  kF32,
  kBF16,     // rounded to nearest even; stored as the instruction set likes it
  kFixed16,  // int16 by blocks of 128 along K, each with an f32 scale (max|x|/4095)
  kI8,       // int8 with one f32 scale a row (max|x|/127)
  kQ16,  // int16 by blocks of 32 along K, each with an f32 scale (max|x|/32767) and the sum of its
         // values
};
inline constexpr std::size_t kNumActivationFormats = 5;

// Activations of up to `max_rows` rows, converted for the kernels. Allocated once, reused each
// step.
class ActivationBuffer {
 public:
  ActivationBuffer(std::int64_t max_rows, std::int64_t max_cols);
  ~ActivationBuffer();
  ActivationBuffer(ActivationBuffer&&) noexcept;
  ActivationBuffer& operator=(ActivationBuffer&&) noexcept;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// A weight matrix [rows = out_features, cols = in_features], packed into the tiles that the kernels
// stream. Quantized formats stay compressed.
class PackedMatrix {
 public:
  PackedMatrix();
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;

  std::int64_t rows() const;
  std::int64_t cols() const;
  DType dtype() const;  // what it is stored and computed as
  ActivationFormat activation_format() const;
  std::size_t bytes() const;  // resident

  struct Impl;
  Impl& impl() const { return *impl_; }
  explicit PackedMatrix(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

// Row r of the packed matrix is row `source_row(r)` of the tensor. GGUF files of the llama
// architecture, and models that turn neighbouring elements (GPT-J, Cohere), interleave the rotary
// halves of each head of Q and K.
struct RowOrder {
  std::int64_t rotary_heads = 0;  // whose interleaving is to be undone; 0: as stored
  std::int64_t rotary_dim = 0;    // how much of each head is interleaved; 0: all of it

  // The stored row that becomes row `row` of `rows`.
  std::int64_t source_row(std::int64_t row, std::int64_t rows) const {
    if (rotary_heads == 0) return row;
    const std::int64_t head_size = rows / rotary_heads;
    const std::int64_t dim = rotary_dim > 0 ? rotary_dim : head_size;
    const std::int64_t in_head = row % head_size;
    if (in_head >= dim) return row;
    const std::int64_t half = in_head / (dim / 2);
    const std::int64_t i = in_head % (dim / 2);
    return row - in_head + i * 2 + half;
  }
};

// Packs `weight` ([N, K], plain or quantized) for `isa`. `compute` is the dtype to store: the
// weight's own (quantized stays quantized, F16 stays in 16 bits), or kF32 / kBF16 to convert or
// dequantize. kAvx512 holds BF16 as block fixed point (DType::kFixed16), which is closer to the
// weights than 1/8190 of the largest of 128. Nothing is converted to F16, which would overflow.
// `row_scales` [N] are what the integers of an I8 weight are multiplied by, one a row of the
// tensor; kept as I8 it meets I8 activations: y = float(exact int32 sum) * scale of x * scale of
// the row. Errors name the shape that is wrong (K must be a multiple of the format's block, and of
// I8 at most 131,072).
Result<PackedMatrix> pack_matrix(Isa isa,
                                 const TensorView& weight,
                                 DType compute,
                                 RowOrder order,
                                 ThreadPool& pool,
                                 std::span<const float> row_scales = {});

// Converts one row of x [K] f32 into row `row` of the buffer. Rows may be prepared concurrently, so
// that norm and activation functions can be fused in front of it.
void prepare_row(Isa isa,
                 ActivationFormat format,
                 const float* x,
                 std::int64_t cols,
                 ActivationBuffer& buffer,
                 std::int64_t row);

struct MatmulTarget {
  const PackedMatrix* weight = nullptr;
  float* y = nullptr;  // [num_rows, >= weight->rows()], row stride ldy
  std::int64_t ldy = 0;
  const float* bias = nullptr;  // [weight->rows()] or null, added after the sum
  bool accumulate = false;      // y += instead of y = (residual)
};

// Computes every target from the same prepared activations (rows 0..num_rows-1 of `x`), in one
// fork-join. All targets must share the activation format and cols().
void matmul(ThreadPool& pool,
            const ActivationBuffer& x,
            std::int64_t num_rows,
            std::span<const MatmulTarget> targets);

// Writes row `row` of the matrix as f32 [cols]: the embedding lookup of a tied, packed embedding.
void unpack_row(const PackedMatrix& weight, std::int64_t row, float* out);

}  // namespace pagemill
