#include "cli/http_stream.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace pagemill::cli {
namespace {

TEST(HttpUrl, Parts) {
  const auto expect = [](const char* text, const char* host, const char* port, const char* path) {
    const auto url = parse_http_url(text);
    ASSERT_TRUE(url.ok()) << url.error().message;
    EXPECT_EQ(url->host, host) << text;
    EXPECT_EQ(url->port, port) << text;
    EXPECT_EQ(url->path, path) << text;
  };
  expect("http://127.0.0.1:8000", "127.0.0.1", "8000", "");
  expect("http://localhost/", "localhost", "80", "");
  expect("http://example.org:1/a/v1/", "example.org", "1", "/a/v1");
  expect("http://[::1]:8000/v1", "::1", "8000", "/v1");
  expect("http://[::1]", "::1", "80", "");
}

TEST(HttpUrl, Refused) {
  for (const char* text : {"",
                           "localhost:8000",
                           "https://localhost",
                           "http://",
                           "http://:80",
                           "http://a:",
                           "http://a:0",
                           "http://a:65536",
                           "http://a:8x",
                           "http://[::1",
                           "http://[::1]x80",
                           "ftp://a"}) {
    const auto url = parse_http_url(text);
    ASSERT_FALSE(url.ok()) << text;
    EXPECT_EQ(url.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(EventStream, EveryCutGivesTheSame) {
  const std::string bytes =
      "data: {\"a\": 1}\r\n\r\n: comment\n\ndata:[DONE]\n\nevent: x\ndata: cut";
  EXPECT_TRUE(rc::check("in pieces", [&] {
    EventStream stream;
    std::vector<std::string> events;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto size = *rc::gen::inRange<std::size_t>(1, bytes.size() + 1);
      stream.take(std::string_view(bytes).substr(at, size),
                  [&](std::string_view data) { events.emplace_back(data); });
      at += size;
    }
    RC_ASSERT((events == std::vector<std::string>{"{\"a\": 1}", "[DONE]"}));
  }));
}

}  // namespace
}  // namespace pagemill::cli
