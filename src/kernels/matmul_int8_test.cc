// I8 weights by I8 activations promise more than other formats: the very bits of
// float(exact sum) * scale_x * scale_w, on every instruction set.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/matmul_testing.h"
#include "kernels/panel_layout.h"

namespace pagemill {
namespace {

using testing::multiply;
using testing::pack;
using testing::random_floats;
using testing::RandomWeight;

struct Quantized {
  std::vector<int> q;
  float scale = 0;
};

// One row of activations, from the definition.
Quantized quantize(const float* x, std::int64_t cols) {
  Quantized row;
  float max = 0;
  for (std::int64_t k = 0; k < cols; ++k) max = std::max(max, std::fabs(x[k]));
  row.scale = max / 127.0f;
  for (std::int64_t k = 0; k < cols; ++k) {
    row.q.push_back(max == 0 ? 0 : static_cast<int>(std::nearbyint(x[k] * (127.0f / max))));
  }
  return row;
}

float expected(const Quantized& x, const RandomWeight& weight, std::int64_t row) {
  double sum = 0;
  for (std::int64_t k = 0; k < weight.cols; ++k) {
    sum += static_cast<double>(x.q[k]) * static_cast<std::int8_t>(weight.row(row)[k]);
  }
  return static_cast<float>(sum) * x.scale * weight.row_scales[row];
}

// Activations of one row far above the rest, a row of zeros, quants at -128: what models have.
TEST(Int8Matmul, HasTheBitsOfTheDefinitionOnEveryIsa) {
  ThreadPool pool(2);
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed * 104729);
    const auto n = 1 + static_cast<std::int64_t>(rng() % 150);
    const auto k = 1 + static_cast<std::int64_t>(rng() % 700);
    const auto m = 1 + static_cast<std::int64_t>(rng() % 40);
    RandomWeight weight(DType::kI8, n, k, rng);
    for (std::size_t i = 0; i < weight.bytes.size(); i += 7) weight.bytes[i] = std::byte{0x80};
    std::vector<float> x = random_floats(m * k, rng);
    for (std::size_t i = rng() % 50; i < x.size(); i += 97) x[i] *= 60.0f;
    if (m > 2) std::fill_n(x.begin() + k, k, 0.0f);
    for (Isa isa : supported_isas()) {
      const PackedMatrix packed = pack(isa, weight, DType::kI8, pool);
      ASSERT_EQ(packed.activation_format(), ActivationFormat::kI8);
      const std::vector<float> y = multiply(isa, pool, packed, x.data(), m);
      for (std::int64_t r = 0; r < m; ++r) {
        const Quantized row = quantize(x.data() + r * k, k);
        for (std::int64_t c = 0; c < n; ++c) {
          ASSERT_EQ(y[r * n + c], expected(row, weight, c))
              << to_string(isa) << ": row " << r << " column " << c << " of [" << m << ", " << n
              << "], K " << k;
        }
      }
    }
  }
}

// Every term as large as it can be and of one sign, over the longest K: sums that wrap around on
// the way must come back, and pairs must not saturate.
TEST(Int8Matmul, TheLargestSumsAreExact) {
  ThreadPool pool(1);
  std::mt19937_64 rng(1);
  for (const std::int64_t k : {std::int64_t{12}, kInt8MaxCols}) {
    RandomWeight weight(DType::kI8, 2, k, rng);
    std::fill_n(weight.bytes.begin(), k, std::byte{0x80});
    std::fill_n(weight.bytes.begin() + k, k, std::byte{0x7f});
    weight.row_scales = {1.0f, 1.0f};
    for (const float sign : {1.0f, -1.0f}) {
      const std::vector<float> x(static_cast<std::size_t>(k), sign * 127.0f);
      for (Isa isa : supported_isas()) {
        const std::vector<float> y =
            multiply(isa, pool, pack(isa, weight, DType::kI8, pool), x.data(), 1);
        EXPECT_EQ(y[0], sign * -128.0f * 127.0f * static_cast<float>(k)) << to_string(isa);
        EXPECT_EQ(y[1], sign * 127.0f * 127.0f * static_cast<float>(k)) << to_string(isa);
      }
    }
  }
}

