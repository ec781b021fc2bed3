// Damaged and hostile tokenizer files: an Error that says where, never a crash or a big allocation.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/resource.h>

#include <cstring>

#include "tokenizer/test_files.h"

namespace pagemill {
namespace {

using testing::golden_path;

template <typename T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

std::string text(const std::string& value) { return raw<std::uint64_t>(value.size()) + value; }

// A GGUF file of the given key-value bytes.
std::string gguf(std::uint64_t keys, const std::string& body) {
  return "GGUF" + raw<std::uint32_t>(3) + raw<std::uint64_t>(0) + raw(keys) + body;
}

constexpr std::uint32_t kUint32 = 4, kString = 8, kArray = 9;

Error gguf_error(const std::string& content) {
  TemporaryFolder folder;
  auto loaded = Tokenizer::from_gguf(folder.write("x.gguf", content));
  EXPECT_FALSE(loaded.ok());
  return loaded.ok() ? Error{} : loaded.error();
}

long peak_memory_kb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(HostileGguf, AbsurdCountsAllocateNothing) {
  const std::uint64_t huge = 1ull << 60;
  const std::string tokens = text("tokenizer.ggml.tokens") + raw(kArray);
  const std::string padding(64, '\0');
  long before = peak_memory_kb();
  const std::string absurd[] = {
      gguf(huge, padding),
      gguf(1, raw(huge) + padding),
      gguf(1, tokens + raw(kString) + raw(huge) + padding),
      gguf(1, tokens + raw(kUint32) + raw(huge) + padding),
      gguf(1, tokens + raw(kString) + raw<std::uint64_t>(2) + raw(huge) + padding),
      gguf(1, text("other.key") + raw(kString) + raw(huge) + padding),
      gguf(1, text("other.key") + raw(kArray) + raw(kUint32) + raw(huge) + padding),
  };
  for (const std::string& content : absurd) {
    Error error = gguf_error(content);
    EXPECT_EQ(error.code, ErrorCode::kCorrupt) << error.message;
    EXPECT_NE(error.message.find("offset"), std::string::npos) << error.message;
  }
  EXPECT_LT(peak_memory_kb() - before, 64 * 1024);
}

TEST(HostileGguf, NestedArraysAndWrongTypes) {
  std::string nested = text("tokenizer.ggml.tokens") + raw(kArray);
  for (int i = 0; i < 10000; ++i) nested += raw(kArray) + raw<std::uint64_t>(1);
  EXPECT_EQ(gguf_error(gguf(1, nested)).code, ErrorCode::kCorrupt);
  Error type = gguf_error(gguf(1, text("tokenizer.ggml.model") + raw(kUint32) + raw(7u)));
  EXPECT_NE(type.message.find("tokenizer.ggml.model"), std::string::npos) << type.message;
  EXPECT_NE(gguf_error(gguf(1, text("a") + raw(99u))).message.find("99"), std::string::npos);
  EXPECT_EQ(gguf_error("GGUX" + std::string(40, '\0')).code, ErrorCode::kCorrupt);
  EXPECT_EQ(gguf_error("").code, ErrorCode::kCorrupt);
  EXPECT_EQ(Tokenizer::from_gguf("/no/such/file").error().code, ErrorCode::kNotFound);
}

TEST(HostileGguf, UnknownPreTokenizerIsRefused) {
  auto string_key = [](const char* key, const char* value) {
    return text(key) + raw(kString) + text(value);
  };
  auto strings_key = [](const char* key, const char* value) {
    return text(key) + raw(kArray) + raw(kString) + raw<std::uint64_t>(1) + text(value);
  };
  auto with = [&](const char* model, const char* pre) {
    return gguf(4,
                string_key("tokenizer.ggml.model", model) + string_key("tokenizer.ggml.pre", pre) +
                    strings_key("tokenizer.ggml.tokens", "a") +
                    strings_key("tokenizer.ggml.merges", "a b"));
  };
  Error unknown = gguf_error(with("gpt2", "what"));
  EXPECT_EQ(unknown.code, ErrorCode::kUnsupported);
  EXPECT_NE(unknown.message.find("\"what\""), std::string::npos);
  EXPECT_NE(unknown.message.find("smollm"), std::string::npos) << "lists the known ones";
  EXPECT_EQ(gguf_error(with("rwkv", "smollm")).code, ErrorCode::kUnsupported);
  EXPECT_EQ(gguf_error(with("gpt2", "smollm")).code, ErrorCode::kCorrupt) << "b is no token";
}

// Every cut, and random changes, of a file that is small enough to try them all.
void try_damage(const std::string& good, const std::function<void(const std::string&)>& load) {
  for (std::size_t length = 0; length < good.size(); length += 1 + good.size() / 300) {
    load(good.substr(0, length));
  }
  bool ok = rc::check("random bytes changed", [&] {
    std::string bad = good;
    int changes = *rc::gen::inRange(1, 6);
    for (int i = 0; i < changes; ++i) {
      bad[*rc::gen::inRange<std::size_t>(0, bad.size())] = *rc::gen::arbitrary<char>();
    }
    load(bad);
  });
  EXPECT_TRUE(ok);
}

void use(const Result<std::shared_ptr<const Tokenizer>>& loaded) {
  if (!loaded.ok()) {
    EXPECT_FALSE(loaded.error().message.empty());
    EXPECT_NE(loaded.error().message.find('/'), std::string::npos) << "names the file";
    return;
  }
  auto ids = (*loaded)->encode("a page of 12 <|end|> ☃", true);
  if (ids.ok()) (void)(*loaded)->decode(*ids, false);
}

TEST(HostileFiles, DamagedGguf) {
  TemporaryFolder folder;
  try_damage(read_file(golden_path("spm_gguf/vocab.gguf")), [&](const std::string& bytes) {
    use(Tokenizer::from_gguf(folder.write("x", bytes)));
  });
}

TEST(HostileFiles, DamagedTokenizerJson) {
  TemporaryFolder folder;
  try_damage(read_file(golden_path("byte_level/tokenizer.json")), [&](const std::string& bytes) {
    folder.write("tokenizer.json", bytes);
    use(Tokenizer::from_directory(folder.path()));
  });
}

TEST(HostileFiles, DamagedSentencePiece) {
  TemporaryFolder folder;
  try_damage(read_file(golden_path("spm_bpe/tokenizer.model")), [&](const std::string& bytes) {
    folder.write("tokenizer.model", bytes);
    use(Tokenizer::from_directory(folder.path()));
  });
}

TEST(HostileFiles, TokenizerJsonThatMeansHarm) {
  const std::string model = R"("model": {"type": "BPE", "vocab": {"a": 0}, "merges": []})";
  std::string deep_normalizer = "null", deep_pre = R"({"type": "Whitespace"})";
  for (int i = 0; i < 12; ++i) {
    deep_normalizer.insert(0, R"({"type": "Sequence", "normalizers": [)").append("]}");
    deep_pre.insert(0, R"({"type": "Sequence", "pretokenizers": [)").append("]}");
  }
  const std::string harmful[] = {
      std::string(100000, '['),
      "{\"model\": " + std::string(100000, '[') + std::string(100000, ']') + "}",
      "{" + model + ", \"normalizer\": " + deep_normalizer + "}",
      "{" + model + ", \"pre_tokenizer\": " + deep_pre + "}",
      std::string(R"({"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}})"),
      std::string(R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})"),
      std::string(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})"),
      std::string(R"({"model": {"type": "Unigram", "unk_id": 7, "vocab": []}})"),
      "{" + model + R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(((("},)" +
          R"("behavior": "Isolated", "invert": false}})",
  };
  for (const std::string& content : harmful) {
    TemporaryFolder folder;
    folder.write("tokenizer.json", content);
    auto loaded = Tokenizer::from_directory(folder.path());
    ASSERT_FALSE(loaded.ok()) << content.substr(0, 200);
    EXPECT_EQ(loaded.error().code, ErrorCode::kCorrupt) << loaded.error().message;
  }
}

TEST(HostileFiles, DirectoriesWithoutATokenizer) {
  TemporaryFolder folder;
  auto empty = Tokenizer::from_directory(folder.path());
  ASSERT_FALSE(empty.ok());
  EXPECT_EQ(empty.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Tokenizer::from_directory("/no/such/folder\xff").error().code, ErrorCode::kNotFound);
  std::filesystem::copy(golden_path("byte_level/tokenizer.json"), folder.path());
  folder.write("generation_config.json", R"({"eos_token_id": 1000000})");
  auto range = Tokenizer::from_directory(folder.path());
  ASSERT_FALSE(range.ok());
  EXPECT_NE(range.error().message.find("generation_config.json"), std::string::npos);
}

}  // namespace
}  // namespace pagemill
