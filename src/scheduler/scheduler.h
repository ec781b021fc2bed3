// Scheduler: which tokens of which sequences the next step computes, and in which KV blocks.
//
// Continuous batching without prefill or decode modes: every sequence's num_computed_tokens catches
// up with its tokens under one token budget per step. Requests are served in one total order
// (priority, then arrival; FCFS ignores priority; under the fair policy the tenant that was served
// least, then arrival: fair_policy.h), running ones first. When blocks run out, the
// last running request in that order is preempted: its blocks are freed, its tokens kept, and it
// resumes by recomputation before anything that arrived later. The first is never preempted, and a
// request that could not run alone is refused at the door, so every request ends.
//
// Pure control: ids and integers, no tensors, threads, clocks or I/O. One thread calls it.
//
//   loop: plan(plan); run it; commit(result, output)      or, with one step in flight (depth 2):
//         plan(a); submit(a); { plan(b); submit(b); commit(result of a); swap(a, b); }
//
// plan() changes nothing that a failed step would have to undo: what a step computes counts for
// others (prefix cache, outputs) only once it is committed, and fail_step() ends its requests.
// Blocks that a step in flight may touch are pinned until that step is committed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "kv/block_pool.h"
#include "kv/kv_spec.h"
#include "kv/kv_use.h"
#include "kv/prefix_hash.h"
#include "kv/sequence_blocks.h"
#include "kv/tier_index.h"
#include "plan/step_plan.h"
#include "request/outputs.h"
#include "request/request.h"
#include "scheduler/fair_policy.h"
#include "scheduler/sequence.h"
#include "scheduler/step_pacer.h"

