// Random weights and activations for the matmul tests and benchmarks.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "tensor/dequantize.h"
#include "tensor/float_convert.h"

namespace pagemill::testing {

inline const std::vector<DType>& stored_dtypes() {
  static const std::vector<DType> kDTypes = {DType::kF32,
                                             DType::kF16,
                                             DType::kBF16,
                                             DType::kI8,
                                             DType::kQ8_0,
                                             DType::kQ4_0,
                                             DType::kQ4_1,
                                             DType::kQ4_K,
                                             DType::kQ5_K,
                                             DType::kQ6_K};
  return kDTypes;
}

// A weight in its file format; quants are random bytes, the scales of blocks and rows are of
// ordinary size.
struct RandomWeight {
  DType dtype;
  std::int64_t rows;
  std::int64_t cols;
  std::vector<std::byte> bytes;
  std::vector<float> row_scales;  // of I8

  RandomWeight(DType type, std::int64_t n, std::int64_t k, std::mt19937_64& rng)
      : dtype(type), rows(n), cols(k), bytes(dtype_bytes(type, n * k)) {
    std::normal_distribution<float> normal;
    const auto put = [&](std::size_t at, auto value) {
      std::memcpy(bytes.data() + at, &value, sizeof(value));
    };
    if (dtype == DType::kI8) {
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
      for (std::int64_t r = 0; r < n; ++r) row_scales.push_back(0.02f * normal(rng));
      return;
    }
    if (!is_quantized(dtype)) {
      for (std::int64_t i = 0; i < n * k; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const float value = normal(rng);
        if (dtype == DType::kF32) put(at * 4, value);
        if (dtype == DType::kBF16) put(at * 2, float_to_bf16(value));
        if (dtype == DType::kF16) put(at * 2, float_to_f16(value));
      }
      return;
    }
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    const auto block = static_cast<std::size_t>(dtype_info(dtype).block_bytes);
    for (std::size_t at = 0; at < bytes.size(); at += block) {
      const auto scale = [&] { return float_to_f16(0.02f * normal(rng)); };
      if (dtype == DType::kQ6_K) {
        put(at + 208, scale());
      } else {
        put(at, scale());
        const bool has_min =
            dtype == DType::kQ4_1 || dtype == DType::kQ4_K || dtype == DType::kQ5_K;
        if (has_min) put(at + 2, scale());
      }
    }
  }

  TensorView view() const { return {dtype, {rows, cols}, bytes.data()}; }
  const std::byte* row(std::int64_t r) const {
    return bytes.data() + static_cast<std::size_t>(r) * dtype_bytes(dtype, cols);
  }
  std::vector<float> dequantized() const {
    std::vector<float> out(static_cast<std::size_t>(rows * cols));
    for (std::int64_t r = 0; r < rows; ++r) {
      dequantize_row(dtype, row(r), cols, out.data() + r * cols);
      if (dtype != DType::kI8) continue;
      for (std::int64_t k = 0; k < cols; ++k) out[r * cols + k] *= row_scales[r];
    }
    return out;
  }
};

inline std::vector<float> random_floats(std::int64_t count, std::mt19937_64& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& value : out) value = normal(rng);
  return out;
}

inline PackedMatrix pack(Isa isa, const TensorView& view, DType compute, ThreadPool& pool) {
  Result<PackedMatrix> packed = pack_matrix(isa, view, compute, {}, pool);
  PM_CHECK(packed.ok(), "{}", packed.error().message);
  return std::move(packed).value();
}

inline PackedMatrix pack(Isa isa, const RandomWeight& weight, DType compute, ThreadPool& pool) {
  Result<PackedMatrix> packed =
      pack_matrix(isa, weight.view(), compute, {}, pool, weight.row_scales);
  PM_CHECK(packed.ok(), "{}", packed.error().message);
  return std::move(packed).value();
}

// y [num_rows, weight.rows()] of x [num_rows, weight.cols()].
inline std::vector<float> multiply(
    Isa isa, ThreadPool& pool, const PackedMatrix& weight, const float* x, std::int64_t num_rows) {
  ActivationBuffer buffer(num_rows, weight.cols());
  for (std::int64_t r = 0; r < num_rows; ++r) {
    prepare_row(isa, weight.activation_format(), x + r * weight.cols(), weight.cols(), buffer, r);
  }
  std::vector<float> y(static_cast<std::size_t>(num_rows * weight.rows()), std::nanf(""));
  const MatmulTarget target{.weight = &weight, .y = y.data(), .ldy = weight.rows()};
  matmul(pool, buffer, num_rows, {&target, 1});
  return y;
}

}  // namespace pagemill::testing
