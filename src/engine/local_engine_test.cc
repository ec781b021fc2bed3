// The whole engine with its threads, on a tiny model of random weights. The main target of the
// thread sanitizer.
#include "engine/local_engine.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files_testing.h"

namespace pagemill {
namespace {

EngineOptions tiny_options() {
  EngineOptions options;
  options.model = PM_TINY_MODELS "/chat";
  options.threads = 2;
  options.seed = 5;
  options.kv_cache_memory_bytes = 8 << 20;
  options.poison_free_blocks = true;
  return options;
}

std::unique_ptr<LocalEngine> start(const EngineOptions& options) {
  auto engine = LocalEngine::create(options);
  EXPECT_TRUE(engine.ok()) << engine.error().message;
  return std::move(engine).value();
}

Request request_of(std::int32_t prompt_len, std::int32_t max_tokens, TokenId first = 10) {
  Request request;
  for (std::int32_t i = 0; i < prompt_len; ++i)
    request.prompt_token_ids.push_back((first + i * 7) % 200 + 5);
  request.params.temperature = 0;
  request.params.max_tokens = max_tokens;
  request.params.ignore_eos = true;
  return request;
}

// The deltas of one request, checked as they come.
class Client {
 public:
  EngineClient::OnDelta on_delta() {
    return [this](const RequestDelta& delta) { take(delta); };
  }
  bool wait(double seconds = 60) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, std::chrono::duration<double>(seconds), [this] { return last_.finished; });
  }
  void wait_for_tokens(std::size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] {
      return token_ids_.size() >= count || last_.finished;
    }));
  }
  // After wait().
  const std::vector<TokenId>& token_ids() const { return token_ids_; }
  const RequestDelta& last() const { return last_; }
  FinishReason reason() const { return reason_; }

 private:
  void take(const RequestDelta& delta) {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(last_.finished) << "a delta after the last";
    EXPECT_TRUE(last_.request_id == 0 || delta.request_id == last_.request_id);
    EXPECT_GE(delta.usage.completion_tokens, last_.usage.completion_tokens);
    for (const CompletionDelta& completion : delta.completions) {
      token_ids_.insert(token_ids_.end(), completion.token_ids.begin(), completion.token_ids.end());
      reason_ = completion.finish_reason;
    }
    last_ = delta;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenId> token_ids_;
  RequestDelta last_;
  FinishReason reason_ = FinishReason::kNone;
};

std::vector<TokenId> generate(EngineClient& engine, Request request) {
  Client client;
  const auto id = engine.submit(std::move(request), client.on_delta());
  EXPECT_TRUE(id.ok()) << id.error().message;
  EXPECT_TRUE(client.wait());
  EXPECT_FALSE(client.last().error.has_value());
  return client.token_ids();
}

