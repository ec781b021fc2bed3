#include "loading/quantization.h"

#include <gtest/gtest.h>

#include <string>

#include "loading/json_text.h"
#include "loading/test_files.h"

namespace pagemill {
namespace {

using nlohmann::json;
using testing_files::expect_error;
using testing_files::safetensors;

// As published checkpoints have it.
constexpr const char* kPublished = R"({"quantization_config": {
  "config_groups": {"group_0": {
    "input_activations": {"actorder": null, "block_structure": null, "dynamic": true,
      "group_size": null, "num_bits": 8, "observer": null, "observer_kwargs": {},
      "strategy": "token", "symmetric": true, "type": "int"},
    "output_activations": null,
    "targets": ["Linear"],
    "weights": {"actorder": null, "block_structure": null, "dynamic": false, "group_size": null,
      "num_bits": 8, "observer": "minmax", "observer_kwargs": {}, "strategy": "channel",
      "symmetric": true, "type": "int"}}},
  "format": "int-quantized", "global_compression_ratio": null, "ignore": ["lm_head"],
  "kv_cache_scheme": null, "quant_method": "compressed-tensors",
  "quantization_status": "compressed"}})";

json changed(const json& patch) {
  json config = json::parse(kPublished);
  config["quantization_config"].merge_patch(patch);
  return config;
}

TEST(Quantization, ReadsWhatIsPublished) {
  for (const json& patch :
       {json::object(),
        json{{"sparsity_config", {{"format", "dense"}}}, {"transform_config", json::object()}},
        json{{"config_groups", {{"group_0", {{"format", "int-quantized"}}}}}},
        json{{"config_groups", {{"group_0", {{"weights", {{"dynamic", nullptr}}}}}}}}}) {
    const auto quantization = parse_quantization(changed(patch), "config.json");
    ASSERT_TRUE(quantization.ok()) << patch << quantization.error().message;
    ASSERT_TRUE(quantization->has_value());
    EXPECT_EQ((*quantization)->ignore, std::vector<std::string>{"lm_head"});
  }
  for (const char* const none : {"{}", R"({"quantization_config": null})"}) {
    const auto quantization = parse_quantization(json::parse(none), "config.json");
    ASSERT_TRUE(quantization.ok());
    EXPECT_FALSE(quantization->has_value());
  }
}

TEST(Quantization, RefusesEverythingElseByKey) {
  const auto weights = [](const json& patch) {
    return json{{"config_groups", {{"group_0", {{"weights", patch}}}}}};
  };
  const auto activations = [](const json& patch) {
    return json{{"config_groups", {{"group_0", {{"input_activations", patch}}}}}};
  };
  struct Case {
    json patch;
    std::string key, got;
  };
  const std::string group = "quantization_config.config_groups.group_0.";
  const Case cases[] = {
      {{{"quant_method", "gptq"}}, "quantization_config.quant_method", "\"gptq\""},
      {{{"quant_method", nullptr}}, "quantization_config.quant_method", "null"},
      {{{"format", "pack-quantized"}}, "quantization_config.format", "\"pack-quantized\""},
      {{{"kv_cache_scheme", {{"num_bits", 8}}}}, "quantization_config.kv_cache_scheme", "num_bits"},
      {{{"transform_config", {{"a", 1}}}}, "quantization_config.transform_config", "{\"a\":1}"},
      {{{"sparsity_config", {{"format", "sparse-24"}}}},
       "quantization_config.sparsity_config",
       "sparse-24"},
      {{{"config_groups", nullptr}}, "quantization_config.config_groups", "null"},
      {weights({{"num_bits", 4}}), group + "weights.num_bits", "4"},
      {weights({{"type", "float"}}), group + "weights.type", "\"float\""},
      {weights({{"symmetric", false}}), group + "weights.symmetric", "false"},
      {weights({{"strategy", "group"}}), group + "weights.strategy", "\"group\""},
      {weights({{"strategy", "tensor"}}), group + "weights.strategy", "\"tensor\""},
      {weights({{"dynamic", true}}), group + "weights.dynamic", "true"},
      {weights("int8"), group + "weights", "\"int8\""},
      {activations(nullptr), group + "input_activations", "null"},
      {activations({{"num_bits", 4}}), group + "input_activations.num_bits", "4"},
      {activations({{"type", "float"}}), group + "input_activations.type", "\"float\""},
      {activations({{"symmetric", false}}), group + "input_activations.symmetric", "false"},
      {activations({{"strategy", "tensor"}}), group + "input_activations.strategy", "\"tensor\""},
      {activations({{"dynamic", false}}), group + "input_activations.dynamic", "false"},
      {activations({{"dynamic", "local"}}), group + "input_activations.dynamic", "\"local\""},
      {{{"config_groups", {{"group_0", {{"output_activations", {{"num_bits", 8}}}}}}}},
       group + "output_activations",
       "num_bits"},
      {{{"config_groups", {{"group_0", {{"format", "float-quantized"}}}}}},
       group + "format",
       "\"float-quantized\""},
      {{{"config_groups", {{"group_1", 7}}}}, "quantization_config.config_groups.group_1", "7"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key + ": " + c.got);
    expect_error(parse_quantization(changed(c.patch), "dir/config.json"),
                 ErrorCode::kUnsupported,
                 {"dir/config.json: " + c.key + ": expected", "got", c.got, "int-quantized"});
  }
}