TEST(Int8Matmul, TiesRoundToEven) {
  ThreadPool pool(1);
  std::mt19937_64 rng(1);
  const std::vector<float> x = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f};
  const std::vector<float> rounded = {127.0f, 0.0f, 2.0f, 2.0f, 0.0f, -2.0f, -2.0f};
  const auto k = static_cast<std::int64_t>(x.size());
  RandomWeight identity(DType::kI8, k, k, rng);
  for (std::int64_t i = 0; i < k * k; ++i) {
    identity.bytes[i] = static_cast<std::byte>(i % (k + 1) == 0 ? 1 : 0);
  }
  identity.row_scales.assign(x.size(), 1.0f);
  for (Isa isa : supported_isas()) {
    const PackedMatrix packed = pack(isa, identity, DType::kI8, pool);
    EXPECT_EQ(multiply(isa, pool, packed, x.data(), 1), rounded) << to_string(isa);
  }
}

// Neither the buffer of a row nor what lies behind its values may change the result: the same row
// alone in a buffer made for it, where a sanitizer sees a write past the end.
TEST(Int8Matmul, EveryLengthOfARow) {
  ThreadPool pool(1);
  std::mt19937_64 rng(5);
  for (std::int64_t k = 1; k <= 70; ++k) {
    const RandomWeight weight(DType::kI8, 3, k, rng);
    const std::vector<float> x = random_floats(k, rng);
    const Quantized row = quantize(x.data(), k);
    for (Isa isa : supported_isas()) {
      const std::vector<float> y =
          multiply(isa, pool, pack(isa, weight, DType::kI8, pool), x.data(), 1);
      for (std::int64_t c = 0; c < 3; ++c) {
        EXPECT_EQ(y[c], expected(row, weight, c)) << to_string(isa) << ", K " << k;
      }
    }
  }
}

TEST(Int8Matmul, RowsKeepTheirScalesWhenTheirOrderChanges) {
  ThreadPool pool(2);
  std::mt19937_64 rng(6);
  constexpr std::int64_t kHeads = 3, kHeadSize = 8, kCols = 20;
  const RandomWeight weight(DType::kI8, kHeads * kHeadSize, kCols, rng);
  const std::vector<float> w = weight.dequantized();
  for (const DType compute : {DType::kI8, DType::kF32}) {
    const Result<PackedMatrix> packed = pack_matrix(supported_isas().back(),
                                                    weight.view(),
                                                    compute,
                                                    {.rotary_heads = kHeads},
                                                    pool,
                                                    weight.row_scales);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    std::vector<float> row(kCols);
    for (std::int64_t i = 0; i < kHeads * kHeadSize; ++i) {
      const std::int64_t in_head = i % kHeadSize;
      const std::int64_t source =
          i - in_head + 2 * (in_head % (kHeadSize / 2)) + in_head / (kHeadSize / 2);
      unpack_row(*packed, i, row.data());
      EXPECT_THAT(row, ::testing::ElementsAreArray(w.data() + source * kCols, kCols)) << i;
    }
  }
}

TEST(Int8Matmul, RefusesWhatMightOverflow) {
  ThreadPool pool(1);
  const std::vector<std::byte> bytes(static_cast<std::size_t>(kInt8MaxCols) + 1);
  const float scales[] = {1.0f, 1.0f};
  const Result<PackedMatrix> wide = pack_matrix(Isa::kScalar,
                                                {DType::kI8, {1, kInt8MaxCols + 1}, bytes.data()},
                                                DType::kI8,
                                                {},
                                                pool,
                                                {scales, 1});
  ASSERT_FALSE(wide.ok());
  EXPECT_THAT(wide.error().message, ::testing::HasSubstr("at most 131072 cols"));
  const Result<PackedMatrix> few = pack_matrix(
      Isa::kScalar, {DType::kI8, {3, 8}, bytes.data()}, DType::kI8, {}, pool, {scales, 2});
  ASSERT_FALSE(few.ok());
  EXPECT_THAT(few.error().message, ::testing::HasSubstr("2 for 3 rows"));
}

}  // namespace
}  // namespace pagemill
