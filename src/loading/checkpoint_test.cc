// Whole checkpoints, written by torch, safetensors and gguf
// (tests/golden/make_loading_fixtures.py).
#include "loading/checkpoint.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "loading/test_files.h"
#include "tensor/dequantize.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;
using testing_files::expect_error;
using testing_files::golden;

std::uint32_t crc32(std::string_view text) {
  std::uint32_t crc = ~0u;
  for (const char c : text) {
    crc ^= static_cast<std::uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

// The script's rule: element i is (crc32(name) % 97 + i) / 8.
void expect_values(const CheckpointTensor& tensor, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(tensor.view.elements()));
  dequantize_row(tensor.view.dtype, tensor.view.data, tensor.view.elements(), values.data());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(values[i], static_cast<float>(crc32(name) % 97 + i) / 8) << name << " " << i;
  }
}

const std::vector<std::pair<std::string, std::vector<std::int64_t>>> kTensors = {
    {"model.embed_tokens.weight", {10, 8}},
    {"model.layers.0.self_attn.q_proj.weight", {8, 8}},
    {"model.layers.0.mlp.down_proj.weight", {8, 12}},
    {"model.norm.weight", {8}},
    {"lm_head.weight", {10, 8}},
};

void expect_all_tensors(const Checkpoint& checkpoint, DType dtype) {
  EXPECT_EQ(checkpoint.tensors().size(), kTensors.size());
  EXPECT_FALSE(checkpoint.rotary_interleaved());
  for (const auto& [name, shape] : kTensors) {
    const auto tensor = require_tensor(checkpoint, name, shape);
    ASSERT_TRUE(tensor.ok()) << tensor.error().message;
    EXPECT_EQ((*tensor)->name, name);
    EXPECT_EQ((*tensor)->source_name, name);
    EXPECT_EQ((*tensor)->view.dtype, dtype);
    EXPECT_TRUE(fs::is_regular_file((*tensor)->file));
  }
}

