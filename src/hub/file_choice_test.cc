#include "hub/file_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pagemill {
namespace {

using Names = std::vector<std::string>;
using testing::ElementsAre;
using testing::HasSubstr;

const Names kGguf = {"README.md",
                     "x-Q4_K_M.gguf",
                     "x-Q4_K_S.gguf",
                     "x-IQ4_XS.gguf",
                     "x.q8_0.gguf",
                     "bf16/x-bf16-00001-of-00002.gguf",
                     "bf16/x-bf16-00002-of-00002.gguf",
                     "mmproj-x-Q8_0.gguf",
                     "imatrix_Q8_0.gguf"};

FileChoice chosen(const Names& names, const FileWish& wish = {}) {
  auto choice = choose_files(names, wish, "org/name");
  EXPECT_TRUE(choice.ok()) << choice.error().message;
  return choice.ok() ? *choice : FileChoice();
}

Error refused(const Names& names, const FileWish& wish = {}) {
  auto choice = choose_files(names, wish, "org/name");
  EXPECT_FALSE(choice.ok());
  return choice.ok() ? Error() : choice.error();
}

TEST(FileChoiceTest, OnlyWhatIsReadAndOneFormatOfWeights) {
  const Names all = {".gitattributes",
                     "README.md",
                     "config.json",
                     "generation_config.json",
                     "tokenizer.json",
                     "tokenizer_config.json",
                     "chat_template.jinja",
                     "model.safetensors",
                     "pytorch_model.bin",
                     "optimizer.pt",
                     "tf_model.h5",
                     "flax_model.msgpack",
                     "onnx/model.onnx",
                     "onnx/config.json",
                     "rust_model.ot",
                     "training_args.bin",
                     "x-Q4_K_M.gguf"};
  const FileChoice choice = chosen(all);
  EXPECT_THAT(choice.files,
              ElementsAre("config.json",
                          "generation_config.json",
                          "tokenizer_config.json",
                          "tokenizer.json",
                          "chat_template.jinja",
                          "model.safetensors"));
  EXPECT_EQ(choice.shard_index, "");
  EXPECT_EQ(choice.gguf_file, "");
}

TEST(FileChoiceTest, WeightsInTheLoadersOrder) {
  const Names order = {"model.safetensors.index.json",
                       "model.safetensors",
                       "pytorch_model.bin.index.json",
                       "pytorch_model.bin"};
  for (std::size_t first = 0; first < order.size(); ++first) {
    Names names(order.rbegin(), order.rend() - static_cast<std::ptrdiff_t>(first));
    names.emplace_back("config.json");
    const FileChoice choice = chosen(names);
    EXPECT_THAT(choice.files, ElementsAre("config.json", order[first]));
    EXPECT_EQ(choice.shard_index, first % 2 == 0 ? order[first] : "");
  }
}

TEST(FileChoiceTest, NothingToLoadListsWhatThereIs) {
  const Error error = refused({"adapter_model.safetensors", "config.json"});
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("org/name: no model"));
  EXPECT_THAT(error.message, HasSubstr("adapter_model.safetensors, config.json"));
  EXPECT_THAT(refused({"model.safetensors"}).message, HasSubstr("config.json"));
  EXPECT_THAT(refused({}).message, HasSubstr("none"));
}

TEST(FileChoiceTest, AGgufFileByItsQuantization) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"Q4_K_M", "x-Q4_K_M.gguf"},
      {"q4_k_s", "x-Q4_K_S.gguf"},
      {"IQ4_XS", "x-IQ4_XS.gguf"},
      {"Q8_0", "x.q8_0.gguf"},
      {"", "x-Q4_K_M.gguf"},  // llama.cpp's choice
  };
  for (const auto& [quant, file] : cases) {
    const FileChoice choice = chosen(kGguf, {.quant = quant, .gguf_file = {}});
    EXPECT_EQ(choice.gguf_file, file);
    EXPECT_THAT(choice.files, ElementsAre(file));
  }
  EXPECT_EQ(chosen({"only-Q5_0.gguf", "a.txt"}).gguf_file, "only-Q5_0.gguf");
}

TEST(FileChoiceTest, AQuantizationThatIsNotThereListsThoseThatAre) {
  for (const char* quant : {"Q4_K", "Q4_XS", "4_K_M", "Q5_K_M"}) {
    const Error error = refused(kGguf, {.quant = quant, .gguf_file = {}});
    EXPECT_EQ(error.code, ErrorCode::kNotFound) << quant;
    EXPECT_THAT(error.message, HasSubstr("x-IQ4_XS.gguf, x-Q4_K_M.gguf, x-Q4_K_S.gguf")) << quant;
  }
}

TEST(FileChoiceTest, OneOfSeveralIsNamedByItsFile) {
  const Names names = {"a-Q4_0.gguf", "b-Q4_0.gguf"};
  const Error error = refused(names, {.quant = "Q4_0", .gguf_file = {}});
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(error.message, HasSubstr("a-Q4_0.gguf, b-Q4_0.gguf; choose one with --gguf-file"));
  EXPECT_EQ(chosen(names, {.quant = {}, .gguf_file = "b-Q4_0.gguf"}).gguf_file, "b-Q4_0.gguf");
  EXPECT_THAT(refused(names, {.quant = {}, .gguf_file = "c.gguf"}).message,
              HasSubstr("no file 'c.gguf'; its GGUF files: a-Q4_0.gguf, b-Q4_0.gguf"));
}

TEST(FileChoiceTest, SplitGgufModelsAreRefused) {
  EXPECT_EQ(refused(kGguf, {.quant = "BF16", .gguf_file = {}}).code, ErrorCode::kUnsupported);
  EXPECT_EQ(refused(kGguf, {.quant = {}, .gguf_file = kGguf[5]}).code, ErrorCode::kUnsupported);
}

TEST(FileChoiceTest, ShardsOfAnIndex) {
  const auto shards = shards_of_index(
      R"({"metadata": {}, "weight_map": {"a": "2.bin", "b": "1.bin", "c": "2.bin"}})", "f");
  ASSERT_TRUE(shards.ok());
  EXPECT_THAT(*shards, ElementsAre("1.bin", "2.bin"));
}

TEST(FileChoiceTest, AnIndexThatIsNoneIsCorrupt) {
  for (const char* text : {"",
                           "[]",
                           "{",
                           "{}",
                           R"({"weight_map": []})",
                           R"({"weight_map": {}})",
                           R"({"weight_map": {"a": 1}})",
                           R"({"weight_map": {"a": "../x"}})",
                           R"({"weight_map": {"a": "/etc/passwd"}})",
                           R"({"weight_map": {"a": "sub/x"}})"}) {
    const auto shards = shards_of_index(text, "some/index.json");
    ASSERT_FALSE(shards.ok()) << text;
    EXPECT_EQ(shards.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(shards.error().message, HasSubstr("some/index.json"));
  }
}

}  // namespace
}  // namespace pagemill