// Blocks are freed before the client hears of the end, but the snapshot follows the step.
void expect_idle(const EngineClient& engine) {
  EngineStats stats;
  for (int i = 0; i < 2000; ++i) {
    stats = engine.stats();
    if (stats.num_blocks_referenced == 0 &&
        stats.num_requests_running + stats.num_requests_waiting == 0)
      break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(stats.num_blocks_referenced, 0);
  EXPECT_EQ(stats.num_requests_running, 0);
  EXPECT_EQ(stats.num_requests_waiting, 0);
  EXPECT_EQ(stats.num_blocks_free + stats.num_blocks_cached,
            stats.num_blocks - 1);  // the null block
}

TEST(LocalEngine, GeneratesAndCountsIt) {
  const auto engine = start(tiny_options());
  Client client;
  ASSERT_TRUE(engine->submit(request_of(20, 8), client.on_delta()).ok());
  ASSERT_TRUE(client.wait());
  EXPECT_EQ(client.token_ids().size(), 8u);
  EXPECT_EQ(client.reason(), FinishReason::kLength);
  const RequestDelta& last = client.last();
  EXPECT_EQ(last.usage.prompt_tokens, 20);
  EXPECT_EQ(last.usage.completion_tokens, 8);
  EXPECT_LE(last.times.arrival, last.times.first_scheduled);
  EXPECT_LE(last.times.first_scheduled, last.times.first_token);
  EXPECT_LE(last.times.first_token, last.times.finished);
  expect_idle(*engine);
  EXPECT_EQ(engine->stats().generation_tokens, 8u);
  EXPECT_EQ(engine->stats().prompt_tokens, 20u);
  const IterationTokens steps = engine->stats().iteration_tokens;
  EXPECT_EQ(steps.steps[0], 7u) << "of one token";
  EXPECT_EQ(steps.steps[3], 1u) << "of 17 to 32";
  EXPECT_EQ(steps.tokens, 27u);
}

// Two engines in one process trace each their own steps.
TEST(LocalEngine, ProfilesItsOwnSteps) {
  const TemporaryFolder folder;
  const auto path = [&](int i) { return folder.path() + "/" + std::to_string(i) + ".json"; };
  {
    std::vector<std::unique_ptr<LocalEngine>> engines;
    for (int i = 0; i < 2; ++i) {
      EngineOptions options = tiny_options();
      options.profile_path = path(i);
      engines.push_back(start(options));
    }
    Client clients[2];
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(engines[i]->submit(request_of(20, 8 + i), clients[i].on_delta()).ok());
    }
    for (Client& client : clients) ASSERT_TRUE(client.wait());
  }
  for (int i = 0; i < 2; ++i) {
    std::vector<std::int64_t> tokens;
    std::map<std::string, int> counts;
    const nlohmann::json trace = nlohmann::json::parse(read_file(path(i)));
    for (const auto& event : trace.at("traceEvents")) {
      if (event["ph"] != "X") continue;
      ++counts[event["name"]];
      if (event.contains("args") && event["args"].contains("tokens")) {
        if (event["args"]["tokens"] > 0) tokens.push_back(event["args"]["tokens"]);
      }
    }
    std::vector<std::int64_t> expected(8 + i, 1);
    expected[0] = 20;
    EXPECT_EQ(tokens, expected);
    EXPECT_EQ(counts["logits"], 8 + i);
    EXPECT_EQ(counts["embed"], 8 + i);
    EXPECT_EQ(counts["attention"], counts["qkv"]);
  }
}

TEST(LocalEngine, ConcurrentClientsGetWhatEachGetsAlone) {
  constexpr int kThreads = 4, kEach = 6;
  const auto engine = start(tiny_options());
  std::vector<std::vector<TokenId>> alone, together(kThreads * kEach);
  const auto request = [](int i) {
    Request r = request_of(5 + 11 * i, 10 + i, 3 * i);
    r.params.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    r.params.seed = 100 + i;
    return r;
  };
  for (int i = 0; i < kThreads * kEach; ++i) alone.push_back(generate(*engine, request(i)));
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<Client> clients(kEach);
      for (int i = 0; i < kEach; ++i) {
        ASSERT_TRUE(engine->submit(request(t * kEach + i), clients[i].on_delta()).ok());
        engine->stats();
      }
      for (int i = 0; i < kEach; ++i) {
        ASSERT_TRUE(clients[i].wait());
        together[t * kEach + i] = clients[i].token_ids();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(together, alone);
  expect_idle(*engine);
  EXPECT_GT(engine->stats().prefix_cache_hits, 0u);
}

TEST(LocalEngine, PreemptionChangesNoText) {
  EngineOptions options = tiny_options();
  const auto roomy = start(options);
  options.num_blocks_override = 13;  // two of these requests do not fit at their longest
  options.max_model_len = 160;
  const auto tight = start(options);
  std::vector<std::vector<TokenId>> expected;
  expected.reserve(6);
  std::vector<Client> clients(6);
  for (int i = 0; i < 6; ++i) expected.push_back(generate(*roomy, request_of(40, 80, 9 * i)));
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(tight->submit(request_of(40, 80, 9 * i), clients[i].on_delta()).ok());
  }
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(clients[i].wait());
    EXPECT_EQ(clients[i].token_ids(), expected[i]) << i;
  }
  EXPECT_GT(tight->stats().num_preemptions, 0u);
  EXPECT_EQ(roomy->stats().num_preemptions, 0u);
  expect_idle(*tight);
}

