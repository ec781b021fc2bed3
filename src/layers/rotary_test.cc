// The formulas are compared with Transformers' in tests/golden; here is what a config can get
// wrong.
#include "layers/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

namespace pagemill {
namespace {

using nlohmann::json;

Result<RotaryEmbedding> make(const json& config, std::vector<float> factors = {}) {
  return RotaryEmbedding::create(config, 16, factors);
}

void expect_error(const json& config, const char* key) {
  const auto rope = make(config);
  ASSERT_FALSE(rope.ok()) << config;
  EXPECT_NE(rope.error().message.find(key), std::string::npos) << rope.error().message;
}

TEST(Rotary, RefusesWhatMakesNoSense) {
  expect_error({{"rope_theta", 0}}, "rope_theta");
  expect_error({{"rope_theta", -1.0}}, "rope_theta");
  expect_error({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.5}}}}, "factor");
  expect_error({{"rope_scaling", {{"rope_type", "linear"}, {"factor", -4}}}}, "factor");
}

TEST(Rotary, AnUnknownScalingIsNamed) {
  const auto rope = make({{"rope_scaling", {{"rope_type", "axial"}, {"factor", 2}}}});
  ASSERT_FALSE(rope.ok());
  EXPECT_EQ(rope.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(rope.error().message.find("'axial'"), std::string::npos);
}

TEST(Rotary, LongRopeFactorsMustBeAsManyAsFrequencies) {
  const json good = {{"rope_type", "longrope"},
                     {"original_max_position_embeddings", 32},
                     {"short_factor", std::vector<double>(8, 1.0)},
                     {"long_factor", std::vector<double>(8, 4.0)}};
  const auto rope = make({{"rope_scaling", good}, {"max_position_embeddings", 128}});
  ASSERT_TRUE(rope.ok()) << rope.error().message;
  EXPECT_TRUE(rope->depends_on_length());
  EXPECT_EQ(rope->max_positions(), 128);
  for (const json& bad :
       {json(std::vector<double>(7, 1.0)), json(std::vector<double>(8, 0.0)), json(3)}) {
    for (const char* key : {"short_factor", "long_factor"}) {
      json scaling = good;
      scaling[key] = bad;
      const auto refused = make({{"rope_scaling", scaling}, {"max_position_embeddings", 128}});
      ASSERT_FALSE(refused.ok());
      EXPECT_NE(refused.error().message.find(key), std::string::npos);
    }
  }
}

TEST(Rotary, FrequencyFactorsMustBeAsManyAsFrequencies) {
  EXPECT_TRUE(make(json::object(), std::vector<float>(8, 1.0f)).ok());
  const auto rope = make(json::object(), std::vector<float>(7, 1.0f));
  ASSERT_FALSE(rope.ok());
  EXPECT_EQ(rope.error().code, ErrorCode::kCorrupt);
}

TEST(Rotary, PositionsStretchByTheFactor) {
  const auto stretched = [](const char* type, double original) {
    json scaling = {{"rope_type", type}, {"factor", 4.0}};
    if (original > 0) scaling["original_max_position_embeddings"] = original;
    const auto rope = make({{"max_position_embeddings", 256}, {"rope_scaling", scaling}});
    EXPECT_TRUE(rope.ok()) << rope.error().message;
    return rope->max_positions();
  };
  EXPECT_EQ(stretched("default", 0), 256);
  EXPECT_EQ(stretched("linear", 0), 1024);
  EXPECT_EQ(stretched("dynamic", 0), 1024);
  EXPECT_EQ(stretched("yarn", 64), 256);    // already the stretched length
  EXPECT_EQ(stretched("llama3", 64), 256);  // the same
}

TEST(Rotary, OnlyDynamicScalingDependsOnTheLength) {
  for (const char* type : {"default", "linear", "llama3", "yarn", "dynamic"}) {
    const auto rope = make(
        {{"max_position_embeddings", 64}, {"rope_scaling", {{"rope_type", type}, {"factor", 2}}}});
    ASSERT_TRUE(rope.ok());
    EXPECT_EQ(rope->depends_on_length(), std::string(type) == "dynamic");
    float cos_short[8], sin_short[8], cos_long[8], sin_long[8];
    rope->cos_sin(5, 10, cos_short, sin_short);
    rope->cos_sin(5, 100, cos_long, sin_long);
    bool differs = false;
    for (int i = 0; i < 8; ++i) differs |= cos_short[i] != cos_long[i];
    EXPECT_EQ(differs, rope->depends_on_length()) << type;
  }
}

TEST(Rotary, PositionZeroTurnsNothing) {
  const auto rope = RotaryEmbedding::create(json::object(), 8, {});
  ASSERT_TRUE(rope.ok());
  ASSERT_EQ(rope->rotary_dim(), 8);
  float cos[4], sin[4];
  rope->cos_sin(0, 1, cos, sin);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(cos[i], 1.0f);
    EXPECT_EQ(sin[i], 0.0f);
  }
  rope->cos_sin(3, 4, cos, sin);
  for (int i = 0; i < 4; ++i) {
    const double angle = 3 * std::pow(10000.0, -2.0 * i / 8);
    EXPECT_NEAR(cos[i], std::cos(angle), 1e-6);
    EXPECT_NEAR(sin[i], std::sin(angle), 1e-6);
  }
}

}  // namespace
}  // namespace pagemill
