#include "hub/content_check.h"

#include <gtest/gtest.h>

#include <string_view>

namespace pagemill {
namespace {

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string hex(const std::array<std::uint8_t, 20>& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

Status check(const std::string& etag, std::int64_t size, std::string_view content) {
  ContentCheck check(etag, size);
  check.update(bytes_of(content.substr(0, content.size() / 2)));
  check.update(bytes_of(content.substr(content.size() / 2)));
  return check.finish("file");
}

// FIPS 180's own examples, and lengths around the padding's edges (from Python's hashlib).
TEST(Sha1Test, KnownAnswers) {
  const std::vector<std::pair<std::string, std::string>> answers = {
      {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
      {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
      {std::string(1000000, 'a'), "34aa973cd4c4daa4f61eeb2bdbad27316534016f"},
      {std::string(55, 'a'), "c1c8bbdc22796e28c0e15163d20899b65621d65a"},
      {std::string(56, 'a'), "c2db330f6083854c99d4b5bfb6e8f29f201be699"},
      {std::string(64, 'a'), "0098ba824b5c16427bd7a1122a5a442a25ec644d"},
  };
  for (const auto& [text, digest] : answers) {
    EXPECT_EQ(hex(Sha1().update(bytes_of(text)).finish()), digest) << text.size();
  }
}

TEST(ContentCheckTest, LargeFilesAreNamedByTheirSha256) {
  const std::string etag = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_TRUE(check(etag, 3, "abc").ok());
  const Status wrong = check(etag, 3, "abd");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(wrong.error().message.starts_with("file: ")) << wrong.error().message;
  EXPECT_NE(wrong.error().message.find(etag), std::string::npos);
}

TEST(ContentCheckTest, SmallFilesAreNamedAsGitNamesThem) {
  const std::string etag = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";  // git hash-object of "abc"
  EXPECT_TRUE(check(etag, 3, "abc").ok());
  EXPECT_TRUE(check("F2BA8F84AB5C1BCE84A7B441CB1959CFC7093B7F", 3, "abc").ok());
  EXPECT_FALSE(check(etag, 3, "abd").ok());
  EXPECT_TRUE(check("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", 0, "").ok());
}

TEST(ContentCheckTest, AnyOtherNameLeavesTheSize) {
  EXPECT_TRUE(check("some-etag", 3, "abd").ok());
  EXPECT_FALSE(check("some-etag", 3, "abcd").ok());
  EXPECT_FALSE(check("some-etag", 3, "ab").ok());
}

}  // namespace
}  // namespace pagemill
