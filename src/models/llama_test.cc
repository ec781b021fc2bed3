#include <gtest/gtest.h>

#include "models/architectures.h"

namespace pagemill {
namespace {

using nlohmann::json;

// A checkpoint that is its config alone.
class ConfigOnly : public Checkpoint {
 public:
  ConfigOnly(CheckpointFormat format, const json& changes) : format_(format) {
    config_.update(changes);
  }
  CheckpointFormat format() const override { return format_; }
  const std::string& path() const override { return path_; }
  const json& config() const override { return config_; }
  const json& generation_config() const override { return generation_config_; }
  std::span<const CheckpointTensor> tensors() const override { return {}; }
  const CheckpointTensor* find(std::string_view) const override { return nullptr; }
  bool rotary_interleaved() const override { return false; }
  void release(const CheckpointTensor&) const override {}

 private:
  CheckpointFormat format_;
  std::string path_ = "some/model";
  json config_ = {{"architectures", {"LlamaForCausalLM"}},
                  {"hidden_size", 64},
                  {"intermediate_size", 64},
                  {"num_hidden_layers", 2},
                  {"num_attention_heads", 4},
                  {"vocab_size", 100},
                  {"rope_scaling", nullptr}};
  json generation_config_ = json::object();
};

Result<DecoderSpec> parse(CheckpointFormat format, const json& changes) {
  const ConfigOnly checkpoint(format, changes);
  const bool is_qwen = checkpoint.config()["architectures"].front() == "Qwen2ForCausalLM";
  return is_qwen ? qwen_spec(checkpoint) : llama_spec(checkpoint);
}

std::int32_t rotary_dim(const Result<DecoderSpec>& spec) { return spec->ropes[0].rotary_dim(); }

constexpr auto kHf = CheckpointFormat::kSafetensors, kGguf = CheckpointFormat::kGguf;

// As Transformers 5.23 computes it: LlamaRotaryEmbedding's default frequencies cover the whole
// head, so that the logits with and without the key are equal; with rope_type linear, dynamic, yarn
// or llama3 its forward() raises. The same for MistralForCausalLM and Qwen2ForCausalLM.
TEST(LlamaSpec, HuggingFacePartialRotaryFactorTurnsTheWholeHead) {
  for (const char* architecture : {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}) {
    const json half = {{"architectures", {architecture}}, {"partial_rotary_factor", 0.5}};
    const auto plain = parse(kHf, half);
    ASSERT_TRUE(plain.ok()) << plain.error().message;
    EXPECT_EQ(plain->head_size, 16);
    EXPECT_EQ(rotary_dim(plain), 16);
    json scaled = half;
    scaled["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
    const auto refused = parse(kHf, scaled);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(refused.error().message.find("partial_rotary_factor"), std::string::npos);
    scaled["partial_rotary_factor"] = 1.0;
    EXPECT_TRUE(parse(kHf, scaled).ok());
  }
}

TEST(LlamaSpec, GgufDimensionCountTurnsAPartOfTheHead) {
  const json scaling = {{"rope_type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(rotary_dim(parse(kGguf, json::object())), 16);
  EXPECT_EQ(rotary_dim(parse(kGguf, {{"partial_rotary_factor", 0.5}})), 8);
  EXPECT_EQ(rotary_dim(parse(kGguf, {{"partial_rotary_factor", 0.5}, {"rope_scaling", scaling}})),
            8);
}

TEST(LlamaSpec, BadPartialRotaryFactors) {
  for (const json& value : {json(0), json(-0.5), json(1.5), json("half"), json(true)}) {
    for (const auto format : {kHf, kGguf}) {
      const auto refused = parse(format, {{"partial_rotary_factor", value}});
      ASSERT_FALSE(refused.ok()) << value;
      EXPECT_NE(refused.error().message.find("partial_rotary_factor"), std::string::npos);
    }
  }
  EXPECT_FALSE(parse(kGguf, {{"partial_rotary_factor", 0.01}}).ok());
}

}  // namespace
}  // namespace pagemill
