// What a step's results change, and how sequences and requests end.
#include <algorithm>

#include "base/check.h"
#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

bool contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

void Scheduler::commit(StepResult&& result, StepOutput& output) {
  output.clear();
  std::unique_ptr<Step> step = pop_step(result.step_id);
  PM_CHECK(result.sequences.size() == step->chunks.size(),
           "step {}: {} results for {} sequences",
           result.step_id,
           result.sequences.size(),
           step->chunks.size());
  PM_CHECK(result.loads.size() == step->loads.size(), "step {}: loads", result.step_id);
  for (std::size_t i = 0; i < step->loads.size(); ++i) {
    commit_load(step->loads[i], result.loads[i], output);
  }
  for (std::size_t i = 0; i < step->chunks.size(); ++i) {
    commit_chunk(*step, step->chunks[i], result.sequences[i], output);
  }
  observe(*step, result.seconds);
  recycle(std::move(step));
}

void Scheduler::observe(const Step& step, double seconds) {
  if (!step.loads.empty() || step.chunks.empty()) return;
  std::int32_t num_decoding = 0, num_prompt_tokens = 0;
  for (const Chunk& chunk : step.chunks) {
    const std::int32_t num_tokens = chunk.end - chunk.begin;
    if (num_tokens == 1) {
      ++num_decoding;
    } else {
      num_prompt_tokens += num_tokens;
    }
  }
  pacer_.observe(num_decoding, num_prompt_tokens, seconds);
}

void Scheduler::fail_step(std::uint64_t step_id, StepOutput& output) {
  output.clear();
  std::unique_ptr<Step> step = pop_step(step_id);
  const auto fail = [&](SeqId seq) {
    const auto found = sequences_.find(seq);
    if (found == sequences_.end()) return;
    --found->second->num_in_flight;
    fail_request(found->second->request, StepFailure::kStep, output);
  };
  for (const Load& load : step->loads) fail(load.seq);
  for (const Chunk& chunk : step->chunks) fail(chunk.seq);
  recycle(std::move(step));
}

std::unique_ptr<Scheduler::Step> Scheduler::pop_step(std::uint64_t step_id) {
  PM_CHECK(!in_flight_.empty() && in_flight_.front()->id == step_id,
           "step {} is not the oldest in flight",
           step_id);
  std::unique_ptr<Step> step = std::move(in_flight_.front());
  in_flight_.erase(in_flight_.begin());
  for (const BlockId block : step->pins) pool_.unpin(block);
  return step;
}

void Scheduler::recycle(std::unique_ptr<Step> step) {
  step->chunks.clear();
  step->loads.clear();
  step->sample_seqs.clear();
  step->pins.clear();
  spare_steps_.push_back(std::move(step));
}

void Scheduler::commit_chunk(const Step& step,
                             const Chunk& chunk,
                             SequenceResult& result,
                             StepOutput& output) {
  PM_CHECK(result.seq == chunk.seq, "result of {} where {} ran", result.seq, chunk.seq);
  const auto found = sequences_.find(chunk.seq);
  if (found != sequences_.end()) {
    Sequence& sequence = *found->second;
    --sequence.num_in_flight;
    if (result.failure != StepFailure::kNone) {
      return fail_request(sequence.request, result.failure, output);
    }
    // A preemption since then has given the blocks away.
    if (sequence.incarnation == chunk.incarnation) publish_blocks(sequence, chunk.end);
    if (chunk.prompt_logprobs) take_prompt_logprobs(chunk, sequence.request, result, output);
    if (chunk.beam) return accept_candidates(chunk, sequence, std::move(result.beam), output);
  }
  if (chunk.beam) return;
  PM_CHECK(static_cast<std::int32_t>(result.samples.size()) == chunk.num_samples ||
               result.failure != StepFailure::kNone,
           "sequence {}: {} samples where {} were planned",
           chunk.seq,
           result.samples.size(),
           chunk.num_samples);
  for (std::size_t i = 0; i < result.samples.size(); ++i) {
    const auto sampled = sequences_.find(step.sample_seqs[chunk.first_sample + i]);
    if (sampled == sequences_.end()) continue;
    accept_sample(*sampled->second, std::move(result.samples[i]), output);
  }
}

void Scheduler::publish_blocks(Sequence& sequence, std::int32_t num_computed) {
  if (!config_.enable_prefix_caching) return;
  const std::size_t num_full = num_computed / config_.block_size;
  const Digest& root = sequence.request.root;
  const auto tokens = std::span<const TokenId>(sequence.tokens).first(num_computed);
  if (sequence.hashes.size() < num_full) {
    extend_hashes(sequence.hashes, root, tokens, config_.block_size);
  }
  sequence.blocks.publish(root, std::span<const Digest>(sequence.hashes).first(num_full), tokens);
}

