// EngineCore: the loop. Takes commands, plans a step, runs it, commits it, hands the outcome to the
// output thread.
//
// Threads: clients call submit(), abort() and finish_sequence(); the engine thread alone touches
// the scheduler and the runner; the output thread alone touches the OutputProcessor.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/bounded_queue.h"
#include "base/tracer.h"
#include "engine/engine_client.h"
#include "engine/output_processor.h"
#include "runner/model_runner.h"
#include "scheduler/scheduler.h"

namespace pagemill {

class EngineCore {
 public:
  // `scheduler`, `runner` and `tracer` (null: none) belong to the engine thread from start() on.
  EngineCore(std::unique_ptr<Scheduler> scheduler,
             std::unique_ptr<ModelRunner> runner,
             std::shared_ptr<const Tokenizer> tokenizer,
             std::unique_ptr<Tracer> tracer = nullptr);
  ~EngineCore();

  void start();

  // The request is valid and has its id. kResourceExhausted when max_queued_requests wait,
  // kUnavailable while draining.
  Status submit(Request request, EngineClient::OnDelta on_delta, bool hide_logprobs);
  void abort(RequestId id);
  bool drain(double timeout_s);
  void reset_prefix_cache();
  EngineStats stats() const;

 private:
  struct Command {
    enum class Kind { kSubmit, kAbort, kFinishSequence, kResetPrefixCache } kind;
    RequestId request = 0;
    std::int32_t sequence_index = 0;
    OutputBatch::Started submission;
  };

  void engine_loop();
  void output_loop();
  bool wait_for_work(std::vector<Command>& commands);
  void apply(std::vector<Command>& commands, OutputBatch& batch);
  void apply_submit(Command& command, OutputBatch& batch);
  void run_step(OutputBatch& batch);
  void describe_step();
  void execute();
  void update_costs(double step_seconds, double load_seconds);
  void flush_tier();
  void push_output(OutputBatch batch);
  void update_stats(double step_seconds);
  void push_command(Command command);

  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<ModelRunner> runner_;
  OutputProcessor output_;
  const std::int32_t max_queued_requests_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<Command> inbox_;
  std::int32_t num_submitted_ = 0;  // submits in the inbox
  bool stopping_ = false;
  bool draining_ = false;
  EngineStats stats_;

  std::mutex active_mutex_;
  std::condition_variable idle_;
  std::int64_t num_active_ = 0;  // submitted, its last delta not yet delivered

  BoundedQueue<OutputBatch> outputs_;
  StepPlan plan_;
  StepOutput step_output_;
  std::uint64_t num_generated_ = 0;  // tokens, since start
  std::uint64_t num_corrupted_ = 0;  // requests
  IterationTokens iteration_tokens_;
  double seconds_per_token_ = 0, seconds_per_block_ = 0;  // smoothed; 0: not yet known
  std::unique_ptr<Tracer> tracer_;
  // What the trace says of the step under way, and the preemptions before it.
  std::vector<Tracer::Arg> trace_args_;
  std::uint64_t traced_preemptions_ = 0;
  std::thread engine_thread_;
  std::thread output_thread_;
};

}  // namespace pagemill
