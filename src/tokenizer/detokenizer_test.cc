// The incremental detokenizer says what decode() says, never half a character, and in time.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "tokenizer/test_files.h"

namespace pagemill {
namespace {

using testing::load_fixture;

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

std::string stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                   const std::vector<TokenId>& ids,
                   bool skip) {
  Detokenizer detokenizer(tokenizer, skip);
  std::string text;
  for (TokenId id : ids) {
    std::string part = detokenizer.push(id);
    EXPECT_TRUE(is_utf8(part));
    text += part;
  }
  return text + detokenizer.finish();
}

class DetokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DetokenizerTest, ConcatenationEqualsDecode) {
  auto tokenizer = load_fixture(GetParam());
  TokenId size = tokenizer->vocab_size();
  bool ok = rc::check("random ids", [&] {
    // Low ids are the special tokens and, in most vocabularies, the bytes: draw them often.
    auto any = rc::gen::inRange<TokenId>(-1, size + 2);
    auto low = rc::gen::inRange<TokenId>(0, 262);
    auto ids = *rc::gen::container<std::vector<TokenId>>(rc::gen::oneOf(any, low, low));
    bool skip = *rc::gen::arbitrary<bool>();
    auto whole = tokenizer->decode(ids, skip);
    RC_ASSERT(whole.ok());
    RC_ASSERT(stream(tokenizer, ids, skip) == *whole);
  });
  EXPECT_TRUE(ok);
}

TEST_P(DetokenizerTest, RandomBytesOfUtf8) {
  // Valid characters and broken ones, through the encoder.
  auto tokenizer = load_fixture(GetParam());
  bool ok = rc::check("random text, some tokens dropped", [&] {
    auto characters = *rc::gen::container<std::vector<std::string>>(
        rc::gen::element<std::string>("é", "日", "👍", "a", " ", "\n", "☃", "<|end|>"));
    std::string text;
    for (const auto& character : characters) text += character;
    auto ids = tokenizer->encode(text, false);
    RC_ASSERT(ids.ok());
    auto keep = *rc::gen::container<std::vector<bool>>(ids->size(), rc::gen::arbitrary<bool>());
    std::vector<TokenId> kept;
    for (std::size_t i = 0; i < ids->size(); ++i) {
      if (keep[i] || i % 3 != 0) kept.push_back((*ids)[i]);
    }
    auto whole = tokenizer->decode(kept, false);
    RC_ASSERT(whole.ok());
    RC_ASSERT(stream(tokenizer, kept, false) == *whole);
  });
  EXPECT_TRUE(ok);
}

INSTANTIATE_TEST_SUITE_P(All,
                         DetokenizerTest,
                         ::testing::ValuesIn(testing::kFixtures),
                         [](const auto& info) { return std::string(info.param); });

TEST(Detokenizer, EmitsACharacterWithItsLastByte) {
  for (const char* fixture : {"byte_level", "spm_bpe", "spm_gguf"}) {
    auto tokenizer = load_fixture(fixture);
    auto ids = tokenizer->encode("☃", false);
    ASSERT_TRUE(ids.ok());
    ASSERT_GE(ids->size(), 3u);
    Detokenizer detokenizer(tokenizer, true);
    std::string before;
    for (std::size_t i = 0; i + 1 < ids->size(); ++i) before += detokenizer.push((*ids)[i]);
    EXPECT_EQ(before, "") << fixture;
    EXPECT_EQ(detokenizer.push(ids->back()), "☃") << fixture;
    EXPECT_EQ(detokenizer.finish(), "") << fixture;
  }
}

TEST(Detokenizer, AnUnfinishedCharacterIsMarkedAtTheEnd) {
  auto tokenizer = load_fixture("byte_level");
  auto ids = tokenizer->encode("a☃", false);
  ASSERT_TRUE(ids.ok());
  Detokenizer detokenizer(tokenizer, true);
  std::string text;
  for (std::size_t i = 0; i + 1 < ids->size(); ++i) text += detokenizer.push((*ids)[i]);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(detokenizer.finish(), "\ufffd");
}

TEST(Detokenizer, StreamsWordsAtOnce) {
  // Every decoder but the one that must see the last token emits something with each plain word.
  for (const char* fixture : {"byte_level", "spm_bpe", "spm_unigram", "metaspace", "wordpiece"}) {
    auto tokenizer = load_fixture(fixture);
    auto ids = tokenizer->encode("the pages of a book", false);
    ASSERT_TRUE(ids.ok());
    Detokenizer detokenizer(tokenizer, true);
    for (std::size_t i = 0; i < ids->size(); ++i) {
      std::string part = detokenizer.push((*ids)[i]);
      EXPECT_TRUE(i == 0 || !part.empty()) << fixture << " token " << i;
    }
  }
}

}  // namespace
}  // namespace pagemill