// Few blocks, and a folder where evicted ones go.
EngineOptions tight_options(const TemporaryFolder& folder, const char* mode) {
  EngineOptions options = tiny_options();
  options.num_blocks_override = 13;  // two of these requests do not fit at their longest
  options.max_model_len = 160;
  options.kv_disk_path = folder.path() + "/kv";
  options.preemption_mode = mode;
  return options;
}

TEST(LocalEngine, SwappedRequestsGoOnAsIfNothingHadHappened) {
  TemporaryFolder folder;
  const auto roomy = start(tiny_options());
  const auto tight = start(tight_options(folder, "swap"));
  std::vector<Client> clients(6);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(tight->submit(request_of(40, 80, 9 * i), clients[i].on_delta()).ok());
  }
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(clients[i].wait());
    EXPECT_EQ(clients[i].token_ids(), generate(*roomy, request_of(40, 80, 9 * i))) << i;
  }
  const EngineStats stats = tight->stats();
  EXPECT_GT(stats.num_preemptions, 0u);
  EXPECT_GT(stats.tier_saved_bytes, 0u);
  EXPECT_GT(stats.tier_loaded_bytes, 0u);
  EXPECT_EQ(stats.tier_failed_loads, 0u);
  expect_idle(*tight);
}

// What a client gets, and what the prefix cache and the disk supplied.
struct Answer {
  std::vector<TokenId> token_ids;
  std::int32_t cached_tokens = 0;
};

Answer ask(const EngineOptions& options, EngineStats* stats = nullptr) {
  const auto engine = start(options);
  Client client;
  EXPECT_TRUE(engine->submit(request_of(100, 20), client.on_delta()).ok());
  EXPECT_TRUE(client.wait());
  if (stats != nullptr) *stats = engine->stats();
  return {client.token_ids(), client.last().usage.cached_tokens};
}

TEST(LocalEngine, ARestartStartsWarm) {
  TemporaryFolder folder;
  EngineOptions options = tiny_options();
  options.kv_disk_path = folder.path() + "/kv";
  const Answer cold = ask(options);
  EXPECT_EQ(cold.cached_tokens, 0);
  EngineStats stats;
  const Answer warm = ask(options, &stats);
  EXPECT_EQ(warm.token_ids, cold.token_ids);
  EXPECT_EQ(warm.cached_tokens, 96);
  EXPECT_EQ(stats.tier_hits, 96u);
  EXPECT_GT(stats.tier_loaded_bytes, 0u);
  options.kv_cache_dtype = "float32";
  EXPECT_EQ(ask(options).cached_tokens, 0) << "blocks of another type are not these";
}

TEST(LocalEngine, ADamagedDirectoryIsColdNotWrong) {
  TemporaryFolder folder;
  EngineOptions options = tiny_options();
  options.kv_disk_path = folder.path() + "/kv";
  const Answer cold = ask(options);
  for (const auto& entry : std::filesystem::directory_iterator(options.kv_disk_path)) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file.write("damage", 6);
  }
  EngineStats stats;
  const Answer again = ask(options, &stats);
  EXPECT_EQ(again.token_ids, cold.token_ids);
  EXPECT_EQ(again.cached_tokens, 0);
  EXPECT_EQ(stats.tier_failed_loads, 1u);
  EXPECT_EQ(ask(options).cached_tokens, 96) << "the damaged files were replaced";
}

TEST(LocalEngine, ForksShareAPromptAndDiverge) {
  const auto engine = start(tiny_options());
  Request request = request_of(40, 12);
  request.params.n = 3;
  request.params.temperature = 1.5f;
  request.params.seed = 3;
  std::mutex mutex;
  std::map<std::int32_t, std::vector<TokenId>> outputs;
  Client client;
  const auto on_delta = [&](const RequestDelta& delta) {
    for (const CompletionDelta& completion : delta.completions) {
      const std::lock_guard lock(mutex);
      auto& ids = outputs[completion.index];
      ids.insert(ids.end(), completion.token_ids.begin(), completion.token_ids.end());
    }
    client.on_delta()(delta);
  };
  ASSERT_TRUE(engine->submit(request, on_delta).ok());
  ASSERT_TRUE(client.wait());
  ASSERT_EQ(outputs.size(), 3u);
  EXPECT_NE(outputs[0], outputs[1]);
  EXPECT_NE(outputs[1], outputs[2]);
  for (const auto& [index, ids] : outputs) EXPECT_EQ(ids.size(), 12u);
  EXPECT_GT(engine->stats().copy_on_writes, 0u);
  expect_idle(*engine);
}

