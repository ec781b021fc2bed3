// EngineClient: the thread-safe face of a running engine. Everything above (server, CLI, Python)
// talks to this and to nothing below.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_options.h"
#include "kv/kv_use.h"
#include "metrics/iteration_tokens.h"
#include "request/outputs.h"
#include "request/request.h"
#include "tokenizer/tokenizer.h"

namespace pagemill {

struct ModelInfo {
  std::string path;          // as given
  std::string architecture;  // "LlamaForCausalLM"
  std::int32_t vocab_size = 0;
  std::int32_t max_model_len = 0;  // prompt + output tokens of one sequence
  std::int64_t num_parameters = 0;
  std::string dtype;  // what it computes in: "Q4_1", "BF16"
  // From generation_config.json or the GGUF file: defaults where a client leaves a field out.
  SamplingParams default_sampling;
  std::vector<TokenId> eos_token_ids;
};

// What /metrics reads; a snapshot, cheap, from any thread.
struct EngineStats {
  std::int32_t num_requests_running = 0, num_requests_waiting = 0;
  double kv_cache_usage = 0;  // referenced blocks / blocks, 0..1
  double kv_cache_waste = 0;  // empty slots in referenced blocks / slots in referenced blocks
  // num_blocks counts the null block too, which is in no other state.
  std::int32_t num_blocks = 0, num_blocks_free = 0, num_blocks_cached = 0,
               num_blocks_referenced = 0, num_blocks_pinned = 0;
  std::int64_t num_blocks_saved = 0;  // more that there would be if sequences shared none
  std::int64_t num_empty_slots = 0;   // in referenced blocks
  std::int32_t block_size = 0;        // slots, of a token each
  std::int64_t block_bytes = 0;       // keys and values of all layers
  std::uint64_t num_preemptions = 0, prefix_cache_queries = 0, prefix_cache_hits = 0;  // in tokens
  std::uint64_t prompt_tokens = 0, generation_tokens = 0, steps = 0;
  double step_seconds = 0;               // spent in steps since start
  IterationTokens iteration_tokens;      // of steps that computed any
  std::uint64_t corrupted_requests = 0;  // that ended by logits that are not finite
  std::uint64_t chunked_prefills = 0;    // prompts that took more than one step
  std::uint64_t copy_on_writes = 0;
  KvUse kv_use, kv_use_full;  // over all steps, and where 90 % of the blocks were referenced
  std::uint64_t prefix_cache_copied = 0;  // tokens found, or recovered, by copy of part of a block
  // The second tier (--kv-disk-path): tokens looked up there and read, bytes, files that were gone
  // or broken.
  std::uint64_t tier_queries = 0, tier_hits = 0;
  std::uint64_t tier_saved_bytes = 0, tier_loaded_bytes = 0, tier_failed_loads = 0;
};

class EngineClient {
 public:
  // Receives the request's deltas in order, on the engine's output thread, the last with
  // `finished`. It must not block; it is never called after the one with `finished`.
  using OnDelta = std::function<void(const RequestDelta&)>;

  // Loads the model and starts the engine and output threads.
  static Result<std::unique_ptr<EngineClient>> start(const EngineOptions& options);
  virtual ~EngineClient() = default;  // aborts what runs and joins the threads

  virtual const ModelInfo& model() const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;
  // The model's chat template, --chat-template's, or null.
  virtual std::shared_ptr<const ChatTemplate> chat_template() const = 0;

  // Validates and queues. kInvalidArgument (with `param`), kResourceExhausted when the queue is
  // full, kUnavailable while draining. Any thread. `request.id` and arrival_time are assigned here.
  virtual Result<RequestId> submit(Request request, OnDelta on_delta) = 0;
  // Ends the request with finish_reason "abort" and frees its blocks within a step. Unknown and
  // finished ids are ignored. Any thread.
  virtual void abort(RequestId id) = 0;
  // From now on submit() is refused. Returns when nothing runs, or false at the timeout.
  virtual bool drain(double timeout_s) = 0;

  // No request submitted from now on finds a prefix that was computed before. What runs goes on.
  // Any thread.
  virtual void reset_prefix_cache() = 0;

  virtual EngineStats stats() const = 0;
};

}  // namespace pagemill
