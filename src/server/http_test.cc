// Hostile and unusual HTTP, hang-ups, slow clients, many streams, drain: over real sockets.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include "server/server_test_util.h"

namespace pagemill {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

using Http = ServerTest;
constexpr const char* kPath = "/v1/completions";

FakeEngineOptions slow_engine(milliseconds step) {
  FakeEngineOptions options;
  options.step_delay = step;
  return options;
}

std::string post_bytes(std::string_view body, std::string_view extra = {}) {
  return "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n" + std::string(extra) + "\r\n" + std::string(body);
}

const std::string kLong = R"({"prompt":"abc","max_tokens":500})";
const std::string kLongStream = R"({"prompt":"abc","max_tokens":500,"stream":true})";

TEST_F(Http, RoutesAndMethods) {
  start();
  EXPECT_EQ(get("/nope").status, 404);
  const TestResponse wrong = get(kPath);
  EXPECT_EQ(wrong.status, 405);
  EXPECT_THAT(wrong.headers.at("allow"), HasSubstr("POST"));
  EXPECT_EQ(client().request("BREW", "/health").status, 405);
  const TestResponse options = client().request("OPTIONS", kPath);
  EXPECT_EQ(options.status, 204);
  EXPECT_THAT(options.headers.at("allow"), HasSubstr("POST"));
  TestClient head = client();
  head.send("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string both;
  EXPECT_TRUE(eventually([&] {
    both += head.read_some(10000, milliseconds(100));
    return both.find("{\"status\"") != std::string::npos;
  }));
  EXPECT_EQ(both.find("{\"status\""), both.rfind("{\"status\"")) << "HEAD has no body";
}

TEST_F(Http, KeepAliveAndPipelining) {
  start();
  TestClient c = client();
  std::string bytes;
  for (const char* prompt : {"ab", "cd", "ef"}) {
    bytes += post_bytes(R"({"max_tokens":2,"prompt":")" + std::string(prompt) + "\"}");
  }
  c.send(bytes);
  for (const char* prompt : {"ab", "cd", "ef"}) {
    const TestResponse response = c.read_response();
    ASSERT_EQ(response.status, 200);
    EXPECT_EQ(Json::parse(response.body)["choices"][0]["text"], prompt);
  }
  EXPECT_EQ(c.request("GET", "/health").status, 200);
}

TEST_F(Http, Http10AndConnectionClose) {
  start();
  TestClient old = client();
  old.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " +
           std::to_string(kLongStream.size()) + "\r\n\r\n" + kLongStream);
  const TestResponse streamed = old.read_response();
  EXPECT_EQ(streamed.status, 200);
  EXPECT_EQ(streamed.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(sse_events(streamed.body).back(), "[DONE]");
  TestClient closing = client();
  closing.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(closing.read_response().headers.at("connection"), "close");
  EXPECT_TRUE(closing.closed_within(seconds(5)));
}

TEST_F(Http, ChunkedBodyAndExpectContinue) {
  start();
  TestClient chunked = client();
  chunked.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (const char* part :
       {"5\r\n{\"pro\r\n", "9;x=y\r\nmpt\":\"ab\"\r\n", "1\r\n}\r\n0\r\n", "T: v\r\n\r\n"}) {
    std::this_thread::sleep_for(milliseconds(5));
    chunked.send(part);
  }
  EXPECT_EQ(chunked.read_response().status, 200);
  TestClient expecting = client();
  const std::string body = R"({"prompt":"ab"})";
  expecting.send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(expecting.read_response().status, 100);
  expecting.send(body);
  EXPECT_EQ(expecting.read_response().status, 200);
}

TEST_F(Http, ByteByByte) {
  start();
  TestClient c = client();
  for (const char byte : post_bytes(R"({"prompt":"ab"})")) {
    c.send(std::string_view(&byte, 1));
  }
  EXPECT_EQ(c.read_response().status, 200);
}

struct Malformed {
  const char* name;
  std::string bytes;
  int status;
};
void PrintTo(const Malformed& m, std::ostream* out) { *out << m.name; }

class MalformedHttp : public ServerTest, public ::testing::WithParamInterface<Malformed> {};

TEST_P(MalformedHttp, IsRefusedAndCloses) {
  ServerOptions options;
  options.max_header_bytes = 4096;
  options.max_body_bytes = 1000;
  start({}, options);
  TestClient c = client();
  // What follows must never be read as a second request.
  c.send(GetParam().bytes + "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  const TestResponse response = c.read_response();
  EXPECT_EQ(response.status, GetParam().status) << response.body;
  EXPECT_TRUE(Json::parse(response.body).contains("error"));
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_EQ(c.read_response().status, 0);
  EXPECT_EQ(get("/health").status, 200);
}

std::string with_headers(const std::string& headers) {
  return "POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n";
}

const Malformed kMalformed[] = {
    {"LengthAndChunked",
     with_headers("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
     400},
    {"ChunkedAndLength",
     with_headers("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "0\r\n\r\n",
     400},
    {"TwoLengths", with_headers("Content-Length: 2\r\nContent-Length: 2\r\n") + "{}", 400},
    {"TwoDifferentLengths", with_headers("Content-Length: 2\r\nContent-Length: 3\r\n") + "{}", 400},
    {"LengthList", with_headers("Content-Length: 2, 2\r\n") + "{}", 400},
    {"LengthSigned", with_headers("Content-Length: +2\r\n") + "{}", 400},
    {"LengthNegative", with_headers("Content-Length: -2\r\n") + "{}", 400},
    {"LengthHex", with_headers("Content-Length: 0x2\r\n") + "{}", 400},
    {"LengthOverflow", with_headers("Content-Length: 99999999999999999999999\r\n"), 400},
    {"LengthHuge", with_headers("Content-Length: 9999999999999\r\n"), 413},
    {"LengthOverLimit", with_headers("Content-Length: 1001\r\n"), 413},
    {"GzipCoding", with_headers("Transfer-Encoding: gzip, chunked\r\n") + "0\r\n\r\n", 501},
    {"CodingTwice",
     with_headers("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n",
     400},
    {"CodingNotChunked", with_headers("Transfer-Encoding: xchunked\r\n") + "0\r\n\r\n", 501},
    {"ChunkedOverLimit",
     with_headers("Transfer-Encoding: chunked\r\n") + "7d0\r\n" + std::string(2000, 'x') +
         "\r\n0\r\n\r\n",
     413},
    {"ChunkSize", with_headers("Transfer-Encoding: chunked\r\n") + "zz\r\n\r\n", 400},
    {"ChunkSizeOverflow",
     with_headers("Transfer-Encoding: chunked\r\n") + "fffffffffffffffff\r\nx",
     400},
    {"BareLf", "GET /health HTTP/1.1\nHost: x\n\n", 400},
    {"BareCr", "GET /health HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400},
    {"Folded", "GET /health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400},
    {"SpaceBeforeColon", "GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400},
    {"Nul", std::string("GET /health HTTP/1.1\r\nHost: x\r\nA: \0b\r\n\r\n", 40), 400},
    {"NoHost", "GET /health HTTP/1.1\r\n\r\n", 400},
    {"TwoHosts", "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
    {"Garbage", "\x16\x03\x01\x02\x01\r\n\r\n", 400},
    {"Version2", "GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505},
    {"RelativeTarget", "GET health HTTP/1.1\r\nHost: x\r\n\r\n", 400},
    {"Expect", with_headers("Expect: magic\r\nContent-Length: 2\r\n") + "{}", 417},
    {"HeaderTooLarge",
     "GET /health HTTP/1.1\r\nHost: x\r\nA: " + std::string(8192, 'a') + "\r\n\r\n",
     431},
    {"EndlessHeader", "GET /" + std::string(100000, 'a'), 431},
};
INSTANTIATE_TEST_SUITE_P(All, MalformedHttp, ::testing::ValuesIn(kMalformed), [](const auto& info) {
  return std::string(info.param.name);
});

TEST_F(Http, LengthRequiredAndContentType) {
  start();
  TestClient c = client();
  c.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(c.read_response().status, 411);
  c.send(post_bytes("{}", "Content-Type: text/plain\r\n"));
  EXPECT_EQ(c.read_response().status, 415);
  c.send(post_bytes(R"({"prompt":"a"})", "Content-Type: application/json; charset=utf-8\r\n"));
  EXPECT_EQ(c.read_response().status, 200);
}

TEST_F(Http, SlowHeadersAndBodiesTimeOut) {
  ServerOptions options;
  options.header_timeout_s = options.body_timeout_s = 0.2;
  options.idle_timeout_s = 0.2;
  start({}, options);
  TestClient silent = client();
  EXPECT_TRUE(silent.closed_within(seconds(5)));
  TestClient head = client();
  head.send("GET /health HTTP/1.1\r\n");
  EXPECT_EQ(head.read_response().status, 408);
  TestClient body = client();
  body.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(body.read_response().status, 408);
  TestClient kept = client();
  EXPECT_EQ(kept.request("GET", "/health").status, 200);
  EXPECT_TRUE(kept.closed_within(seconds(5)));
}

TEST_F(Http, HangUpWhileStreamingFreesTheRequest) {
  start(slow_engine(milliseconds(5)));
  TestClient c = client();
  c.send(post_bytes(kLongStream));
  EXPECT_THAT(c.read_some(1000, seconds(5)), HasSubstr("200 OK"));
  EXPECT_EQ(engine_->num_live(), 1u);
  c.close();
  EXPECT_TRUE(eventually([&] { return engine_->num_live() == 0; }, seconds(1)));
  EXPECT_EQ(engine_->num_aborted(), 1u);
}

TEST_F(Http, HangUpWhileWaitingFreesEveryPrompt) {
  start(slow_engine(milliseconds(5)));
  for (const bool with_reset : {false, true}) {
    TestClient c = client();
    c.send(post_bytes(R"({"prompt":["a","b","c"],"max_tokens":500})"));
    ASSERT_TRUE(eventually([&] { return engine_->num_live() == 3; }));
    with_reset ? c.reset() : c.half_close();
    EXPECT_TRUE(eventually([&] { return engine_->num_live() == 0; }, seconds(1)));
  }
  EXPECT_EQ(engine_->num_aborted(), 6u);
}

TEST_F(Http, AClientThatReadsNothingIsAbortedAndHurtsNobody) {
  FakeEngineOptions engine;
  engine.step_delay = std::chrono::microseconds(100);
  engine.max_model_len = 400000;
  ServerOptions options;
  options.max_stream_buffer_bytes = 64 << 10;
  start(engine, options);
  TestClient stuck = client();
  stuck.shrink_receive_buffer();
  stuck.send(post_bytes(R"({"prompt":"abc","max_tokens":300000,"stream":true,"logprobs":5})"));
  // Not num_live(): on a busy machine it may be aborted before this thread looks.
  ASSERT_TRUE(eventually([&] { return engine_->num_submitted() == 1; }));
  EXPECT_EQ(post(kPath, {{"prompt", "ab"}}).status, 200);
  EXPECT_TRUE(eventually([&] { return engine_->num_live() == 0; }, seconds(60)));
  EXPECT_EQ(engine_->num_aborted(), 1u);
  EXPECT_TRUE(stuck.closed_within(seconds(20)));
}

TEST_F(Http, FiveHundredConcurrentStreams) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 4096);
  setrlimit(RLIMIT_NOFILE, &files);
  start(slow_engine(milliseconds(20)));
  std::vector<TestClient> clients;
  for (int i = 0; i < 500; ++i) {
    clients.push_back(client());
    const std::string prompt = "p" + std::to_string(i) + ";";
    clients.back().send(
        post_bytes(R"({"max_tokens":40,"stream":true,"prompt":")" + prompt + "\"}"));
  }
  EXPECT_TRUE(eventually([&] { return engine_->num_submitted() == 500; }, seconds(60)));
  for (int i = 0; i < 500; ++i) {
    const TestResponse response = clients[static_cast<std::size_t>(i)].read_response(seconds(60));
    ASSERT_EQ(response.status, 200) << i;
    const auto events = sse_events(response.body);
    ASSERT_EQ(events.back(), "[DONE]");
    std::string text, expected;
    for (std::size_t e = 0; e + 1 < events.size(); ++e) {
      text += Json::parse(events[e])["choices"][0]["text"].get<std::string>();
    }
    while (expected.size() < 40) expected += "p" + std::to_string(i) + ";";
    EXPECT_EQ(text, expected.substr(0, 40)) << i;
  }
  EXPECT_EQ(engine_->num_aborted(), 0u);
}

TEST_F(Http, ConnectionsPastTheLimitHear503) {
  ServerOptions options;
  options.max_connections = 2;
  start({}, options);
  TestClient a = client(), b = client();
  EXPECT_EQ(a.request("GET", "/health").status, 200);
  EXPECT_EQ(b.request("GET", "/health").status, 200);
  TestClient over = client();
  const TestResponse refused = over.request("GET", "/health");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  EXPECT_EQ(Json::parse(refused.body)["error"]["type"], "service_unavailable_error");
  EXPECT_THAT(refused.body, HasSubstr("2 connections"));
  EXPECT_TRUE(over.closed_within(seconds(5)));
  a.close();
  EXPECT_TRUE(eventually([&] { return get("/health").status == 200; }));
}

// Neither clients that stay nor clients that never stop talking hold what a refusal needs.
TEST_F(Http, RefusedConnectionsAreLetGo) {
  ServerOptions options;
  options.max_connections = 1;
  start({}, options);
  TestClient served = client();
  EXPECT_EQ(served.request("GET", "/health").status, 200);
  std::vector<TestClient> refused;
  refused.reserve(200);
  for (int i = 0; i < 200; ++i) {
    refused.push_back(client());
    refused.back().send(std::string(100000, 'x'));
  }
  for (TestClient& each : refused) EXPECT_TRUE(each.closed_within(seconds(10)));
  EXPECT_TRUE(eventually([&] { return get("/health").status == 503; })) << "told again";
  EXPECT_EQ(served.request("GET", "/health").status, 200);
}

TEST_F(Http, MetricsAnswerWhileDraining) {
  start(slow_engine(milliseconds(5)));
  TestClient streaming = client();
  streaming.send(post_bytes(R"({"prompt":"abc","max_tokens":200,"stream":true})"));
  ASSERT_TRUE(eventually([&] { return engine_->num_live() == 1; }));
  bool clean = false;
  std::thread drain([&] { clean = server_->drain_and_stop(20); });
  EXPECT_TRUE(eventually([&] { return get("/health").status == 503; }));
  const TestResponse metrics = get("/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_THAT(metrics.body, HasSubstr("num_requests_running"));
  EXPECT_EQ(metrics.headers.at("connection"), "close");
  EXPECT_EQ(get("/v1/models").status, 503);
  EXPECT_EQ(post("/v1/completions", {{"prompt", "abc"}}).status, 503);
  EXPECT_EQ(sse_events(streaming.read_response().body).back(), "[DONE]");
  drain.join();
  EXPECT_TRUE(clean);
  EXPECT_EQ(engine_->num_submitted(), 1u);
}

TEST_F(Http, DrainFinishesStreamsAndRefusesNewRequests) {
  start(slow_engine(milliseconds(5)));
  TestClient kept = client(), idle = client(), streaming = client();
  EXPECT_EQ(kept.request("GET", "/health").status, 200);
  EXPECT_EQ(idle.request("GET", "/health").status, 200);
  // Half a request: its connection is not idle when the drain begins.
  kept.send("GET /health HTTP/1.1\r\nHost:");
  streaming.send(post_bytes(R"({"prompt":"abc","max_tokens":100,"stream":true})"));
  ASSERT_TRUE(eventually([&] { return engine_->num_live() == 1; }));
  std::this_thread::sleep_for(milliseconds(50));
  bool clean = false;
  std::thread drain([&] { clean = server_->drain_and_stop(20); });
  EXPECT_TRUE(idle.closed_within(seconds(5)));
  kept.send(" x\r\n\r\n");
  const TestResponse refused = kept.read_response();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  const TestResponse streamed = streaming.read_response();
  EXPECT_EQ(sse_events(streamed.body).back(), "[DONE]");
  drain.join();
  EXPECT_TRUE(clean);
  EXPECT_EQ(engine_->num_aborted(), 0u);
  EXPECT_TRUE(client().closed_within(milliseconds(100))) << "the port is closed";
}

TEST_F(Http, DrainAbortsWhatOutlivesTheTimeout) {
  start(slow_engine(milliseconds(20)));
  TestClient c = client();
  c.send(post_bytes(kLongStream));
  ASSERT_TRUE(eventually([&] { return engine_->num_live() == 1; }));
  EXPECT_FALSE(server_->drain_and_stop(0.1));
  EXPECT_EQ(engine_->num_live(), 0u);
  EXPECT_EQ(engine_->num_aborted(), 1u);
}

TEST_F(Http, SignalDrains) {
  start(slow_engine(milliseconds(2)));
  TestClient c = client();
  c.send(post_bytes(R"({"prompt":"abc","max_tokens":50,"stream":true})"));
  ASSERT_TRUE(eventually([&] { return engine_->num_live() == 1; }));
  bool clean = false;
  std::atomic<bool> waiting{false};
  std::thread wait([&] {
    waiting = true;
    clean = server_->wait_for_signal();
  });
  while (!waiting) std::this_thread::yield();
  std::this_thread::sleep_for(milliseconds(50));  // until the handler is in place
  raise(SIGTERM);
  wait.join();
  EXPECT_TRUE(clean);
  EXPECT_EQ(sse_events(c.read_response().body).back(), "[DONE]");
}

TEST_F(Http, StopEndsEverythingAtOnce) {
  start(slow_engine(milliseconds(20)));
  TestClient stream = client(), whole = client(), half = client();
  stream.send(post_bytes(kLongStream));
  whole.send(post_bytes(kLong));
  half.send("POST /v1");
  ASSERT_TRUE(eventually([&] { return engine_->num_live() == 2; }));
  server_->stop();
  EXPECT_EQ(engine_->num_live(), 0u);
  EXPECT_TRUE(half.closed_within(seconds(1)));
}

TEST_F(Http, StartErrors) {
  start();
  ServerOptions options;
  options.port = server_->port();
  const auto taken = Server::start(*engine_, options);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.error().code, ErrorCode::kIo);
  options.host = "not an address";
  EXPECT_EQ(Server::start(*engine_, options).error().param, "host");
}

}  // namespace
}  // namespace pagemill