// Each position is handed out once, whatever a preemption computes again.
void Scheduler::take_prompt_logprobs(const Chunk& chunk,
                                     ScheduledRequest& request,
                                     SequenceResult& result,
                                     StepOutput& output) {
  const std::int32_t first = chunk.begin + 1, end = std::min(chunk.end + 1, request.prompt_len);
  auto& entries = result.prompt_logprobs;
  PM_CHECK(static_cast<std::int32_t>(entries.size()) == end - first,
           "{} prompt logprobs for positions {} to {}",
           entries.size(),
           first,
           end - 1);
  const std::int32_t num_known =
      std::clamp(request.num_prompt_logprobs_done - first, 0, end - first);
  if (first + num_known == end) return;
  entries.erase(entries.begin(), entries.begin() + num_known);
  output.prompt_logprobs.push_back({request.id, first + num_known, std::move(entries)});
  request.num_prompt_logprobs_done = end;
}

void Scheduler::accept_sample(Sequence& sequence, SampledToken&& sampled, StepOutput& output) {
  ScheduledRequest& request = sequence.request;
  const SamplingParams& params = *request.params;
  const TokenId token = sampled.token;
  const std::int32_t position = sequence.num_tokens() - sequence.num_pending--;
  sequence.tokens[position] = token;
  const std::int32_t num_output = position + 1 - request.prompt_len;

  SequenceEvent& event = output.events.emplace_back();
  event.request = request.id;
  event.sequence_index = sequence.index;
  event.seq = sequence.id;
  event.sampled = std::move(sampled);
  waiting_.charge_output(*request.tenant);
  if (num_output > params.min_tokens && is_end_token(params, config_.eos_token_ids, token)) {
    end_by_token(token, params, event);
  }
  if (event.finish_reason == FinishReason::kNone && position + 1 >= request.max_len) {
    event.finish_reason = FinishReason::kLength;
  }
  if (event.finish_reason != FinishReason::kNone) event.request_finished = end_sequence(sequence);
}

void Scheduler::end_by_token(TokenId token,
                             const SamplingParams& params,
                             SequenceEvent& event) const {
  event.finish_reason = FinishReason::kStop;
  const bool is_eos = !params.ignore_eos && contains(config_.eos_token_ids, token);
  if (!is_eos) event.stop_token = token;
}

void Scheduler::fail_request(ScheduledRequest& request, StepFailure failure, StepOutput& output) {
  const auto fail = [&](std::int32_t index, SeqId seq) {
    SequenceEvent& event = output.events.emplace_back();
    event.request = request.id;
    event.sequence_index = index;
    event.seq = seq;
    event.finish_reason = FinishReason::kError;
    event.failure = failure;
  };
  if (request.spawned && !request.beams) {
    for (const auto& sequence : request.sequences) fail(sequence->index, sequence->id);
  } else {  // none has ended
    for (std::int32_t i = 0; i < request.params->num_outputs(); ++i) fail(i, request.leader().id);
  }
  output.events.back().request_finished = true;
  end_request(request);
}

bool Scheduler::abort(RequestId request) {
  const auto found = requests_.find(request);
  if (found == requests_.end()) return false;
  end_request(*found->second);
  return true;
}

bool Scheduler::finish_sequence(RequestId request, std::int32_t sequence_index) {
  const auto found = requests_.find(request);
  if (found == requests_.end() || !found->second->spawned || found->second->beams) return false;
  for (const auto& sequence : found->second->sequences) {
    if (sequence->index != sequence_index) continue;
    end_sequence(*sequence);
    return true;
  }
  return false;
}

bool Scheduler::end_sequence(Sequence& sequence) {
  ScheduledRequest& request = sequence.request;
  if (request.sequences.size() == 1) {
    end_request(request);
    return true;
  }
  adapt_headroom(0, release(sequence));
  if (request.running) --num_running_seqs_;
  sequences_.erase(sequence.id);
  std::erase_if(request.sequences, [&](const auto& s) { return s.get() == &sequence; });
  return false;
}

void Scheduler::end_request(ScheduledRequest& request) {
  if (request.running) {
    std::erase(running_, &request);
    num_running_seqs_ -= request.num_places();
    num_reserved_blocks_ -= request.num_reserved_blocks;
  } else {
    waiting_.erase(request);
  }
  waiting_.leave(request);
  for (const auto& sequence : request.sequences) {
    adapt_headroom(0, release(*sequence));
    sequences_.erase(sequence->id);
  }
  requests_.erase(request.id);
}

// Gives back the sequence's blocks, now or once no step in flight uses them, and its runner state.
// How many blocks nobody references any more.
std::int32_t Scheduler::release(Sequence& sequence) {
  const std::int32_t num_referenced = pool_.stats().referenced;
  sequence.blocks.release(sequence.num_in_flight > 0 ? &in_flight_.back()->pins : nullptr);
  if (sequence.in_runner) pending_drops_.push_back(sequence.id);
  sequence.in_runner = false;
  return num_referenced - pool_.stats().referenced;
}

}  // namespace pagemill