TEST(LocalEngine, AbortFreesItsBlocks) {
  const auto engine = start(tiny_options());
  Client aborted, other;
  const auto id = engine->submit(request_of(30, 1500), aborted.on_delta());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(engine->submit(request_of(30, 40, 77), other.on_delta()).ok());
  aborted.wait_for_tokens(3);
  engine->abort(*id);
  engine->abort(*id);     // again
  engine->abort(999999);  // unknown
  ASSERT_TRUE(aborted.wait());
  EXPECT_EQ(aborted.reason(), FinishReason::kAbort);
  EXPECT_LT(aborted.token_ids().size(), 1500u);
  ASSERT_TRUE(other.wait());
  EXPECT_EQ(other.token_ids().size(), 40u);
  expect_idle(*engine);
}

TEST(LocalEngine, AFullQueueRefuses) {
  EngineOptions options = tiny_options();
  options.max_num_seqs = 1;
  options.max_queued_requests = 3;
  const auto engine = start(options);
  std::vector<Client> clients(20);
  std::vector<RequestId> accepted;
  std::vector<std::size_t> accepted_clients;
  int num_refused = 0;
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const auto id =
        engine->submit(request_of(8, 1000, static_cast<TokenId>(i)), clients[i].on_delta());
    if (id.ok()) {
      accepted.push_back(*id);
      accepted_clients.push_back(i);
    } else {
      ++num_refused;
      EXPECT_EQ(id.error().code, ErrorCode::kResourceExhausted);
      EXPECT_NE(id.error().message.find("3 requests"), std::string::npos) << id.error().message;
    }
  }
  EXPECT_GE(accepted.size(), 3u);
  EXPECT_GE(num_refused, 15);
  for (RequestId id : accepted) engine->abort(id);
  for (std::size_t i : accepted_clients) EXPECT_TRUE(clients[i].wait());
  expect_idle(*engine);
  EXPECT_EQ(generate(*engine, request_of(8, 4)).size(), 4u);  // there is room again
}

