#include "hub/repo_name.h"

#include <gtest/gtest.h>

namespace pagemill {
namespace {

TEST(RepoNameTest, TakesWhatTheHubTakes) {
  for (const char* text : {"gpt2", "org/name", "Foo-BAR_foo.bar123", "a/b", "123", "_x/y_"}) {
    const auto name = parse_repo_name(text);
    ASSERT_TRUE(name.ok()) << text << ": " << name.error().message;
    EXPECT_EQ(name->id, text);
    EXPECT_EQ(name->quant, "");
  }
}

TEST(RepoNameTest, AQuantizationFollowsAColon) {
  const auto name = parse_repo_name("user/model-GGUF:Q4_K_M");
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->id, "user/model-GGUF");
  EXPECT_EQ(name->quant, "Q4_K_M");
}

TEST(RepoNameTest, RefusesWhatTheHubRefuses) {
  for (const std::string text : {"",
                                 "/",
                                 "org/",
                                 "/name",
                                 "a/b/c",
                                 "./name",
                                 "../name",
                                 "a/..",
                                 "-a/b",
                                 "a/b-",
                                 "a/.b",
                                 "a--b",
                                 "a/b..c",
                                 "a/b.git",
                                 "a b",
                                 "a/b?c",
                                 "a/b:",
                                 "a/b:x/y",
                                 "\xc3\xa4/b"}) {
    const auto name = parse_repo_name(text);
    ASSERT_FALSE(name.ok()) << text;
    EXPECT_EQ(name.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(name.error().message.find("'" + text + "'"), std::string::npos);
  }
  EXPECT_TRUE(parse_repo_name(std::string(96, 'a')).ok());
  EXPECT_FALSE(parse_repo_name(std::string(97, 'a')).ok());
}

TEST(RepoNameTest, RevisionsAndFilesStayInTheirFolder) {
  for (const char* text : {"main", "v1.0", "feature/x", "refs/pr/12"}) {
    EXPECT_TRUE(check_revision(text).ok()) << text;
    EXPECT_TRUE(is_safe_file_name(text)) << text;
  }
  for (const std::string text : {"", "/main", "main/", "a//b", "..", "a/../b", "./a", "a\nb"}) {
    EXPECT_FALSE(check_revision(text).ok()) << text;
    EXPECT_FALSE(is_safe_file_name(text)) << text;
  }
  EXPECT_FALSE(is_safe_file_name(std::string("a\0b", 3)));
  EXPECT_FALSE(is_safe_file_name("a\\..\\b"));
}

TEST(RepoNameTest, ACommitIsFortyHexadecimalDigits) {
  EXPECT_TRUE(is_commit("0123456789abcdefABCDEF0123456789abcdef01"));
  EXPECT_FALSE(is_commit("0123456789abcdefABCDEF0123456789abcdef0"));
  EXPECT_FALSE(is_commit("0123456789abcdefABCDEF0123456789abcdef0g"));
}

}  // namespace
}  // namespace pagemill
