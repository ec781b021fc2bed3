#include "kernels/isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

namespace pagemill {
namespace {

class IsaEnvironment : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* value = std::getenv("PAGEMILL_ISA")) saved_ = value;
  }
  void TearDown() override {
    if (saved_.empty()) {
      unsetenv("PAGEMILL_ISA");
    } else {
      setenv("PAGEMILL_ISA", saved_.c_str(), 1);
    }
  }
  std::string saved_;
};

TEST_F(IsaEnvironment, ScalarIsAlwaysSupportedAndFirst) {
  const std::vector<Isa> isas = supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST_F(IsaEnvironment, TakesTheBestUnlessForced) {
  unsetenv("PAGEMILL_ISA");
  ASSERT_TRUE(choose_isa().ok());
  EXPECT_EQ(*choose_isa(), best_isa(supported_isas(), __builtin_cpu_is("amd")));
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    setenv("PAGEMILL_ISA", std::string(to_string(isa)).c_str(), 1);
    const Result<Isa> chosen = choose_isa();
    ASSERT_EQ(chosen.ok(), isa_supported(isa)) << to_string(isa);
    if (chosen.ok()) {
      EXPECT_EQ(*chosen, isa);
    }
  }
}

TEST_F(IsaEnvironment, TheMakerDecidesHowBf16IsMultiplied) {
  const std::vector<Isa> all = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};
  EXPECT_EQ(best_isa(all, true), Isa::kAvx512Bf16);
  EXPECT_EQ(best_isa(all, false), Isa::kAvx512);
  for (bool is_amd : {false, true}) {
    EXPECT_EQ(best_isa({Isa::kScalar, Isa::kAvx2, Isa::kAvx512}, is_amd), Isa::kAvx512);
    EXPECT_EQ(best_isa({Isa::kScalar, Isa::kAvx2}, is_amd), Isa::kAvx2);
    EXPECT_EQ(best_isa({Isa::kScalar}, is_amd), Isa::kScalar);
  }
}

TEST_F(IsaEnvironment, RefusesAnUnknownName) {
  setenv("PAGEMILL_ISA", "sse9", 1);
  const Result<Isa> chosen = choose_isa();
  ASSERT_FALSE(chosen.ok());
  EXPECT_NE(chosen.error().message.find("sse9"), std::string::npos);
}

}  // namespace
}  // namespace pagemill
