// A steady decoding step allocates nothing: planning, running a real model, sampling, committing.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "loading/checkpoint.h"
#include "runner/model_runner.h"
#include "scheduler/scheduler.h"

namespace {
std::atomic<std::size_t> num_allocations{0};
}  // namespace

// gcc does not see that the replaced pair matches once one of them is inlined.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(std::size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace pagemill {
namespace {

constexpr std::int32_t kSeqs = 12, kPromptLen = 16, kMaxModelLen = 512, kMaxTokens = 256;

class Engine {
 public:
  Engine() {
    model_ =
        load_model(
            *checkpoint_,
            ModelOptions{
                .isa = Isa::kScalar, .compute = {}, .max_tokens = kMaxTokens, .max_logits_rows = 8},
            pool_,
            *comm_)
            .value();
    const std::vector<KvSpec>& specs = model_->spec().kv_specs;
    SchedulerConfig config;
    config.kv_groups = specs;
    config.num_blocks = kSeqs * kMaxModelLen / config.block_size + 1;
    config.max_model_len = kMaxModelLen;
    config.max_num_batched_tokens = kMaxTokens;
    config.max_num_seqs = kSeqs;
    config.enable_prefix_caching = false;  // its index grows with every block that is filled
    const RunnerOptions options{.block_size = config.block_size,
                                .max_num_batched_tokens = kMaxTokens,
                                .max_num_seqs = kSeqs,
                                .max_logits_rows = 8,
                                .eos_token_ids = {}};
    runner_ = std::make_unique<ModelRunner>(
        *model_,
        KvStorage::create(specs, DType::kF32, config.block_size, config.num_blocks).value(),
        pool_,
        Isa::kScalar,
        options);
    scheduler_ = Scheduler::create(std::move(config)).value();
  }

  void add(RequestId id, SamplingParams params) {
    Request request;
    request.id = id;
    request.prompt_token_ids.assign(kPromptLen, static_cast<TokenId>(id));
    params.max_tokens = kMaxModelLen - kPromptLen;
    params.seed = id;
    params.ignore_eos = true;
    request.params = std::move(params);
    ASSERT_TRUE(scheduler_->add_request(request).ok());
  }

  // Allocations of one step.
  std::size_t step() {
    const std::size_t before = num_allocations;
    scheduler_->plan(plan_);
    runner_->submit(plan_);
    scheduler_->commit(std::move(runner_->wait()), output_);
    return num_allocations - before;
  }
  std::size_t num_events() const { return output_.events.size(); }

 private:
  std::unique_ptr<Checkpoint> checkpoint_ = Checkpoint::open(PM_TINY_MODELS "/gqa").value();
  ThreadPool pool_{2};
  std::unique_ptr<Communicator> comm_ = make_single_communicator();
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  StepOutput output_;
};

TEST(RunnerAllocations, ASteadyStepAllocatesNothing) {
  SamplingParams greedy, truncated, masked;
  greedy.make_greedy();
  truncated.temperature = 0.8f;
  truncated.top_p = 0.9f;
  truncated.top_k = 20;
  masked.make_greedy();
  masked.logit_bias = {{3, -5.0f}};
  masked.allowed_token_ids = {1, 2, 3, 4, 5};
  masked.bad_words_token_ids = {{2, 3}};
  Engine engine;
  const SamplingParams kinds[] = {greedy, SamplingParams(), truncated, masked};
  for (RequestId id = 1; id <= kSeqs; ++id) engine.add(id, kinds[id % 4]);
  // Vectors of a sequence's tokens double at powers of two: none lies between the first step that
  // counts and the last, neither of outputs nor of all tokens, nor does one of its blocks.
  constexpr int kFirst = 130, kLast = 230;
  for (int i = 0; i < kLast; ++i) {
    const std::size_t allocations = engine.step();
    ASSERT_EQ(engine.num_events(), static_cast<std::size_t>(kSeqs));
    if (i < kFirst) continue;
    ASSERT_EQ(allocations, 0u) << "step " << i;
  }
}

}  // namespace
}  // namespace pagemill