TEST(LocalEngine, InvalidRequestsNameTheField) {
  EngineOptions options = tiny_options();
  options.num_blocks_override = 20;
  options.max_model_len = 200;
  const auto engine = start(options);
  const auto expect_refused = [&](const char* param, const auto& change) {
    Request request = request_of(8, 8);
    change(request);
    const auto id =
        engine->submit(std::move(request), [](const RequestDelta&) { ADD_FAILURE() << "called"; });
    ASSERT_FALSE(id.ok()) << param;
    EXPECT_EQ(id.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(id.error().param, param) << id.error().message;
  };
  expect_refused("prompt", [](Request& r) { r.prompt_token_ids.clear(); });
  expect_refused("prompt", [](Request& r) { r.prompt_token_ids[3] = 288; });
  expect_refused("prompt", [](Request& r) { r.prompt_token_ids[3] = -1; });
  expect_refused("prompt", [](Request& r) { r.prompt_token_ids.assign(200, 9); });
  expect_refused("max_tokens", [](Request& r) { r.params.max_tokens = 193; });
  expect_refused("max_tokens", [](Request& r) {
    r.params.max_tokens = std::numeric_limits<std::int32_t>::max();
  });
  expect_refused("n", [](Request& r) { r.params.n = 100; });
  expect_refused("beam_width",
                 [](Request& r) { r.params.use_beam_search = true, r.params.beam_width = 100; });
  expect_refused("stop",
                 [](Request& r) { r.params.use_beam_search = true, r.params.stop = {"x"}; });
  expect_refused("temperature", [](Request& r) { r.params.temperature = -1; });
  expect_refused("best_of", [](Request& r) { r.params.n = 2, r.params.best_of = 1; });
  expect_refused("logit_bias[0]", [](Request& r) { r.params.logit_bias = {{288, 1.0f}}; });
  expect_idle(*engine);
  EXPECT_EQ(generate(*engine, request_of(8, 8)).size(), 8u);
}

TEST(LocalEngine, ABeamSearchThatIsAbortedFreesItsBlocks) {
  const auto engine = start(tiny_options());
  Client beams, greedy;
  Request request = request_of(8, 2000);
  request.params.use_beam_search = true;
  request.params.n = 4;
  const auto id = engine->submit(std::move(request), beams.on_delta());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(engine->submit(request_of(8, 100), greedy.on_delta()).ok());
  EXPECT_TRUE(greedy.wait());
  engine->abort(*id);
  EXPECT_TRUE(beams.wait());
  EXPECT_EQ(beams.reason(), FinishReason::kAbort);
  EXPECT_TRUE(beams.token_ids().empty());
  EXPECT_GT(engine->stats().copy_on_writes, 10u);
  expect_idle(*engine);
}

TEST(LocalEngine, DrainRefusesNewRequestsAndWaitsForTheOthers) {
  const auto engine = start(tiny_options());
  Client client, endless;
  ASSERT_TRUE(engine->submit(request_of(8, 30), client.on_delta()).ok());
  const auto id = engine->submit(request_of(8, 2000), endless.on_delta());
  ASSERT_TRUE(id.ok());
  EXPECT_FALSE(engine->drain(0.001));
  const auto late = engine->submit(request_of(8, 1), [](const RequestDelta&) {});
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kUnavailable);
  engine->abort(*id);
  EXPECT_TRUE(engine->drain(60));
  EXPECT_TRUE(client.wait(0));
  EXPECT_EQ(client.token_ids().size(), 30u);
}

TEST(LocalEngine, TheEndOfTheEngineIsTheEndOfEveryRequest) {
  for (int round = 0; round < 5; ++round) {
    std::vector<Client> clients(16);
    {
      const auto engine = start(tiny_options());
      for (std::size_t i = 0; i < clients.size(); ++i) {
        ASSERT_TRUE(
            engine->submit(request_of(8, 1000, static_cast<TokenId>(i)), clients[i].on_delta())
                .ok());
      }
    }
    for (Client& client : clients) {
      ASSERT_TRUE(client.wait(0)) << "never told";
      ASSERT_TRUE(client.last().error.has_value());
      EXPECT_EQ(client.last().error->code, ErrorCode::kUnavailable);
    }
  }
}

TEST(LocalEngine, BadOptionsAreNamed) {
  const auto expect_refused = [](const char* param, const auto& change) {
    EngineOptions options = tiny_options();
    change(options);
    const auto engine = LocalEngine::create(options);
    ASSERT_FALSE(engine.ok()) << param;
    EXPECT_EQ(engine.error().param, param) << engine.error().message;
  };
  expect_refused("block-size", [](EngineOptions& o) { o.block_size = 8; });
  expect_refused("block-size", [](EngineOptions& o) { o.block_size = 24; });
  expect_refused("max-num-seqs", [](EngineOptions& o) { o.max_num_seqs = 0; });
  expect_refused("max-queued-requests", [](EngineOptions& o) { o.max_queued_requests = 0; });
  expect_refused("max-model-len", [](EngineOptions& o) { o.max_model_len = 1 << 20; });
  expect_refused("kv-disk-size", [](EngineOptions& o) { o.kv_disk_bytes = 0; });
  expect_refused("preemption_mode", [](EngineOptions& o) { o.preemption_mode = "never"; });
  expect_refused("preemption-mode", [](EngineOptions& o) { o.preemption_mode = "swap"; });
  expect_refused("kv_disk_path", [](EngineOptions& o) {
    o.kv_disk_path = "kv";
    o.enable_prefix_caching = false;
  });
  expect_refused("dtype", [](EngineOptions& o) { o.dtype = "int3"; });
  expect_refused("kv_cache_memory",
                 [](EngineOptions& o) { o.num_blocks_override = 2, o.max_model_len = 100; });
}

}  // namespace
}  // namespace pagemill