TEST(Checkpoint, Safetensors) {
  const auto checkpoint = Checkpoint::open(golden("safetensors_f32"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->format(), CheckpointFormat::kSafetensors);
  EXPECT_EQ((*checkpoint)->path(), golden("safetensors_f32"));
  expect_all_tensors(**checkpoint, DType::kF32);
  for (const CheckpointTensor& tensor : (*checkpoint)->tensors()) {
    expect_values(tensor, tensor.name);
    (*checkpoint)->release(tensor);
    expect_values(tensor, tensor.name);  // read again from the file
  }
  EXPECT_EQ((*checkpoint)->config()["rope_theta"], 50000.0);
  EXPECT_EQ((*checkpoint)->config()["rope_scaling"]["factor"], 2.0);
  EXPECT_EQ((*checkpoint)->generation_config()["eos_token_id"], nlohmann::json({1, 2}));
}

TEST(Checkpoint, ShardedSafetensors) {
  const auto checkpoint = Checkpoint::open(golden("safetensors_sharded"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  expect_all_tensors(**checkpoint, DType::kBF16);
  for (const CheckpointTensor& tensor : (*checkpoint)->tensors())
    expect_values(tensor, tensor.name);
  EXPECT_NE((*checkpoint)->find("lm_head.weight")->file,
            (*checkpoint)->find("model.embed_tokens.weight")->file);
  EXPECT_TRUE((*checkpoint)->generation_config().empty());
}

TEST(Checkpoint, TorchWithTiedAndOffsetTensors) {
  const auto checkpoint = Checkpoint::open(golden("torch_f16"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->format(), CheckpointFormat::kTorch);
  expect_all_tensors(**checkpoint, DType::kF16);
  const CheckpointTensor& embedding = *(*checkpoint)->find("model.embed_tokens.weight");
  expect_values(embedding, embedding.name);
  EXPECT_EQ((*checkpoint)->find("lm_head.weight")->view.data, embedding.view.data);
  const CheckpointTensor& norm = *(*checkpoint)->find("model.norm.weight");
  std::array<float, 8> values{};
  dequantize_row(norm.view.dtype, norm.view.data, 8, values.data());
  EXPECT_EQ(values, (std::array<float, 8>{8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST(Checkpoint, ShardedTorchInTwoProtocols) {
  const auto checkpoint = Checkpoint::open(golden("torch_sharded"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  expect_all_tensors(**checkpoint, DType::kF32);
  for (const CheckpointTensor& tensor : (*checkpoint)->tensors())
    expect_values(tensor, tensor.name);
}

TEST(Checkpoint, GgufLlama) {
  const auto checkpoint = Checkpoint::open(golden("llama.gguf"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->format(), CheckpointFormat::kGguf);
  EXPECT_TRUE((*checkpoint)->rotary_interleaved());
  const CheckpointTensor* const embedding = (*checkpoint)->find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->source_name, "token_embd.weight");
  expect_values(*embedding, "token_embd.weight");
  const std::string layer = "model.layers.0.";
  for (const auto& [name, dtype] :
       std::vector<std::pair<std::string, DType>>{{layer + "self_attn.q_proj.weight", DType::kF16},
                                                  {layer + "self_attn.k_proj.weight", DType::kBF16},
                                                  {layer + "self_attn.v_proj.weight", DType::kQ8_0},
                                                  {layer + "self_attn.o_proj.weight", DType::kQ4_0},
                                                  {layer + "mlp.gate_proj.weight", DType::kQ4_1},
                                                  {layer + "mlp.up_proj.weight", DType::kQ4_K},
                                                  {layer + "mlp.down_proj.weight", DType::kQ5_K},
                                                  {"lm_head.weight", DType::kQ6_K},
                                                  {"rope_freqs.weight", DType::kF32}}) {
    const CheckpointTensor* const tensor = (*checkpoint)->find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->view.dtype, dtype) << name;
    EXPECT_EQ(tensor->view.shape, (std::vector<std::int64_t>{2, 256})) << name;
    EXPECT_EQ(tensor->offset % 32, 0u);
  }
  const nlohmann::json& config = (*checkpoint)->config();
  EXPECT_EQ(config["architectures"][0], "LlamaForCausalLM");
  EXPECT_EQ(config["hidden_size"], 64);
  EXPECT_EQ(config["intermediate_size"], 256);
  EXPECT_EQ(config["num_key_value_heads"], 1);
  EXPECT_EQ(config["vocab_size"], 3);  // from the token list
  EXPECT_EQ(config["tie_word_embeddings"], false);
  EXPECT_EQ((*checkpoint)->generation_config(),
            nlohmann::json({{"bos_token_id", 1}, {"eos_token_id", 2}}));
}

TEST(Checkpoint, GgufQwen2WithYarn) {
  const auto checkpoint = Checkpoint::open(golden("qwen2_yarn.gguf"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_FALSE((*checkpoint)->rotary_interleaved());
  const nlohmann::json& config = (*checkpoint)->config();
  EXPECT_EQ(config["architectures"][0], "Qwen2ForCausalLM");
  EXPECT_EQ(config["attention_bias"], true);
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_EQ(
      config["rope_scaling"],
      nlohmann::json(
          {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 16}}));
}

TEST(Checkpoint, RequireTensorNamesFileTensorAndShapes) {
  const auto checkpoint = Checkpoint::open(golden("safetensors_f32"));
  ASSERT_TRUE(checkpoint.ok());
  const std::array<std::int64_t, 2> shape = {8, 10};
  expect_error(require_tensor(**checkpoint, "lm_head.weight", shape),
               ErrorCode::kCorrupt,
               {"model.safetensors", "offset 464", "'lm_head.weight'", "[10, 8]", "[8, 10]"});
  expect_error(require_tensor(**checkpoint, "absent", shape),
               ErrorCode::kCorrupt,
               {"safetensors_f32", "'absent' is missing", "[8, 10]"});
}

TEST(Checkpoint, NamesWhatItCannotOpen) {
  const TemporaryFolder folder;
  expect_error(
      Checkpoint::open(folder.path() + "/none"), ErrorCode::kNotFound, {"/none: no such file"});
  expect_error(Checkpoint::open(folder.path()), ErrorCode::kNotFound, {"config.json"});
  folder.write("config.json", "{\"a\":");
  expect_error(Checkpoint::open(folder.path()), ErrorCode::kCorrupt, {"config.json: byte 6"});
  folder.write("config.json", "{}");
  expect_error(Checkpoint::open(folder.path()),
               ErrorCode::kNotFound,
               {"no weights", "model.safetensors", "pytorch_model.bin.index.json"});
  const std::string single = folder.write("model.safetensors", "");
  expect_error(
      Checkpoint::open(folder.path()), ErrorCode::kCorrupt, {"model.safetensors", "too few"});
  expect_error(Checkpoint::open(single), ErrorCode::kInvalidArgument, {"its folder"});
  folder.write("generation_config.json", "[]");
  expect_error(Checkpoint::open(folder.path()), ErrorCode::kCorrupt, {"generation_config.json"});
  expect_error(Checkpoint::open(golden("unsupported_type.gguf")),
               ErrorCode::kUnsupported,
               {"unsupported_type.gguf", "blk.0.attn_q.weight", "Q5_0"});
}

TEST(Checkpoint, ShardsMustHoldWhatTheIndexSays) {
  const TemporaryFolder folder;
  fs::copy(golden("safetensors_sharded"), folder.path());
  const std::string second = folder.path() + "/model-00002-of-00002.safetensors";
  const std::string index = "model.safetensors.index.json";
  const std::string good = read_file(folder.path() + "/" + index);
  ASSERT_TRUE(Checkpoint::open(folder.path()).ok());

  std::string wrong = good;
  wrong.replace(wrong.find("lm_head.weight"), 14, "lm_HEAD.weight");
  folder.write(index, wrong);
  expect_error(Checkpoint::open(folder.path()),
               ErrorCode::kCorrupt,
               {"'lm_HEAD.weight'", "is not in model-00002-of-00002.safetensors"});
  folder.write(index, good);
  fs::remove(second);
  expect_error(Checkpoint::open(folder.path()), ErrorCode::kNotFound, {second});
}

TEST(Checkpoint, SafetensorsComeBeforeTorch) {
  const TemporaryFolder folder;
  fs::copy(golden("safetensors_f32"), folder.path());
  folder.write("pytorch_model.bin", "not read");
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->format(), CheckpointFormat::kSafetensors);
}

}  // namespace
}  // namespace pagemill
