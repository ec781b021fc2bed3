// Simulation: a Scheduler driven by a FakeRunner, with one or more steps in flight.
//
// After each step it checks the scheduler's invariants and that every request gets exactly what it
// would get alone and uninterrupted: the same tokens, ends and prompt logprobs, once and in order.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "scheduler/scheduler.h"
#include "simulate/fake_model.h"
#include "simulate/fake_runner.h"
#include "simulate/reference_beams.h"

namespace pagemill {

class Simulation {
 public:
  struct Options {
    SchedulerConfig scheduler;  // valid; eos_token_ids are the model's
    std::int32_t vocab_size = 1000;
    std::int32_t depth = 1;                 // steps in flight
    bool check_every_step = true;           // the linear checks
    double tier_lost = 0, tier_broken = 0;  // FakeRunner::set_tier_faults
  };
  // What a sequence has got so far, and what it has to get next.
  struct Progress {
    SlotContent last = kEmptySlot;
    std::int32_t num_output = 0;
    std::vector<TokenId> beam_tokens;  // of a beam search: all that was told at its end
    FinishReason reason = FinishReason::kNone;
  };

  explicit Simulation(Options options);

  // As Scheduler::add_request.
  Status add(Request request);
  void abort(RequestId request);
  void reset_prefix_cache() { scheduler_->reset_prefix_cache(); }
  // As if a stop string had been found.
  void finish_sequence(RequestId request, std::int32_t index);
  // A sequence of the request reports failure when it next runs: the request must end with kError,
  // and nobody else. False if it has not got a token yet.
  bool fail_next(RequestId request);

  // Plans and submits one step and commits the oldest if `depth` are in flight or nothing could be
  // planned. False when there was nothing to do. Throws SimulationError at any violation.
  bool step();
  // Steps until no request is left; throws if it takes more than max_steps.
  void run(std::int64_t max_steps);
  // After run(): saves what is cached in the second tier.
  void flush();
  // After run(): throws unless every block is free or cached and the runner keeps no state.
  void check_all_freed();

  const Scheduler& scheduler() const { return *scheduler_; }
  bool alive(RequestId request) const { return requests_.count(request) > 0; }
  std::vector<RequestId> alive_requests() const;
  // Sequences of the request that go on and have an output token; empty if it has ended.
  std::vector<std::int32_t> alive_sequences(RequestId request) const;
  // Of the requests that ended, in the order of their ends.
  const std::vector<RequestId>& finished_order() const { return finished_order_; }
  // Their sequences by index; those that were aborted or finished from outside have kAbort.
  const std::map<RequestId, std::vector<Progress>>& finished() const { return finished_; }

 private:
  struct Live {
    Request request;
    std::vector<Progress> sequences;
    std::int32_t next_prompt_logprob = 1;
    bool may_fail = false;
    std::vector<ReferenceHypothesis> hypotheses;  // that a beam search has to find
  };

  void commit_oldest();
  void find_hypotheses(Live& live, SlotContent prompt) const;
  void accept(const SequenceEvent& event);
  void accept(const PromptLogprobsEvent& event);
  void accept_token(const SequenceEvent& event, Live& live, Progress& progress);
  void accept_beam_token(const SequenceEvent& event, const Live& live, Progress& progress);
  FinishReason expected_end(const Live& live, TokenId token, std::int32_t num_output) const;
  void forget(RequestId request);

  Options options_;
  FakeModel model_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<FakeRunner> runner_;
  std::map<RequestId, Live> requests_;
  std::map<RequestId, std::vector<Progress>> finished_;
  std::vector<RequestId> finished_order_;
  std::map<RequestId, SeqId> last_seen_;  // a sequence of the request
  StepPlan plan_;
  StepOutput output_;
};

}  // namespace pagemill
