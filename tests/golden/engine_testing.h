// Runs token sequences through the real data plane for the golden tests: Checkpoint, model, paged
// KV cache and ModelRunner, with plans as a scheduler makes them. Blocks are handed out in
// scattered order, every slot holds NaN until it is written, and blocks that fell out of a window
// are the null block, also NaN.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "comm/communicator.h"
#include "models/model.h"
#include "runner/model_runner.h"

namespace pagemill {

struct TestEngineOptions {
  Isa isa = Isa::kScalar;
  std::optional<DType> compute;  // as ModelOptions::compute
  DType kv_dtype = DType::kF32;
  std::int32_t threads = 1;
  std::int32_t num_blocks = 512;
};

class TestEngine {
 public:
  static constexpr std::int32_t kMaxTokens = 2048;
  static constexpr std::int32_t kBlockSize = 16;

  static Result<std::unique_ptr<TestEngine>> load(const std::string& path,
                                                  const TestEngineOptions& options);

  const ModelSpec& spec() const { return model_->spec(); }

  // (index in `sequences`, position, logits [vocab_size] for the token after that position)
  using Observer = std::function<void(std::size_t, std::int32_t, std::span<const float>)>;

  // Computes all `sequences` together, the first prompt_lens[i] tokens of each in chunks of
  // `chunk`, the rest one by one, and observes the logits of every position.
  void run(std::span<const std::vector<TokenId>> sequences,
           std::span<const std::int32_t> prompt_lens,
           std::int32_t chunk,
           const Observer& observer);

  // Prompts only.
  void run(std::span<const std::vector<TokenId>> prompts,
           std::int32_t chunk,
           const Observer& observer);

  // Continues all prompts greedily, together, by `count` tokens each, through the sampler, EOS
  // being a token like any other; with the `num_top` likeliest tokens at each step.
  // [prompts.size()][count]
  std::vector<std::vector<SampledToken>> generate(std::span<const std::vector<TokenId>> prompts,
                                                  std::int32_t count,
                                                  std::int32_t num_top);

 private:
  struct Sequence {
    SeqId id = 0;
    std::vector<TokenId> tokens;
    std::int32_t prompt_len = 0;
    std::int32_t num_computed = 0;
    std::vector<std::vector<BlockId>> tables;  // [num_groups]
  };

  TestEngine() = default;
  Sequence start(std::vector<TokenId> tokens,
                 std::int32_t prompt_len,
                 StepPlan& plan,
                 std::int32_t num_top);
  void append_chunk(Sequence& sequence, std::int32_t count, bool sample, StepPlan& plan);
  StepResult execute(StepPlan& plan);
  void finish(std::vector<Sequence>& sequences);

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Communicator> comm_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelRunner> runner_;
  std::vector<BlockId> free_blocks_;
  SeqId next_id_ = 1;
  std::uint64_t next_step_ = 1;
};

}  // namespace pagemill
