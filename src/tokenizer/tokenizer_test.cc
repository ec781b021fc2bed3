// Tokenizers of every kind against goldens of their own libraries (make_tokenizer_goldens.py).
#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include "hub/model_path.h"
#include "tokenizer/test_files.h"

namespace pagemill {
namespace {

using testing::golden_path;
using testing::load_fixture;
using testing::read_json;

class FixtureTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FixtureTest, EncodesAndDecodesAsItsOwnLibrary) {
  auto tokenizer = load_fixture(GetParam());
  auto cases = read_json(golden_path(std::string(GetParam()) + "/cases.json"));
  ASSERT_GT(cases.size(), 20u);
  for (const auto& entry : cases) {
    std::string text = entry.at("text");
    SCOPED_TRACE(entry.dump());
    auto plain = tokenizer->encode(text, false);
    ASSERT_TRUE(plain.ok()) << plain.error().message;
    EXPECT_EQ(*plain, entry.at("ids").get<std::vector<TokenId>>());
    auto special = tokenizer->encode(text, true);
    ASSERT_TRUE(special.ok()) << special.error().message;
    EXPECT_EQ(*special, entry.at("ids_special").get<std::vector<TokenId>>());
    EXPECT_EQ(*tokenizer->decode(*special, true), entry.at("decoded_skip").get<std::string>());
    if (entry.contains("decoded")) {
      EXPECT_EQ(*tokenizer->decode(*special, false), entry.at("decoded").get<std::string>());
    }
  }
}

TEST_P(FixtureTest, PiecesAndIdsAreInverse) {
  auto tokenizer = load_fixture(GetParam());
  ASSERT_GT(tokenizer->vocab_size(), 100);
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
    std::string piece = tokenizer->token_piece(id);
    ASSERT_FALSE(piece.empty()) << id;
    EXPECT_EQ(tokenizer->token_to_id(piece), id) << piece;
  }
  for (TokenId id : {-1, tokenizer->vocab_size(), std::numeric_limits<TokenId>::max()}) {
    EXPECT_EQ(tokenizer->token_piece(id), "");
    EXPECT_EQ(tokenizer->token_bytes(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
  }
  EXPECT_EQ(tokenizer->token_to_id("no such piece"), std::nullopt);
  EXPECT_EQ(tokenizer->token_to_id("\xff"), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(All,
                         FixtureTest,
                         ::testing::ValuesIn(testing::kFixtures),
                         [](const auto& info) { return std::string(info.param); });

TEST(Tokenizer, TokenBytesOfByteLevelPiecesAreRawBytes) {
  auto tokenizer = load_fixture("byte_level");
  // The alphabet is the vocabulary's first 256 entries after the special tokens: every byte once.
  std::string all;
  for (TokenId id = 3; id < 3 + 256; ++id) {
    ASSERT_EQ(tokenizer->token_bytes(id).size(), 1u) << tokenizer->token_piece(id);
    all += tokenizer->token_bytes(id);
  }
  std::sort(
      all.begin(), all.end(), [](char a, char b) { return std::uint8_t(a) < std::uint8_t(b); });
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(std::uint8_t(all[byte]), byte);
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("Ġthe")), " the");
  EXPECT_EQ(tokenizer->token_bytes(1), "<|start|>");
}

TEST(Tokenizer, TokenBytesOfSentencePieces) {
  auto tokenizer = load_fixture("spm_bpe");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("<0x0A>")), "\n");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("<0xE2>")), "\xe2");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_to_id("▁the")), " the");
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->bos_token_id()), "<s>");
}

TEST(Tokenizer, ReadsSpecialTokensAndTemplates) {
  auto json = load_fixture("byte_level");
  EXPECT_EQ(json->bos_token_id(), 0);
  EXPECT_EQ(json->eos_token_id(), 2);
  EXPECT_EQ(json->eos_token_ids(), (std::vector<TokenId>{2, 0}));  // generation_config.json's too
  EXPECT_TRUE(json->is_special(0));
  EXPECT_FALSE(json->is_special(3));
  EXPECT_EQ(json->chat_template(), "{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(json->kind(), "BPE (byte level)");

  auto files = load_fixture("gpt2_files");
  EXPECT_EQ(files->chat_template(), "{{ messages[0].content }}");  // chat_template.jinja
  EXPECT_EQ(files->vocab_size(), json->vocab_size() + 1);
  EXPECT_EQ(files->token_to_id("<tool>"), json->vocab_size());
  EXPECT_FALSE(files->is_special(json->vocab_size()));
  EXPECT_EQ(*files->encode("a<tool>b", false),
            (std::vector<TokenId>{
                *files->token_to_id("a"), json->vocab_size(), *files->token_to_id("b")}));

  auto gguf = load_fixture("spm_gguf");
  EXPECT_EQ(gguf->bos_token_id(), 1);
  EXPECT_EQ(gguf->eos_token_ids(), std::vector<TokenId>{2});
  EXPECT_EQ(gguf->kind(), "BPE (SentencePiece)");
  EXPECT_EQ(load_fixture("metaspace")->bos_token_id(), std::nullopt);
}

TEST(Tokenizer, ConfigTakesBosAway) {
  TemporaryFolder folder;
  std::filesystem::copy(golden_path("spm_bpe/tokenizer.model"), folder.path());
  folder.write(
      "tokenizer_config.json",
      R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false, "add_eos_token": true})");
  auto tokenizer = Tokenizer::from_directory(folder.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  auto ids = (*tokenizer)->encode("a", true);
  ASSERT_TRUE(ids.ok());
  EXPECT_NE(ids->front(), 1);
  EXPECT_EQ(ids->back(), 2);
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  auto result = load_fixture("byte_level")->encode("ab\xff", false);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(result.error().message.find("offset 2"), std::string::npos) << result.error().message;
}

TEST(Tokenizer, LongRunsTakeLinearTime) {
  auto tokenizer = load_fixture("spm_bpe");
  for (const char* unit : {" ", "a", "\n", "é", "<"}) {
    std::string text;
    for (int i = 0; i < 200000; ++i) text += unit;
    auto ids = tokenizer->encode(text, false);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(*tokenizer->decode(*ids, false), text);
  }
}

TEST(Tokenizer, DemoVocabularyMatchesLlamaCpp) {
  const auto path = resolve_model_path("demo");
  if (!path.ok()) GTEST_SKIP() << path.error().message;
  auto loaded = Tokenizer::from_gguf(*path);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  const Tokenizer& tokenizer = **loaded;
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.bos_token_id(), 1);
  EXPECT_EQ(tokenizer.eos_token_ids(), std::vector<TokenId>{2});
  EXPECT_NE(tokenizer.chat_template().find("<|im_start|>"), std::string::npos);
  auto cases = read_json(golden_path("smollm2.json"));
  ASSERT_GE(cases.size(), 100u);
  for (const auto& entry : cases) {
    std::string text = entry.at("text");
    auto ids = tokenizer.encode(text, true);
    ASSERT_TRUE(ids.ok()) << ids.error().message;
    EXPECT_EQ(*ids, entry.at("ids").get<std::vector<TokenId>>()) << entry.dump();
    EXPECT_EQ(*tokenizer.decode(*ids, false), text);  // byte-level BPE loses nothing
  }
}

}  // namespace
}  // namespace pagemill
