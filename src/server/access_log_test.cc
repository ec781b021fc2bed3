#include "server/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/spdlog.h>

#include "server/server_test_util.h"

namespace pagemill {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(AccessLog, ALineIsOneLineOfPlainWords) {
  HttpRequest request;
  request.method = "POST";
  request.path = "/a\n\"b\\\xff" + std::string(400, 'c');
  request.query = "prompt=secret";
  request.headers = {{"x-request-id", "id 7"}};
  request.http_1_1 = false;
  AccessRecord record = access_record("10.0.0.1:5", request);
  record.status = 200;
  record.num_bytes = 1234;
  record.seconds = 1.23456;
  EXPECT_EQ(
      access_line(record),
      "10.0.0.1:5 \"POST /a??b??" + std::string(249, 'c') + "... HTTP/1.0\" 200 1234 1.235 id?7");
  HttpRequest plain;
  plain.method = "GET";
  plain.path = "/";
  EXPECT_EQ(access_line(access_record("c", plain)), "c \"GET / HTTP/1.1\" 499 0 0.000 -");
}

class AccessLogTest : public ServerTest {
 protected:
  AccessLogTest() { spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", sink_)); }
  ~AccessLogTest() override { spdlog::set_default_logger(before_); }

  // A line comes after the client has read the answer.
  std::vector<std::string> lines(std::size_t count) {
    EXPECT_TRUE(eventually([&] { return sink_->last_raw().size() >= count; }));
    std::vector<std::string> out;
    for (const auto& message : sink_->last_raw()) {
      out.emplace_back(message.payload.data(), message.payload.size());
    }
    return out;
  }

  const std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  const std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> sink_ =
      std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(100);
};

TEST_F(AccessLogTest, EachRequestIsALineWithoutItsText) {
  access_log_ = true;
  start();
  TestClient kept = client();
  const TestResponse health = kept.request("GET", "/health?prompt=secret");
  kept.send("GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc-1\r\n\r\n");
  EXPECT_EQ(kept.read_response().status, 404);
  const Json body = {{"model", "fake"}, {"prompt", "secret"}, {"max_tokens", 4}, {"stream", true}};
  const TestResponse streamed = post("/v1/completions", body);
  client().send("nonsense\r\n\r\n");
  const auto found = lines(4);
  EXPECT_THAT(
      found,
      ElementsAre(
          ContainsRegex("^127\\.0\\.0\\.1:[0-9]+ \"GET /health HTTP/1\\.1\" 200 [1-9][0-9]* "
                        "[0-9]+\\.[0-9]{3} -$"),
          ContainsRegex("\"GET /nowhere HTTP/1\\.1\" 404 [1-9][0-9]* [0-9.]+ abc-1$"),
          ContainsRegex("\"POST /v1/completions HTTP/1\\.1\" " + std::to_string(streamed.status) +
                        " [1-9][0-9]+ [0-9.]+ -$"),
          ContainsRegex("^127\\.0\\.0\\.1:[0-9]+ \"-\" 400 [1-9][0-9]+ 0\\.000 -$")));
  for (const std::string& line : found) EXPECT_THAT(line, Not(HasSubstr("secret")));
}

TEST_F(AccessLogTest, AClientThatLeavesIsALineToo) {
  FakeEngineOptions slow;
  slow.step_delay = std::chrono::milliseconds(50);
  access_log_ = true;
  start(slow);
  {
    TestClient leaving = client();
    leaving.send_request(
        "POST", "/v1/completions", Json{{"prompt", "a"}, {"max_tokens", 500}}.dump());
    ASSERT_TRUE(eventually([&] { return engine_->num_live() == 1; }));
  }
  EXPECT_THAT(lines(1),
              ElementsAre(ContainsRegex("\"POST /v1/completions HTTP/1\\.1\" 499 0 [0-9.]+ -$")));
}

TEST_F(AccessLogTest, CanBeOff) {
  start();
  EXPECT_EQ(get("/health").status, 200);
  server_->stop();
  EXPECT_TRUE(sink_->last_raw().empty());
}

}  // namespace
}  // namespace pagemill
