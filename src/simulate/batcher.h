// Batcher: who computes what in the next step and where keys and values live, by policy. What
// `pagemill simulate` compares:
//
//   paged        the engine's own Scheduler and block pool
//   paged-full   the same without headroom: whatever fits now is admitted, as in Kwon et al.
//   orca-max     contiguous reservations of max_model_len tokens in a buddy allocator, as the
//   orca-pow2    baselines of Kwon et al. (SOSP 2023, section 6.1) make them; or of the prompt and
//   orca-oracle  the output rounded up to a power of two; or of exactly what the request will use
//   static       as plain Transformers serves: a batch of requests is padded to its longest prompt
//                and runs until its longest output has ended; then all of them are answered. It has
//                as many rows as sequences of max_model_len fit
//
// The orca policies batch as the paged one does, by iteration, first come first served, with the
// same token budget and chunked prompts: only the memory differs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "simulate/cost_model.h"
#include "simulate/trace.h"

namespace pagemill {

enum class BatchPolicy { kPaged, kPagedFull, kOrcaMax, kOrcaPow2, kOrcaOracle, kStatic };

Result<BatchPolicy> parse_batch_policy(const std::string& name);
const char* to_string(BatchPolicy policy);

struct BatcherConfig {
  std::int64_t kv_slots = 0;  // tokens whose keys and values fit
  std::int32_t block_size = 16;
  std::int32_t max_model_len = 0;
  std::int32_t max_num_seqs = 256;
  std::int32_t max_num_batched_tokens = 2048;
  bool enable_prefix_caching = true;
  double target_itl_s = 0;  // SchedulerConfig's; paged only
};

// KV slots by what they hold; the rest of `total` is free. Shared slots count once.
struct MemoryUse {
  std::int64_t total = 0;
  std::int64_t tokens = 0;    // keys and values of live requests
  std::int64_t reserved = 0;  // empty, but the request that holds them will fill them
  std::int64_t internal = 0;  // empty, held, and never filled: block tails, over-reservation
  std::int64_t rounding = 0;  // held to make a range's size a power of two
  std::int64_t cached = 0;    // of ended requests: free for whoever needs them

  std::int64_t held() const { return tokens + reserved + internal + rounding; }
  std::int64_t free() const { return total - held() - cached; }
};

struct BatchCounters {
  std::uint64_t preemptions = 0;
  std::uint64_t prompt_tokens = 0, prompt_tokens_cached = 0;  // of admitted requests, each once
};

// One output token of a request.
struct TokenEvent {
  std::int32_t request = 0;  // in the trace
  bool finished = false;     // it is the last, and the request has been answered
};

class Batcher {
 public:
  virtual ~Batcher() = default;
  // A request of the trace arrives. kInvalidArgument if it can never run.
  virtual Status add(std::int32_t request) = 0;
  // Plans a step; false if there is nothing to do. Every step planned has to be committed.
  virtual bool plan(StepLoad& load) = 0;
  // The step is over and took `seconds`; appends the tokens it made.
  virtual void commit(double seconds, std::vector<TokenEvent>& events) = 0;

  virtual std::int32_t num_running() const = 0;
  virtual std::int32_t num_waiting() const = 0;
  virtual MemoryUse memory() const = 0;
  virtual BatchCounters counters() const = 0;
  virtual void check_invariants() const = 0;  // panics; linear: tests
};

// `trace` must outlive the batcher. kInvalidArgument for a config that cannot work.
Result<std::unique_ptr<Batcher>> make_batcher(BatchPolicy policy,
                                              const BatcherConfig& config,
                                              const Trace& trace);

// The policies' own makers, one file each.
Result<std::unique_ptr<Batcher>> make_paged_batcher(const BatcherConfig& config,
                                                    const Trace& trace,
                                                    bool admission_headroom);
std::unique_ptr<Batcher> make_contiguous_batcher(BatchPolicy policy,
                                                 const BatcherConfig& config,
                                                 const Trace& trace);
std::unique_ptr<Batcher> make_static_batcher(const BatcherConfig& config, const Trace& trace);

}  // namespace pagemill