namespace pagemill {

enum class SchedulingPolicy { kFcfs, kPriority, kFair };
// "fcfs", "priority" or "fair"; kInvalidArgument otherwise.
Result<SchedulingPolicy> parse_scheduling_policy(const std::string& name);

// How a preempted request's tokens come back once its blocks were evicted.
enum class PreemptionMode {
  kRecompute,  // computed again
  kSwap,       // read from the second tier, as far as it has them
  kAuto,       // whichever is the cheaper by measured costs (set_costs)
};
// "recompute", "swap" or "auto"; kInvalidArgument otherwise.
Result<PreemptionMode> parse_preemption_mode(const std::string& name);

// Memory set aside for a sequence at its admission, as systems do whose cache is contiguous: what
// paging is compared with (Kwon et al., SOSP 2023). Blocks are taken on demand all the same, but
// admission counts what was set aside, and nothing is shared.
enum class Reservation {
  kNone,        // paged
  kMax,         // max_model_len tokens
  kPowerOfTwo,  // the prompt, and the output rounded up to a power of two
  kOracle,      // the prompt and the output, known in advance
};
// "none", "max", "pow2" or "oracle"; kInvalidArgument otherwise.
Result<Reservation> parse_reservation(const std::string& name);

struct SchedulerConfig {
  std::vector<KvSpec> kv_groups;   // as the model declares them; 1..kMaxKvGroups
  std::int32_t num_blocks = 0;     // of one pool for all groups, the null block included
  std::int32_t block_size = 16;    // tokens
  std::int32_t max_model_len = 0;  // prompt + output tokens of one sequence
  std::int32_t max_num_batched_tokens = 2048;  // per step
  std::int32_t max_num_seqs = 256;             // running at once
  std::int32_t max_queued_requests = 4096;     // waiting at once
  bool enable_prefix_caching = true;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  // The second tier, which keeps evicted blocks: its bytes (0: there is none) and those of one
  // block, [num_groups]. Needs enable_prefix_caching.
  std::int64_t tier_bytes = 0;
  std::vector<std::int64_t> tier_block_bytes = {};
  PreemptionMode preemption = PreemptionMode::kAuto;
  Reservation reservation = Reservation::kNone;
  // Whether admission keeps blocks free for what runs to grow into, as many as preemptions show to
  // be needed. Without, and under the fair policy, whatever fits now is admitted: memory is fuller,
  // preemptions more frequent.
  bool admission_headroom = true;
  // Seconds that a step should take at most while sequences decode: prompts get smaller chunks
  // (StepPacer). Needs StepResult::seconds. 0: none.
  double target_itl_s = 0;
  // Under the fair policy: what a prompt token that is computed and a generated one count for; >=
  // 0, not both 0. Prompt tokens from the cache, and what a preemption computes again, are free.
  std::int32_t fair_input_weight = 1, fair_output_weight = 2;
  std::vector<TokenId> eos_token_ids;
  // What makes KV bits comparable: weights digest, KV dtype, layout. Hashed with the block size and
  // the groups into the root of every prefix hash.
  std::string cache_identity;
};

// One new token of a sequence, or its end without one (kError).
struct SequenceEvent {
  RequestId request = 0;
  std::int32_t sequence_index = 0;  // 0..num_sequences-1
  SeqId seq = 0;
  std::optional<SampledToken> sampled;               // logprobs moved from the StepResult
  FinishReason finish_reason = FinishReason::kNone;  // kStop, kLength or kError
  std::optional<TokenId> stop_token;         // set when one of stop_token_ids (not EOS) ended it
  std::optional<float> beam_score;           // set at the end of a beam search's hypothesis
  StepFailure failure = StepFailure::kNone;  // why, with kError
  bool request_finished = false;             // no sequence of the request is left
};

// Logprobs of prompt tokens first_position, first_position+1, ...; each position comes once, in
// order.
struct PromptLogprobsEvent {
  RequestId request = 0;
  std::int32_t first_position = 0;  // >= 1: the first prompt token has no distribution
  std::vector<PositionLogprobs> entries;
};

struct Admission {
  RequestId request = 0;
  std::int32_t num_cached_tokens = 0;  // prompt tokens that the prefix cache supplied
};

// What commit() made known. The caller keeps and reuses it.
struct StepOutput {
  std::vector<PromptLogprobsEvent> prompt_logprobs;  // to be published before `events`
  std::vector<SequenceEvent> events;  // a request's sequences in order of index within a step
  std::vector<Admission> loaded;      // prompt tokens that the second tier supplied
  void clear() { prompt_logprobs.clear(), events.clear(), loaded.clear(); }
};

struct SchedulerStats {
  std::int32_t num_running_requests = 0, num_waiting_requests = 0, num_running_seqs = 0;
  BlockPoolStats blocks;      // by state, and empty slots
  double kv_cache_usage = 0;  // referenced blocks / usable blocks, 0..1
  double kv_cache_waste = 0;  // empty slots in referenced blocks / their slots, 0..1
  // Counted since construction.
  std::uint64_t steps = 0, scheduled_tokens = 0;
  std::uint64_t preemptions = 0;                                  // of requests
  std::uint64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // prompt tokens, first admissions
  std::uint64_t tier_queries = 0, tier_hits = 0;  // tokens that the pool lacked, and that were read
  std::uint64_t tier_saves = 0, tier_loads = 0, tier_failed_loads = 0;  // blocks of a group
  std::uint64_t resumed_loads = 0;     // tokens read back after a preemption
  std::uint64_t resumed_hits = 0;      // tokens found in the cache when resuming after preemption
  std::uint64_t copied_hits = 0;       // tokens of both kinds that came by copy of part of a block
  std::uint64_t prompt_tokens = 0;     // of admitted requests, each once
  std::uint64_t chunked_prefills = 0;  // prompts that took more than one step
  KvUse kv_use;                        // over all steps
  KvUse kv_use_full;                   // over those in which 90 % of the blocks were referenced
  std::uint64_t copy_on_writes = 0;    // blocks
  std::uint64_t forks = 0;             // sequences made from another's block table
};

class Scheduler {
 public:
  // kInvalidArgument for a config that cannot work (with the numbers), kUnsupported for a KV kind
  // that blocks cannot hold.
  static Result<std::unique_ptr<Scheduler>> create(SchedulerConfig config);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a validated request whose id is new. params.seed is used as it stands (0 if unset: the
  // engine draws one first). An output longer than max_model_len - prompt ends with kLength.
  // kInvalidArgument: it can never fit, with the numbers; kResourceExhausted: the queue is full.
  Status add_request(Request request);

  // Ends a request and frees its blocks; no event follows. False if it is unknown or has ended.
  bool abort(RequestId request);
  // Ends one sequence (its stop string was found outside); no event follows. False if unknown, or
  // of a beam search.
  bool finish_sequence(RequestId request, std::int32_t sequence_index);

  // From now on no prefix computed so far is found, nor what running requests compute after one;
  // they go on undisturbed.
  void reset_prefix_cache();

  // Plans the next step into `plan`, whose capacity is reused. plan.empty(): there is nothing to do
  // (or, with a step in flight, not before it is committed); such a plan may be dropped and must
  // not be committed. Every other plan must be committed or failed, in order.
  void plan(StepPlan& plan);
  // The result of the oldest step in flight; sequences in the order of its plan. Results of
  // sequences that have ended meanwhile are dropped. `output` is overwritten.
  // Moves what it hands on out of `result`, whose vectors keep their memory.
  void commit(StepResult&& result, StepOutput& output);
  // The oldest step in flight failed as a whole: its requests end with kError events.
  void fail_step(std::uint64_t step_id, StepOutput& output);

  // Requests that the last plan() admitted for the first time.
  std::span<const Admission> newly_admitted() const { return newly_admitted_; }

  // The second tier holds this block already: what it was found to keep at start, the oldest first.
  void add_tier_block(std::int32_t group, const Digest& digest);
  // What PreemptionMode::kAuto compares: seconds to compute a token and to read a block.
  void set_costs(double seconds_per_token, double seconds_per_block);
  // Plans nothing but saving up to max_blocks cached blocks that the second tier lacks, those kept
  // longest first. plan.empty(): it has them all.
  void plan_flush(StepPlan& plan, std::int32_t max_blocks);

  bool has_requests() const { return !requests_.empty(); }
  // Whether plan() may return something: requests, or runner state yet to be dropped.
  bool has_work() const { return has_requests() || !pending_drops_.empty(); }
  std::int32_t num_steps_in_flight() const { return static_cast<std::int32_t>(in_flight_.size()); }
  const SchedulerConfig& config() const { return config_; }
  SchedulerStats stats() const;

  // Blocks that a request needs at its longest, alone: what add_request() compares with the pool.
  std::int64_t blocks_at_full_length(std::int32_t prompt_len,
                                     std::int32_t max_tokens,
                                     std::int32_t num_sequences) const;

  // Panics on any broken invariant (blocks counted against every table). Linear in the pool: tests.
  void check_invariants() const;

 private:
  // A sequence's share of a step in flight.
  struct Chunk {
    SeqId seq = 0;
    std::uint32_t incarnation = 0;                   // Sequence::incarnation when planned
    std::int32_t begin = 0, end = 0;                 // the tokens it computes
    std::int32_t first_sample = 0, num_samples = 0;  // in Step::sample_seqs
    bool prompt_logprobs = false;
    bool beam = false;  // gives candidates
  };
  // A sequence's blocks that a step in flight reads from the second tier.
  struct Load {
    SeqId seq = 0;
    std::uint32_t incarnation = 0;
    std::int32_t first_block = 0, num_blocks = 0;
  };
  struct Step {
    std::uint64_t id = 0;
    std::vector<Chunk> chunks;
    std::vector<Load> loads;
    std::vector<SeqId> sample_seqs;  // reserved for max_num_seqs: plans borrow spans of it
    std::vector<BlockId> pins;       // released when the step is over
  };
  enum class Fit { kPlanned, kStalled, kPreempted };

  Scheduler(SchedulerConfig config, BlockLayout layout);

  // plan(): scheduler.cc
  Fit plan_running(ScheduledRequest& request, StepPlan& plan);
  void gather_growths(ScheduledRequest& request);
  void plan_request(ScheduledRequest& request, StepPlan& plan);
  void plan_chunk(Sequence& sequence, std::int32_t num_new, StepPlan& plan);
  void make_writable(Sequence& sequence, std::int32_t num_new, StepPlan& plan);
  std::span<const SeqId> plan_samples(Sequence& sequence, bool is_first_sample);
  void fork_leader(ScheduledRequest& request, StepPlan& plan);
  std::unique_ptr<Sequence> make_sequence(ScheduledRequest& request, std::int32_t index);
  Sequence& add_sequence(ScheduledRequest& request, std::int32_t index);
  void begin_step();
  std::int32_t token_budget() const;
  void end_planning(StepPlan& plan);
  void count_use();

  // Admission and preemption: admission.cc
  void admit_waiting(StepPlan& plan);
  bool try_admit(ScheduledRequest& request, StepPlan& plan);
  PrefixHit find_hit(ScheduledRequest& request) const;
  bool has_room(const ScheduledRequest& request, const PrefixHit& hit) const;
  std::int64_t blocks_to_resume(const ScheduledRequest& request) const;
  std::int64_t blocks_to_reserve(std::int32_t prompt_len,
                                 std::int32_t max_tokens,
                                 std::int32_t num_sequences) const;
  Fit make_room(const ScheduledRequest& request, std::int32_t num_needed);
  void preempt(ScheduledRequest& request);
  void adapt_headroom(std::int32_t num_taken, std::int32_t num_given_back);

  // The second tier: second_tier.cc
  std::int32_t find_loadable(const ScheduledRequest& request, std::int32_t num_hit) const;
  bool in_tier(const Digest& digest) const;
  Fit plan_load(ScheduledRequest& request, StepPlan& plan);
  void gather_load(ScheduledRequest& request);
  void carry_out_load(Sequence& sequence, StepPlan& plan);
  void commit_load(const Load& load, const LoadResult& result, StepOutput& output);
  void plan_saves(std::span<const CachedBlock> blocks, StepPlan& plan);
  // Beam search: scheduler_beams.cc
  void accept_candidates(const Chunk& chunk,
                         Sequence& sequence,
                         BeamCandidates&& candidates,
                         StepOutput& output);
  void continue_beams(ScheduledRequest& request);
  void finish_beams(ScheduledRequest& request, StepOutput& output);
  static std::int32_t common_length(const ScheduledRequest& request);

  // Endings and results: commit.cc
  std::unique_ptr<Step> pop_step(std::uint64_t step_id);
  void commit_chunk(const Step& step,
                    const Chunk& chunk,
                    SequenceResult& result,
                    StepOutput& output);
  void accept_sample(Sequence& sequence, SampledToken&& sampled, StepOutput& output);
  void publish_blocks(Sequence& sequence, std::int32_t num_computed);
  void recycle(std::unique_ptr<Step> step);
  void observe(const Step& step, double seconds);
  void take_prompt_logprobs(const Chunk& chunk,
                            ScheduledRequest& request,
                            SequenceResult& result,
                            StepOutput& output);
  // The event of a token that ends its sequence: is_end_token().
  void end_by_token(TokenId token, const SamplingParams& params, SequenceEvent& event) const;
  void fail_request(ScheduledRequest& request, StepFailure failure, StepOutput& output);
  // Frees the sequence; true if it was the request's last, which is then gone as well.
  bool end_sequence(Sequence& sequence);
  void end_request(ScheduledRequest& request);
  std::int32_t release(Sequence& sequence);

  SchedulerConfig config_;
  BlockLayout layout_;
  Digest root_;
  BlockPool pool_;
  std::unordered_map<RequestId, std::unique_ptr<ScheduledRequest>> requests_;
  std::unordered_map<SeqId, Sequence*> sequences_;
  FairQueue waiting_;
  std::vector<ScheduledRequest*> running_;  // in serving order as of the plan's beginning
  std::int32_t num_running_seqs_ = 0;       // places taken, those of forks to come included
  std::int64_t num_reserved_blocks_ = 0;    // of running requests; 0 unless config_.reservation
  double headroom_ = 0;                     // blocks that admission leaves free
  StepPacer pacer_;
  std::vector<std::unique_ptr<Step>> in_flight_, spare_steps_;
  std::vector<SeqId> pending_drops_;
  std::optional<TierIndex> tier_;
  std::vector<CachedBlock> evicted_;  // by the plan being made
  std::vector<TierIndex::Key> forgotten_;
  double seconds_per_token_ = 0, seconds_per_block_ = 0;
  std::vector<SequenceFork> pending_forks_;  // of beams, since the last plan
  std::vector<Admission> newly_admitted_;
  SeqId next_seq_ = 1;
  std::uint64_t next_arrival_ = 0, next_step_id_ = 1;
  SchedulerStats counters_;  // the counted part

  // Of the plan being made.
  Step* step_ = nullptr;
  std::int32_t budget_ = 0;  // tokens left
  std::int32_t owed_ = 0;    // running sequences not yet looked at: one token each is kept for them
  bool preempted_ = false;
  std::vector<BlockGrowth> growths_;
  std::vector<BlockWrite> copies_;

  std::vector<std::unique_ptr<Sequence>> old_beams_;  // empty between calls of continue_beams()
};

}  // namespace pagemill
