#include "hub/hub_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pagemill {
namespace {

TEST(HubClientTest, WhatTheHubSaysOfARepository) {
  const auto info = parse_repo_info(
      R"({"id": "a/b", "sha": "0123456789012345678901234567890123456789",
          "siblings": [{"rfilename": "config.json"}, {"rfilename": "x/y.gguf", "size": 3}]})",
      "url");
  ASSERT_TRUE(info.ok()) << info.error().message;
  EXPECT_EQ(info->commit, "0123456789012345678901234567890123456789");
  EXPECT_THAT(info->files, testing::ElementsAre("config.json", "x/y.gguf"));
}

TEST(HubClientTest, AnythingElseIsRefusedWithItsUrl) {
  const std::string sha = R"("sha": "0123456789012345678901234567890123456789")";
  for (const std::string& text : {std::string("<html>log in</html>"),
                                  std::string("[]"),
                                  std::string("{}"),
                                  "{" + sha + "}",
                                  "{" + sha + R"(, "siblings": {}})",
                                  "{" + sha + R"(, "siblings": ["config.json"]})",
                                  "{" + sha + R"(, "siblings": [{}]})",
                                  "{" + sha + R"(, "siblings": [{"rfilename": 1}]})",
                                  "{" + sha + R"(, "siblings": [{"rfilename": "../../x"}]})",
                                  "{" + sha + R"(, "siblings": [{"rfilename": "/etc/passwd"}]})",
                                  std::string(R"({"sha": "../../x", "siblings": []})"),
                                  std::string(R"({"sha": 1, "siblings": []})")}) {
    const auto info = parse_repo_info(text, "http://hub/api");
    ASSERT_FALSE(info.ok()) << text;
    EXPECT_EQ(info.error().code, ErrorCode::kCorrupt);
    EXPECT_THAT(info.error().message, testing::StartsWith("http://hub/api: "));
  }
}

TEST(WebClientTest, UrlsInMessagesHoldNoSecrets) {
  EXPECT_EQ(printable_url("https://user:pass@cdn.example/a/b?Signature=secret#x"),
            "https://cdn.example:443/a/b");
  EXPECT_EQ(printable_url("not a url"), "(a malformed URL)");
}

TEST(WebClientTest, AnOriginIsSchemeHostAndPort) {
  EXPECT_EQ(origin_of("https://Hub.example/x"), origin_of("https://hub.example:443/y?z"));
  EXPECT_NE(origin_of("https://hub.example/"), origin_of("http://hub.example/"));
  EXPECT_NE(origin_of("http://hub.example/"), origin_of("http://hub.example:8080/"));
  EXPECT_NE(origin_of("http://hub.example/"), origin_of("http://hub.example.evil/"));
  EXPECT_NE(origin_of("http://hub.example@evil/"), origin_of("http://hub.example/"));
}

}  // namespace
}  // namespace pagemill
