#include "tensor/dequantize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "tensor/float_convert.h"

namespace pagemill {
namespace {

template <typename T>
std::vector<float> convert(DType dtype, const std::vector<T>& values) {
  std::vector<float> out(values.size());
  // One byte off any alignment: a file promises none.
  std::vector<std::byte> bytes(1 + values.size() * sizeof(T));
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  dequantize_row(dtype, bytes.data() + 1, static_cast<std::int64_t>(values.size()), out.data());
  return out;
}

class DequantizeGolden : public testing::TestWithParam<DType> {};

TEST_P(DequantizeGolden, MatchesTheGgufPackage) {
  const DTypeInfo& info = dtype_info(GetParam());
  std::ifstream file(std::string(PM_GOLDEN_DIR "/dequant/") + std::string(info.name) + ".bin",
                     std::ios::binary);
  const std::string data{std::istreambuf_iterator<char>(file), {}};
  ASSERT_GT(data.size(), 4u);
  std::uint32_t blocks = 0;
  std::memcpy(&blocks, data.data(), 4);
  const std::int64_t elements = std::int64_t{blocks} * info.block_elements;
  const std::size_t packed = dtype_bytes(GetParam(), elements);
  ASSERT_EQ(data.size(), 4 + packed + static_cast<std::size_t>(elements) * 4);
  std::vector<float> out(static_cast<std::size_t>(elements));
  dequantize_row(
      GetParam(), reinterpret_cast<const std::byte*>(data.data()) + 4, elements, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) {
    float expected = 0;
    std::memcpy(&expected, data.data() + 4 + packed + i * 4, 4);
    ASSERT_EQ(out[i], expected) << info.name << " element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats,
                         DequantizeGolden,
                         testing::Values(DType::kQ8_0,
                                         DType::kQ4_0,
                                         DType::kQ4_1,
                                         DType::kQ4_K,
                                         DType::kQ5_K,
                                         DType::kQ6_K),
                         [](const auto& info) { return std::string(dtype_info(info.param).name); });

TEST(Dequantize, PlainTypes) {
  EXPECT_EQ(convert<float>(DType::kF32, {1.5f, -0.0f}), (std::vector<float>{1.5f, -0.0f}));
  EXPECT_EQ(convert<double>(DType::kF64, {0.1, -3}), (std::vector<float>{0.1f, -3}));
  EXPECT_EQ(convert<std::int8_t>(DType::kI8, {-128, 127}), (std::vector<float>{-128, 127}));
  EXPECT_EQ(convert<std::int16_t>(DType::kI16, {-32768}), (std::vector<float>{-32768}));
  EXPECT_EQ(convert<std::int32_t>(DType::kI32, {-7}), (std::vector<float>{-7}));
  EXPECT_EQ(convert<std::int64_t>(DType::kI64, {1LL << 40}), (std::vector<float>{0x1p40f}));
  EXPECT_EQ(convert<std::uint8_t>(DType::kU8, {255}), (std::vector<float>{255}));
  EXPECT_EQ(convert<std::uint8_t>(DType::kBool, {0, 1, 2}), (std::vector<float>{0, 1, 1}));
  EXPECT_EQ(convert<std::uint16_t>(DType::kBF16, {0x3f80, 0xc020}), (std::vector<float>{1, -2.5f}));
  EXPECT_EQ(convert<std::uint16_t>(DType::kF16, {0x3c00, 0x0001, 0xfbff, 0x7c00}),
            (std::vector<float>{1, 0x1p-24f, -65504, std::numeric_limits<float>::infinity()}));
}

TEST(Dequantize, EveryHalfSurvivesTheRoundTrip) {
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<std::uint16_t>(h);
    const float wide = f16_to_float(half);
    const float brain = bf16_to_float(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(wide)))) << h;
    } else {
      ASSERT_EQ(float_to_f16(wide), half) << h;
    }
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(brain)))) << h;
    } else {
      ASSERT_EQ(float_to_bf16(brain), half) << h;
    }
  }
}

TEST(Dequantize, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(float_to_f16(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(float_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(float_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(float_to_f16(3 * 0x1p-25f), 0x0002);
}

TEST(DequantizeDeathTest, RefusesPartOfABlock) {
  float out[32] = {};
  const std::byte src[34] = {};
  EXPECT_DEATH(dequantize_row(DType::kQ8_0, src, 31, out), "31 elements of Q8_0");
}

}  // namespace
}  // namespace pagemill