TEST(Quantization, RefusesWhatMakesNoSense) {
  const auto refuses = [](const json& patch, const std::string& part) {
    expect_error(parse_quantization(changed(patch), "config.json"), ErrorCode::kCorrupt, {part});
  };
  refuses({{"ignore", "lm_head"}}, "quantization_config.ignore: expected an array of names");
  refuses({{"ignore", {1}}}, "quantization_config.ignore: expected an array of names, got [1]");
  refuses({{"config_groups", {{"group_0", {{"targets", 3}}}}}}, "group_0.targets");
  refuses({{"config_groups", {{"group_0", nullptr}}}}, "at least one group");
  expect_error(parse_quantization({{"quantization_config", 8}}, "config.json"),
               ErrorCode::kCorrupt,
               {"config.json: quantization_config", "number"});
  // A message is not as long as what a hostile file says.
  const auto shown =
      parse_quantization(changed({{"format", std::string(100'000, 'x')}}), "config.json");
  ASSERT_FALSE(shown.ok());
  EXPECT_LT(shown.error().message.size(), 500u);
}

// A directory with one I8 matrix "a.weight" [2, 3] and what else `header` says, of 64 bytes.
Result<std::unique_ptr<Checkpoint>> open(const std::string& scales, const std::string& config) {
  const TemporaryFolder folder;
  folder.write("config.json", config);
  const std::string header = R"({"a.weight":{"dtype":"I8","shape":[2,3],"data_offsets":[0,6]})" +
                             (scales.empty() ? "" : "," + scales) + "}";
  std::string data = {1, 2, 3, -128, 127, 0};
  // 0.5 and 2 as bf16, then as f32
  data += std::string("\x00\x3f\x00\x40", 4) + std::string("\x00\x00\x00\x3f", 4) +
          std::string("\x00\x00\x00\x40", 4);
  folder.write("model.safetensors", safetensors(header, data));
  return Checkpoint::open(folder.path());
}

constexpr const char* kBf16Scales =
    R"("a.weight_scale":{"dtype":"BF16","shape":[2,1],"data_offsets":[6,10]})";

TEST(RowScales, AreFoundInEveryFloatTypeAndShape) {
  for (const std::string scales :
       {kBf16Scales,
        R"("a.weight_scale":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]})",
        R"("a.weight_scale":{"dtype":"F16","shape":[2,1],"data_offsets":[6,10]})",
        R"("a.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[10,18]})"}) {
    const auto checkpoint = open(scales, kPublished);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
    const CheckpointTensor* const weight = (*checkpoint)->find("a.weight");
    ASSERT_NE(weight, nullptr);
    EXPECT_EQ(weight->view.dtype, DType::kI8);
    ASSERT_TRUE(weight->row_scales.has_value());
    const CheckpointTensor* const found = (*checkpoint)->find("a.weight_scale");
    EXPECT_EQ(weight->row_scales->data, found->view.data);
    EXPECT_EQ(weight->row_scales->dtype, found->view.dtype);
    EXPECT_EQ(weight->row_scales->elements(), 2);
    EXPECT_FALSE(found->row_scales.has_value());
  }
}

TEST(RowScales, MustBeThereAndFit) {
  expect_error(open("", kPublished),
               ErrorCode::kCorrupt,
               {"model.safetensors", "'a.weight'", "needs 'a.weight_scale'"});
  expect_error(
      open(R"("a.weight_scale":{"dtype":"F32","shape":[1],"data_offsets":[10,14]})", kPublished),
      ErrorCode::kCorrupt,
      {"model.safetensors", "'a.weight_scale'", "F32 [1]", "expected [2, 1]"});
  expect_error(
      open(R"("a.weight_scale":{"dtype":"F32","shape":[1,2],"data_offsets":[10,18]})", kPublished),
      ErrorCode::kCorrupt,
      {"'a.weight_scale'", "[1, 2]", "expected [2, 1]"});
  expect_error(
      open(R"("a.weight_scale":{"dtype":"I16","shape":[2,1],"data_offsets":[6,10]})", kPublished),
      ErrorCode::kCorrupt,
      {"'a.weight_scale'", "I16 [2, 1]", "F32, F16 or BF16"});
}

TEST(RowScales, NeedAConfigThatAccountsForTheWeight) {
  expect_error(open(kBf16Scales, "{}"),
               ErrorCode::kCorrupt,
               {"model.safetensors", "'a.weight'", "config.json has no quantization_config"});
  expect_error(open(kBf16Scales, changed({{"ignore", {"lm_head", "a"}}}).dump()),
               ErrorCode::kCorrupt,
               {"'a.weight'", "config.json", "ignore"});
  EXPECT_TRUE(open(kBf16Scales, changed({{"ignore", {"a.weight", "ab"}}}).dump()).ok());
}

}  // namespace
}  // namespace pagemill
