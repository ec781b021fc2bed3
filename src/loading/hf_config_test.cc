#include "loading/hf_config.h"

#include <gtest/gtest.h>

#include <string>

#include "loading/json_text.h"
#include "loading/shard_index.h"
#include "loading/test_files.h"

namespace pagemill {
namespace {

using nlohmann::json;
using testing_files::expect_error;

Result<json> normalized(const std::string& text) {
  PM_ASSIGN(json config, parse_json(text, "config.json"));
  return normalize_config(std::move(config), "config.json");
}

TEST(HfConfig, ReadsBothSpellingsAlike) {
  const auto classic = normalized(
      R"({"rope_theta":5e5,"rope_scaling":{"type":"linear","factor":2},"torch_dtype":"bfloat16"})");
  const auto modern = normalized(
      R"({"rope_parameters":{"rope_theta":5e5,"rope_type":"linear","factor":2},"dtype":"bfloat16"})");
  ASSERT_TRUE(classic.ok());
  ASSERT_TRUE(modern.ok()) << modern.error().message;
  for (const char* const key : {"rope_theta", "rope_scaling", "dtype", "torch_dtype"}) {
    EXPECT_EQ((*classic)[key], (*modern)[key]) << key;
  }
  EXPECT_EQ((*modern)["rope_theta"], 5e5);
  EXPECT_EQ((*modern)["rope_scaling"],
            json({{"rope_type", "linear"}, {"type", "linear"}, {"factor", 2}}));
  EXPECT_EQ((*modern)["torch_dtype"], "bfloat16");
}

TEST(HfConfig, AlwaysHasTheClassicKeys) {
  for (const char* const text : {"{}",
                                 R"({"rope_scaling":null,"rope_theta":null})",
                                 R"({"rope_scaling":{}})",
                                 R"({"rope_parameters":null})",
                                 R"({"rope_parameters":{"rope_type":"default"}})",
                                 R"({"rope_parameters":{"rope_theta":10000.0}})",
                                 R"({"rope_scaling":{"rope_type":"default"}})"}) {
    const auto config = normalized(text);
    ASSERT_TRUE(config.ok()) << text << config.error().message;
    EXPECT_EQ((*config)["rope_theta"], 10000.0) << text;
    EXPECT_TRUE(config->contains("rope_scaling")) << text;
    EXPECT_TRUE((*config)["rope_scaling"].is_null()) << text;
  }
  EXPECT_EQ((*normalized(
                R"({"rope_parameters":{"partial_rotary_factor":0.5}})"))["partial_rotary_factor"],
            0.5);
}

TEST(HfConfig, NamesTheKeyAtFault) {
  const auto refused = [](const std::string& text, const std::string& why) {
    expect_error(normalized(text), ErrorCode::kCorrupt, {"config.json", why});
  };
  refused("[]", "expected an object, got array");
  refused(R"({"rope_theta":"x"})", "rope_theta: expected a number, got string");
  refused(R"({"rope_theta":-1})", "rope_theta: -1 is not positive");
  refused(R"({"rope_scaling":3})", "rope_scaling: expected an object or null");
  refused(R"({"rope_scaling":{"factor":2}})", "rope_scaling: it lacks 'rope_type'");
  refused(R"({"rope_scaling":{"type":7}})", "rope_scaling.rope_type: expected a string");
  refused(R"({"rope_parameters":[]})", "rope_parameters: expected an object");
  refused(R"({"torch_dtype":16})", "torch_dtype: expected a string");
}

TEST(HfConfig, RopeParametersByLayerType) {
  const auto config = normalized(
      R"({"rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1e6},)"
      R"("sliding_attention":{"rope_type":"default","rope_theta":5e3}}})");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ((*config)["rope_theta"], 1e6);
  EXPECT_EQ((*config)["rope_scaling"]["rope_type"], "linear");
  EXPECT_EQ((*config)["rope_local_base_freq"], 5e3);
  const auto refused = [](const std::string& text, const std::string& why) {
    expect_error(normalized(text), ErrorCode::kUnsupported, {"config.json", why});
  };
  refused(R"({"rope_parameters":{"full_attention":{},"rope_type":"linear"}})", "rope_type");
  refused(R"({"rope_parameters":{"full_attention":{},"chunked_attention":{}}})", "chunked");
  refused(R"({"rope_parameters":{"full_attention":{},"sliding_attention":{"rope_type":"yarn"}}})",
          "rope_parameters.sliding_attention");
  refused(R"({"rope_parameters":{"sliding_attention":{}}})", "it lacks full_attention");
}

