// Every endpoint over real sockets: shapes, streams, errors.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "server/server_test_util.h"

namespace pagemill {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Endpoints = ServerTest;
constexpr const char* kCompletionsPath = "/v1/completions";
constexpr const char* kChatPath = "/v1/chat/completions";

Json chat_body(const char* content = "hi") {
  return {{"messages", {{{"role", "user"}, {"content", content}}}}, {"max_tokens", 4}};
}

TEST_F(Endpoints, ModelsHealthVersionMetrics) {
  ServerOptions options;
  options.served_model_names = {"org/fake", "alias"};
  options.version = "1.2.3";
  start({}, options);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(Json::parse(get("/version").body)["version"], "1.2.3");
  const Json models = Json::parse(get("/v1/models").body);
  EXPECT_EQ(models["object"], "list");
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "org/fake");
  EXPECT_EQ(models["data"][0]["max_model_len"], 512);
  EXPECT_EQ(Json::parse(get("/v1/models/org/fake").body)["id"], "org/fake");
  EXPECT_EQ(Json::parse(get("/v1/models/org%2Ffake").body)["id"], "org/fake");
  const TestResponse missing = get("/v1/models/other");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(Json::parse(missing.body)["error"]["code"], "model_not_found");

  post_ok(kCompletionsPath, {{"prompt", "abc"}, {"model", "alias"}});
  EXPECT_TRUE(eventually([&] {
    return get("/metrics")
               .body.find(
                   "request_success_total{engine=\"0\",finished_reason=\"length\","
                   "model_name=\"org/fake\"} 1") != std::string::npos;
  }));
  const std::string metrics = get("/metrics").body;
  EXPECT_THAT(
      metrics,
      HasSubstr("pagemill:generation_tokens_total{engine=\"0\",model_name=\"org/fake\"} 16"));
  EXPECT_THAT(metrics, HasSubstr("route=\"/v1/models/*\",status=\"404\"} 1"));
  EXPECT_THAT(
      metrics,
      HasSubstr("pagemill:request_params_max_tokens_sum{engine=\"0\",model_name=\"org/fake\"} 16"));
}

TEST_F(Endpoints, TokenizeAndDetokenize) {
  start();
  Json out = post_ok("/tokenize", {{"prompt", "ab"}, {"return_token_strs", true}});
  EXPECT_EQ(out["tokens"], Json({97, 98}));
  EXPECT_EQ(out["count"], 2);
  EXPECT_EQ(out["max_model_len"], 512);
  EXPECT_EQ(out["token_strs"], Json({"a", "b"}));
  out = post_ok("/tokenize", chat_body());
  EXPECT_EQ(out["tokens"][0], kTestImStart);
  EXPECT_EQ(post_ok("/detokenize", {{"tokens", {104, 105}}})["prompt"], "hi");
  EXPECT_EQ(post("/detokenize", {{"tokens", {104, 9999}}}).status, 400);
  EXPECT_EQ(post("/detokenize", Json::object()).status, 400);
  EXPECT_EQ(post("/tokenize", Json::object()).status, 400);
}

