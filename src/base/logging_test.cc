#include "base/logging.h"

#include <gtest/gtest.h>

#include <string>

namespace pagemill {
namespace {

TEST(Logging, WritesPlainLinesToStderr) {
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(init_logging("info").ok());
  spdlog::debug("hidden");
  spdlog::info("{} blocks", 42);
  spdlog::default_logger()->flush();
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find(" info 42 blocks\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("hidden"), std::string::npos) << text;
}

TEST(Logging, WritesJsonLines) {
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(init_logging("warning", /*json=*/true).ok());
  spdlog::info("hidden");
  spdlog::error("a \"quoted\"\nline");
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(text.find("hidden"), std::string::npos) << text;
  EXPECT_NE(text.find(R"(Z","level":"error","message":"a \"quoted\"\nline"})"), std::string::npos)
      << text;
  ASSERT_TRUE(init_logging("info").ok());
}

TEST(Logging, EscapesControlCharacters) {
  EXPECT_EQ(json_log_line("t", "info", std::string("\x01\t\\\r", 4)),
            R"({"time":"t","level":"info","message":"\u0001\t\\\r"})");
}

TEST(Logging, RefusesAnUnknownLevel) {
  const Status status = init_logging("loud");
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("'loud'"), std::string::npos);
  EXPECT_TRUE(init_logging("off").ok());
  EXPECT_TRUE(init_logging("info").ok());
}

}  // namespace
}  // namespace pagemill