TEST(HfConfig, BaseUnderItsOldName) {
  EXPECT_EQ((*normalized(R"({"rotary_emb_base":500})"))["rope_theta"], 500);
}

TEST(JsonText, ParsesWhatJsonAllows) {
  const std::string text = R"({"a":[1,-2,3.5,true,null,"é\n"],"b":{"c":18446744073709551615}})";
  const auto parsed = parse_json(text, "x");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(*parsed, json::parse(text));
  EXPECT_EQ(*parse_json(" 7 ", "x"), 7);
}

TEST(JsonText, NamesTheByte) {
  expect_error(parse_json("{\"a\": ]}", "x.json"), ErrorCode::kCorrupt, {"x.json: byte 7", "JSON"});
  for (const std::string& text : {std::string(""),
                                  std::string("{"),
                                  std::string("{} {}"),
                                  std::string("\"\xff\""),
                                  std::string("1e999"),
                                  std::string("NaN"),
                                  std::string("{\"a\":1,}"),
                                  std::string("'a'"),
                                  std::string("\"\x01\""),
                                  std::string("\0", 1)}) {
    expect_error(parse_json(text, "x.json"), ErrorCode::kCorrupt, {"x.json: byte "});
  }
}

TEST(JsonText, BoundsNestingAndRefusesTwins) {
  const auto nested = [](std::size_t depth) {
    return parse_json(std::string(depth, '[') + std::string(depth, ']'), "x.json");
  };
  EXPECT_TRUE(nested(kMaxJsonDepth).ok());
  expect_error(nested(kMaxJsonDepth + 1), ErrorCode::kCorrupt, {"nested deeper than 100"});
  EXPECT_FALSE(nested(5'000'000).ok());
  expect_error(parse_json(R"({"a":1,"b":{"a":2},"a":3})", "x.json"),
               ErrorCode::kCorrupt,
               {"key 'a' occurs twice"});
  EXPECT_TRUE(parse_json(R"({"a":{"a":[{"a":2},{"a":3}]}})", "x.json").ok());
}

TEST(ShardIndex, ReadsTheMap) {
  const auto shards = parse_shard_index(
      R"({"metadata":{},"weight_map":{"a":"m-1.bin","b":"m-2.bin"}})", ".bin", "i.json");
  ASSERT_TRUE(shards.ok());
  EXPECT_EQ(shards->at("b"), "m-2.bin");
}

TEST(ShardIndex, KeepsToItsFolder) {
  for (const char* const shard : {"../x.bin",
                                  "/etc/x.bin",
                                  "a/b.bin",
                                  "..\\\\x.bin",
                                  ".bin",
                                  ".hidden.bin",
                                  "x.safetensors",
                                  "",
                                  "a\\u0000.bin"}) {
    const std::string text = R"({"weight_map":{"w":")" + std::string(shard) + R"("}})";
    expect_error(parse_shard_index(text, ".bin", "i.json"),
                 ErrorCode::kCorrupt,
                 {"i.json", "weight_map['w']", "same folder"});
  }
  for (const char* const text : {"{}",
                                 "[]",
                                 "3",
                                 R"({"weight_map":[]})",
                                 R"({"weight_map":{}})",
                                 R"({"weight_map":{"w":3}})"}) {
    expect_error(
        parse_shard_index(text, ".bin", "i.json"), ErrorCode::kCorrupt, {"i.json", "weight_map"});
  }
}

}  // namespace
}  // namespace pagemill
