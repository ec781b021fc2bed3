#include "sampling/random.h"

#include <gtest/gtest.h>

#include <set>

namespace pagemill {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known answers that Random123 publishes for philox4x32-10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformDraw, IsMadeOfTheFirstTwoWords) {
  const Words words = philox4x32({7, 3, 0, 0}, {0x89abcdef, 0x01234567});
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
  EXPECT_EQ(uniform_draw(0x0123456789abcdef, 3, 7), static_cast<double>(bits) * 0x1p-53);
}

TEST(UniformDraw, EveryPartOfTheKeyCounts) {
  std::set<double> draws;
  std::size_t count = 0;
  for (std::uint64_t seed :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
    for (std::int32_t index = 0; index < 8; ++index) {
      for (std::int32_t position = 0; position < 64; ++position, ++count) {
        draws.insert(uniform_draw(seed, index, position));
      }
    }
  }
  EXPECT_EQ(draws.size(), count);  // 2,048 draws of 53 bits: a collision would be a fault
}

TEST(UniformDraw, IsUniform) {
  constexpr int kDraws = 100000, kBins = 20;
  std::array<int, kBins> bins{};
  for (int position = 0; position < kDraws; ++position) {
    const double u = uniform_draw(42, 0, position);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<std::size_t>(u * kBins)];
  }
  double chi_square = 0;
  const double expected = static_cast<double>(kDraws) / kBins;
  for (int count : bins) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi_square, 43.8);  // 19 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace pagemill
