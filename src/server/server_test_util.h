// A server on an ephemeral port before a FakeEngine, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "server/server.h"
#include "server/testing/fake_engine.h"
#include "server/testing/http_client.h"

namespace pagemill {

using Json = nlohmann::json;

class ServerTest : public ::testing::Test {
 protected:
  void start(FakeEngineOptions engine_options = {}, ServerOptions options = {}) {
    // Building a tokenizer takes longer than most of these tests.
    static const std::shared_ptr<const Tokenizer> kTokenizer = make_test_tokenizer();
    engine_options.tokenizer = kTokenizer;
    engine_ = std::make_unique<FakeEngine>(engine_options);
    options.port = 0;
    options.access_log = access_log_;
    auto server = Server::start(*engine_, options);
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_ = std::move(server).value();
  }
  void TearDown() override {
    if (server_) server_->stop();
    if (engine_) {
      EXPECT_TRUE(eventually([&] { return engine_->num_live() == 0; }))
          << "a request was not freed";
    }
  }

  TestClient client() { return TestClient(server_->port()); }
  TestResponse get(std::string_view path) { return client().request("GET", path); }
  TestResponse post(std::string_view path, const Json& body) {
    return client().request("POST", path, body.dump());
  }
  // The parsed body of a 200.
  Json post_ok(std::string_view path, const Json& body) {
    const TestResponse response = post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body, nullptr, false);
  }
  // The parsed events of a stream that ended with [DONE], without it.
  std::vector<Json> stream_ok(std::string_view path, const Json& body) {
    const TestResponse response = post(path, body);
    EXPECT_EQ(response.status, 200) << response.body;
    EXPECT_TRUE(response.complete);
    std::vector<Json> out;
    const auto events = sse_events(response.body);
    if (events.empty() || events.back() != "[DONE]") {
      ADD_FAILURE() << "no [DONE]: " << response.body;
      return out;
    }
    for (std::size_t i = 0; i + 1 < events.size(); ++i) out.push_back(Json::parse(events[i]));
    return out;
  }

  template <typename Condition>
  static bool eventually(Condition condition,
                         std::chrono::seconds timeout = std::chrono::seconds(10)) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  bool access_log_ = false;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Server> server_;
};

}  // namespace pagemill