TEST_F(Endpoints, CompletionShapeAndUsage) {
  start();
  const Json out = post_ok(kCompletionsPath, {{"prompt", "abc"}, {"max_tokens", 5}});
  EXPECT_THAT(out["id"].get<std::string>(), StartsWith("cmpl-"));
  EXPECT_EQ(out["object"], "text_completion");
  EXPECT_EQ(out["model"], "fake");
  ASSERT_EQ(out["choices"].size(), 1u);
  EXPECT_EQ(out["choices"][0]["text"], "abcab");
  EXPECT_EQ(out["choices"][0]["index"], 0);
  EXPECT_EQ(out["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(out["choices"][0]["logprobs"].is_null());
  EXPECT_TRUE(out["choices"][0]["stop_reason"].is_null());
  EXPECT_EQ(out["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(out["usage"]["completion_tokens"], 5);
  EXPECT_EQ(out["usage"]["total_tokens"], 8);
  EXPECT_EQ(out["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(Endpoints, CompletionBatchesPromptsAndChoices) {
  start();
  Json out = post_ok(kCompletionsPath, {{"prompt", {"abc", "xy"}}, {"n", 2}, {"max_tokens", 3}});
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < out["choices"].size(); ++i) {
    EXPECT_EQ(out["choices"][i]["index"], i);
    texts.push_back(out["choices"][i]["text"]);
  }
  EXPECT_THAT(texts, ElementsAre("abc", "bca", "xyx", "yxy"));
  EXPECT_EQ(out["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(out["usage"]["completion_tokens"], 12);
  out = post_ok(kCompletionsPath, {{"prompt", {104, 105}}, {"max_tokens", 3}});
  EXPECT_EQ(out["choices"][0]["text"], "hih");
  out = post_ok(kCompletionsPath, {{"prompt", Json::parse("[[104],[105,33]]")}, {"max_tokens", 2}});
  EXPECT_EQ(out["choices"][0]["text"], "hh");
  EXPECT_EQ(out["choices"][1]["text"], "i!");
}

TEST_F(Endpoints, CompletionStopStringsNeverReachTheClient) {
  start();
  const Json body = {{"prompt", "abcdef"}, {"max_tokens", 20}, {"stop", {"de", "zz"}}};
  Json out = post_ok(kCompletionsPath, body);
  EXPECT_EQ(out["choices"][0]["text"], "abc");
  EXPECT_EQ(out["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(out["choices"][0]["stop_reason"], "de");
  Json streamed = body;
  streamed["stream"] = true;
  std::string text;
  Json last;
  for (const Json& chunk : stream_ok(kCompletionsPath, streamed)) {
    text += chunk["choices"][0]["text"].get<std::string>();
    last = chunk;
  }
  EXPECT_EQ(text, "abc");
  EXPECT_EQ(last["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(post_ok(kCompletionsPath, {{"prompt", "ab"}, {"stop", "b"}})["choices"][0]["text"],
            "a");
  out = post_ok(kCompletionsPath, {{"prompt", "ab"}, {"stop_token_ids", {98}}});
  EXPECT_EQ(out["choices"][0]["stop_reason"], 98);
}

TEST_F(Endpoints, CompletionLogprobsAndEcho) {
  start();
  Json out = post_ok(kCompletionsPath,
                     {{"prompt", "é!"}, {"max_tokens", 2}, {"logprobs", 2}, {"echo", true}});
  const Json& choice = out["choices"][0];
  EXPECT_EQ(choice["text"], "é!é");
  const Json& logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"],
            Json({"bytes:\\xc3", "bytes:\\xa9", "!", "bytes:\\xc3", "bytes:\\xa9"}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 1, 1, 2, 3}));
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["token_logprobs"][2], -0.25);
  EXPECT_EQ(logprobs["top_logprobs"][2].size(), 2u);
  EXPECT_EQ(logprobs["top_logprobs"][2]["!"], -0.25);
  EXPECT_EQ(logprobs["top_logprobs"][2]["\""], -1.25);

  out = post_ok(kCompletionsPath,
                {{"prompt", "abc"}, {"max_tokens", 0}, {"logprobs", 0}, {"echo", true}});
  EXPECT_EQ(out["choices"][0]["text"], "abc");
  EXPECT_EQ(out["choices"][0]["logprobs"]["tokens"].size(), 3u);
  EXPECT_EQ(out["usage"]["completion_tokens"], 0);
}

TEST_F(Endpoints, CompletionStreamWithUsage) {
  start();
  const auto chunks = stream_ok(kCompletionsPath,
                                {{"prompt", {"ab", "cd"}},
                                 {"max_tokens", 2},
                                 {"stream", true},
                                 {"stream_options", {{"include_usage", true}}}});
  ASSERT_GE(chunks.size(), 5u);
  std::map<int, std::string> texts;
  for (std::size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_TRUE(chunks[i].contains("usage") && chunks[i]["usage"].is_null());
    texts[chunks[i]["choices"][0]["index"]] += chunks[i]["choices"][0]["text"];
  }
  EXPECT_EQ(texts[0], "ab");
  EXPECT_EQ(texts[1], "cd");
  EXPECT_TRUE(chunks.back()["choices"].empty());
  EXPECT_EQ(chunks.back()["usage"]["total_tokens"], 8);
}

TEST_F(Endpoints, ChatShape) {
  start();
  Json body = chat_body();
  body["logprobs"] = true;
  body["top_logprobs"] = 2;
  body["return_token_ids"] = true;
  const Json out = post_ok(kChatPath, body);
  EXPECT_THAT(out["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(out["object"], "chat.completion");
  const Json& choice = out["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "use");  // <|im_start|> is special and not shown
  EXPECT_EQ(choice["finish_reason"], "length");
  ASSERT_EQ(choice["logprobs"]["content"].size(), 4u);
  EXPECT_EQ(choice["logprobs"]["content"][1]["token"], "u");
  EXPECT_EQ(choice["logprobs"]["content"][1]["bytes"], Json({117}));
  EXPECT_EQ(choice["logprobs"]["content"][1]["top_logprobs"].size(), 2u);
  EXPECT_EQ(out["prompt_token_ids"][0], kTestImStart);
  EXPECT_EQ(out["usage"]["completion_tokens"], 4);
}

TEST_F(Endpoints, ChatStreamStartsWithTheRole) {
  start();
  Json body = chat_body();
  body["stream"] = true;
  body["n"] = 2;
  body["stream_options"] = {{"include_usage", true}};
  const auto chunks = stream_ok(kChatPath, body);
  std::map<int, std::vector<Json>> by_index;
  for (std::size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_EQ(chunks[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(chunks[i]["id"], chunks[0]["id"]);
    EXPECT_TRUE(chunks[i]["usage"].is_null());
    by_index[chunks[i]["choices"][0]["index"]].push_back(chunks[i]["choices"][0]);
  }
  ASSERT_EQ(by_index.size(), 2u);
  for (const auto& [index, parts] : by_index) {
    EXPECT_EQ(parts.front()["delta"], Json({{"role", "assistant"}, {"content", ""}}));
    EXPECT_EQ(parts.back()["delta"], Json::object());
    EXPECT_EQ(parts.back()["finish_reason"], "length");
    std::string text;
    for (const Json& part : parts) text += part["delta"].value("content", "");
    EXPECT_EQ(text, index == 0 ? "use" : "user");
  }
  EXPECT_TRUE(chunks.back()["choices"].empty());
  EXPECT_EQ(chunks.back()["usage"]["completion_tokens"], 8);
}

TEST_F(Endpoints, ChatMaxTokensDefaultsToTheContext) {
  FakeEngineOptions engine;
  engine.max_model_len = 64;
  start(engine);
  Json body = chat_body();
  body.erase("max_tokens");
  const Json out = post_ok(kChatPath, body);
  EXPECT_EQ(out["usage"]["total_tokens"], 64);
  body["max_completion_tokens"] = 2;
  EXPECT_EQ(post_ok(kChatPath, body)["usage"]["completion_tokens"], 2);
  body["max_completion_tokens"] = 60;
  const TestResponse refused = post(kChatPath, body);
  EXPECT_EQ(refused.status, 400);
  const Json error = Json::parse(refused.body)["error"];
  EXPECT_EQ(error["param"], "max_completion_tokens");
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("64 tokens"));
}

TEST_F(Endpoints, ChatContentPartsToolsAndEcho) {
  start();
  const Json body = Json::parse(R"({"max_tokens":1,"echo":true,"messages":[
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function",
         "function":{"name":"f","arguments":"{\"x\":1}"}}]},
      {"role":"tool","tool_call_id":"1","content":"7"},
      {"role":"assistant","content":"So"}],
      "tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"auto"})");
  const Json out = post_ok(kChatPath, body);
  EXPECT_THAT(out["choices"][0]["message"]["content"].get<std::string>(), StartsWith("So"));
}

TEST_F(Endpoints, DefaultSamplingComesFromTheModel) {
  start();
  engine_->mutable_model().default_sampling.stop_token_ids = {98};
  EXPECT_EQ(post_ok(kCompletionsPath, {{"prompt", "abc"}})["choices"][0]["stop_reason"], 98);
}

struct ErrorCase {
  const char* name;
  const char* path;
  const char* body;
  int status;
  const char* param;  // null: must be null
  const char* message;
};

void PrintTo(const ErrorCase& c, std::ostream* out) { *out << c.name; }

class Errors : public ServerTest, public ::testing::WithParamInterface<ErrorCase> {};

TEST_P(Errors, HaveOpenAisShape) {
  start();
  const ErrorCase& c = GetParam();
  const TestResponse response = client().request("POST", c.path, c.body);
  EXPECT_EQ(response.status, c.status) << response.body;
  const Json error = Json::parse(response.body)["error"];
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(c.message));
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_TRUE(error.contains("code"));
  if (c.param == nullptr) {
    EXPECT_TRUE(error["param"].is_null()) << error;
  } else {
    EXPECT_EQ(error["param"], c.param);
  }
}

#define PM_CHAT(rest) R"({"messages":[{"role":"user","content":"x"}],)" rest "}"

const ErrorCase kErrors[] = {
    {"BadJson", kChatPath, "{\"messages\": [", 400, nullptr, "not valid JSON"},
    {"Empty", kChatPath, "", 400, nullptr, "got nothing"},
    {"NotAnObject", kChatPath, "[1]", 400, "request body", "expected object, got array"},
    {"BadUtf8", kCompletionsPath, "{\"prompt\":\"\xff\"}", 400, nullptr, "UTF-8"},
    {"LoneSurrogate", kCompletionsPath, R"({"prompt":"\ud800"})", 400, nullptr, "JSON"},
    {"ContentNumber",
     kChatPath,
     R"({"messages":[{"role":"user","content":1}]})",
     400,
     "messages[0].content",
     "messages[0].content: expected string, got number"},
    {"NoContent",
     kChatPath,
     R"({"messages":[{"role":"user"}]})",
     400,
     "messages[0].content",
     "is required"},
    {"NoRole",
     kChatPath,
     R"({"messages":[{"content":"x"}]})",
     400,
     "messages[0].role",
     "is required"},
    {"MessageString",
     kChatPath,
     R"({"messages":["x"]})",
     400,
     "messages[0]",
     "expected object, got string"},
    {"NoMessages", kChatPath, R"({"model":"fake"})", 400, "messages", "is required"},
    {"EmptyMessages", kChatPath, R"({"messages":[]})", 400, "messages", "empty"},
    {"Image",
     kChatPath,
     R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
     400,
     "messages[0].content[0].type",
     "text only"},
    {"TemplateException",
     kChatPath,
     R"({"messages":[{"role":"refused","content":"x"}]})",
     400,
     "messages",
     "this role is refused"},
    {"ResponseFormat",
     kChatPath,
     PM_CHAT(R"("response_format":{"type":"json_object"})"),
     400,
     "response_format",
     "not supported yet"},
    {"ToolChoice", kChatPath, PM_CHAT(R"("tool_choice":"required")"), 400, "tool_choice", "auto"},
    {"TopLogprobs",
     kChatPath,
     PM_CHAT(R"("logprobs":true,"top_logprobs":21)"),
     400,
     "top_logprobs",
     "between 0 and 20"},
    {"TopLogprobsAlone",
     kChatPath,
     PM_CHAT(R"("top_logprobs":2)"),
     400,
     "top_logprobs",
     "logprobs"},
    {"LogprobsNumber",
     kChatPath,
     PM_CHAT(R"("logprobs":3)"),
     400,
     "logprobs",
     "expected boolean, got number"},
    {"Continue",
     kChatPath,
     PM_CHAT(R"("continue_final_message":true,"add_generation_prompt":true)"),
     400,
     "continue_final_message",
     "add_generation_prompt"},
    {"Kwargs",
     kChatPath,
     PM_CHAT(R"("chat_template_kwargs":{"messages":[]})"),
     400,
     "chat_template_kwargs.messages",
     "own field"},
    {"UnknownModel", kChatPath, PM_CHAT(R"("model":"gpt-9")"), 404, "model", "gpt-9"},
    {"NoPrompt", kCompletionsPath, "{}", 400, "prompt", "is required"},
    {"PromptNumber", kCompletionsPath, R"({"prompt":1})", 400, "prompt", "got number"},
    {"PromptMixed", kCompletionsPath, R"({"prompt":["a",{}]})", 400, "prompt[1]", "got object"},
    {"PromptEmptyList", kCompletionsPath, R"({"prompt":[]})", 400, "prompt", "empty"},
    {"PromptTokenRange", kCompletionsPath, R"({"prompt":[1,99999]})", 400, "prompt", "99999"},
    {"PromptTokenNegative", kCompletionsPath, R"({"prompt":[-1]})", 400, "prompt", "-1"},
    {"TemperatureString",
     kCompletionsPath,
     R"({"prompt":"a","temperature":"hot"})",
     400,
     "temperature",
     "temperature: expected number, got string"},
    {"TemperatureNegative",
     kCompletionsPath,
     R"({"prompt":"a","temperature":-1})",
     400,
     "temperature",
     ""},
    {"TopP", kCompletionsPath, R"({"prompt":"a","top_p":2})", 400, "top_p", ""},
    {"NZero", kCompletionsPath, R"({"prompt":"a","n":0})", 400, "n", ""},
    {"NHuge", kCompletionsPath, R"({"prompt":"a","n":99999999999})", 400, "n", "out of range"},
    {"NFraction", kCompletionsPath, R"({"prompt":"a","n":1.5})", 400, "n", "expected integer"},
    {"MaxTokensZero",
     kCompletionsPath,
     R"({"prompt":"a","max_tokens":0})",
     400,
     "max_tokens",
     "at least 1"},
    {"MaxTokensOver",
     kCompletionsPath,
     R"({"prompt":"a","max_tokens":512})",
     400,
     "max_tokens",
     "512"},
    {"Beams",
     kCompletionsPath,
     R"({"prompt":"a","use_beam_search":true,"temperature":0.5})",
     400,
     "temperature",
     "expected 0"},
    {"BeamStream",
     kCompletionsPath,
     R"({"prompt":"a","use_beam_search":true,"stream":true})",
     400,
     "stream",
     "use_beam_search"},
    {"BeamWidth",
     kCompletionsPath,
     R"({"prompt":"a","use_beam_search":true,"n":3,"beam_width":2})",
     400,
     "beam_width",
     ">= n (3)"},
    {"BeamWidthAlone", kCompletionsPath, R"({"prompt":"a","beam_width":2})", 400, "beam_width", ""},
    {"BeamStop",
     kCompletionsPath,
     R"({"prompt":"a","use_beam_search":true,"stop":"x"})",
     400,
     "stop",
     "stop_token_ids"},
    {"EarlyStopping",
     kCompletionsPath,
     R"({"prompt":"a","use_beam_search":true,"early_stopping":"always"})",
     400,
     "early_stopping",
     "'never'"},
    {"BestOf", kCompletionsPath, R"({"prompt":"a","n":2,"best_of":1})", 400, "best_of", "at least"},
    {"StreamOptions",
     kCompletionsPath,
     R"({"prompt":"a","stream_options":{"include_usage":true}})",
     400,
     "stream_options",
     "stream"},
    {"StreamOptionsType",
     kCompletionsPath,
     R"({"prompt":"a","stream":true,"stream_options":{"include_usage":1}})",
     400,
     "stream_options.include_usage",
     "expected boolean"},
    {"Stop", kCompletionsPath, R"({"prompt":"a","stop":[1]})", 400, "stop[0]", "expected string"},
    {"LogitBias",
     kCompletionsPath,
     R"({"prompt":"a","logit_bias":{"x":1}})",
     400,
     "logit_bias",
     "token id"},
    {"Suffix", kCompletionsPath, R"({"prompt":"a","suffix":"z"})", 400, "suffix", "not supported"},
    {"Logprobs", kCompletionsPath, R"({"prompt":"a","logprobs":21})", 400, "logprobs", "between"},
};
INSTANTIATE_TEST_SUITE_P(All, Errors, ::testing::ValuesIn(kErrors), [](const auto& info) {
  return std::string(info.param.name);
});

TEST_F(Endpoints, DeepNestingIsRefused) {
  start();
  std::string body = R"({"prompt":"a","x":)";
  body += std::string(100000, '[') + std::string(100000, ']') + "}";
  const TestResponse response = client().request("POST", kCompletionsPath, body);
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("nested deeper"));
}

TEST_F(Endpoints, PromptLongerThanTheContext) {
  start();
  const TestResponse response =
      post(kCompletionsPath, {{"prompt", std::string(600, 'a')}, {"max_tokens", 1}});
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("600"));
  EXPECT_EQ(Json::parse(response.body)["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(post(kCompletionsPath, {{"prompt", std::string(600000, 'a')}}).status, 400);
}

TEST_F(Endpoints, NoChatTemplate) {
  FakeEngineOptions engine;
  engine.with_chat_template = false;
  start(engine);
  const TestResponse response = post(kChatPath, chat_body());
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("--chat-template"));
}

TEST_F(Endpoints, FullQueueIs429WithRetryAfter) {
  FakeEngineOptions engine;
  engine.max_requests = 1;
  engine.step_delay = std::chrono::milliseconds(5);
  start(engine);
  // The second prompt is refused, so the first must be freed.
  const TestResponse response =
      post(kCompletionsPath, {{"prompt", {"a", "b"}}, {"max_tokens", 500}});
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(Json::parse(response.body)["error"]["code"], "rate_limit_exceeded");
}

// The engine may find its queue full only after it took a request: the status says so all the same.
TEST_F(Endpoints, QueueThatFillsUpLateIs429WithRetryAfter) {
  FakeEngineOptions engine;
  engine.late_refusal_token = 'x';
  start(engine);
  for (const bool stream : {false, true}) {
    for (const char* path : {kCompletionsPath, kChatPath}) {
      Json body = chat_body("x");
      if (path == kCompletionsPath) body = {{"prompt", "x"}};
      body["stream"] = stream;
      const TestResponse response = post(path, body);
      EXPECT_EQ(response.status, 429) << path << stream << response.body;
      EXPECT_EQ(response.headers.count("retry-after"), 1u);
      EXPECT_EQ(response.headers.at("content-type"), "application/json");
      EXPECT_EQ(Json::parse(response.body)["error"]["code"], "rate_limit_exceeded");
    }
  }
}

TEST_F(Endpoints, AFailedStepIsAnErrorOfThatRequestOnly) {
  FakeEngineOptions engine;
  engine.poison_token = 'x';
  engine.step_delay = std::chrono::milliseconds(20);  // the stream's head is out before the failure
  start(engine);
  EXPECT_EQ(post(kCompletionsPath, {{"prompt", "axb"}}).status, 500);
  const TestResponse streamed = post(kCompletionsPath, {{"prompt", "axb"}, {"stream", true}});
  const auto events = sse_events(streamed.body);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(Json::parse(events[events.size() - 2])["error"]["type"], "server_error");
  EXPECT_EQ(post(kCompletionsPath, {{"prompt", "ab"}}).status, 200);
}

TEST_F(Endpoints, ResetPrefixCache) {
  ServerOptions options;
  options.api_keys = {"sesame"};
  start({}, options);
  for (const std::string& extra : {std::string(), std::string("Content-Length: 0\r\n")}) {
    TestClient c = client();
    c.send("POST /reset_prefix_cache HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n" +
           extra + "\r\n");
    const TestResponse response = c.read_response();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "");
  }
  EXPECT_EQ(post("/reset_prefix_cache", Json::object()).status, 401);
  EXPECT_EQ(get("/reset_prefix_cache").status, 405);
  EXPECT_EQ(engine_->num_cache_resets(), 2u);
}

TEST_F(Endpoints, ApiKey) {
  ServerOptions options;
  options.api_keys = {"sesame"};
  start({}, options);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/models").status, 401);
  for (const auto& [key, status] :
       {std::pair("sesame", 200), {"sesam", 401}, {"sesame2", 401}, {"", 401}}) {
    TestClient c = client();
    c.send(std::string("GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ") + key +
           "\r\n\r\n");
    EXPECT_EQ(c.read_response().status, status) << key;
  }
}

TEST_F(Endpoints, SeveralApiKeysTellTenantsApart) {
  ServerOptions options;
  options.api_keys = {"first", "second"};
  start({}, options);
  const auto tenant_of = [&](const char* key, const char* path, Json body) {
    body["user"] = "somebody";
    TestClient c = client();
    const std::string text = body.dump();
    c.send(
        fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n"
                    "Content-Length: {}\r\n\r\n{}",
                    path,
                    key,
                    text.size(),
                    text));
    return c.read_response().status == 200 ? engine_->last_user() : "refused";
  };
  for (const char* path : {kCompletionsPath, kChatPath}) {
    Json body = chat_body("x");
    if (path == kCompletionsPath) body = {{"prompt", "x"}};
    EXPECT_EQ(tenant_of("first", path, body), "key 0");
    EXPECT_EQ(tenant_of("second", path, body), "key 1");
    EXPECT_EQ(tenant_of("third", path, body), "refused");
    EXPECT_EQ(tenant_of("", path, body), "refused");
  }
}

TEST_F(Endpoints, OneApiKeyLeavesTenantsToTheirUser) {
  start();
  post_ok(kCompletionsPath, {{"prompt", "x"}, {"user", "somebody"}});
  EXPECT_EQ(engine_->last_user(), "somebody");
}

}  // namespace
}  // namespace pagemill
