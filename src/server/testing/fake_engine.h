// FakeEngine: a deterministic EngineClient for tests of what sits above the engine.
//
// Choice c of a request generates its prompt over and over, starting at token c: "abc" gives
// "abcab" for c = 0 and "bcabc" for c = 1. Every running request gets one token a step.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/engine_client.h"
#include "server/testing/test_tokenizer.h"

namespace pagemill {

struct FakeEngineOptions {
  std::int32_t max_model_len = 512;
  std::size_t max_requests = 4096;  // queued and running; more are refused
  std::chrono::microseconds step_delay{0};
  std::shared_ptr<const Tokenizer> tokenizer;  // null: make_test_tokenizer()
  bool with_chat_template = true;
  // A request whose prompt has this token is accepted, and refused by its first delta: the queue
  // filled up meanwhile.
  TokenId late_refusal_token = -1;
  // A request whose prompt has this token fails with kInternal at its second step.
  TokenId poison_token = -1;
};

class FakeEngine : public EngineClient {
 public:
  explicit FakeEngine(FakeEngineOptions options);
  ~FakeEngine() override;

  const ModelInfo& model() const override { return model_; }
  ModelInfo& mutable_model() { return model_; }  // before the first request
  std::shared_ptr<const Tokenizer> tokenizer() const override { return tokenizer_; }
  std::shared_ptr<const ChatTemplate> chat_template() const override { return chat_template_; }
  Result<RequestId> submit(Request request, OnDelta on_delta) override;
  void abort(RequestId id) override;
  bool drain(double timeout_s) override;
  void reset_prefix_cache() override { ++cache_resets_; }
  EngineStats stats() const override;

  // Requests that were submitted and have not finished.
  std::size_t num_live() const;
  std::uint64_t num_aborted() const { return aborted_; }
  std::uint64_t num_submitted() const { return submitted_; }
  std::uint64_t num_cache_resets() const { return cache_resets_; }
  // Of the latest request.
  std::string last_user() const {
    const std::lock_guard lock(mutex_);
    return last_user_;
  }

 private:
  struct Choice;
  struct Running;

  void run();
  // One token for each choice; true when the request is finished.
  bool step(Running& running);
  void step_choice(Running& running, Choice& choice, RequestDelta& delta);
  PositionLogprobs logprobs_of(TokenId token, std::int32_t count) const;

  const FakeEngineOptions options_;
  ModelInfo model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const ChatTemplate> chat_template_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<std::unique_ptr<Running>> running_;
  std::uint64_t next_id_ = 1;
  std::string last_user_;
  bool draining_ = false, stopping_ = false;
  std::atomic<std::uint64_t> aborted_{0}, submitted_{0}, prompt_tokens_{0}, generated_{0},
      steps_{0}, cache_resets_{0};
  std::thread thread_;
};

}  // namespace pagemill
