#include "simulate/simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace pagemill {
namespace {

template <typename... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
  if (!condition) throw SimulationError(fmt::format(text, std::forward<Args>(args)...));
}

bool contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

Simulation::Simulation(Options options) : options_(std::move(options)) {
  model_ = FakeModel{options_.vocab_size, options_.scheduler.eos_token_ids};
  BlockLayout layout{options_.scheduler.block_size, {}};
  for (const KvSpec& group : options_.scheduler.kv_groups) {
    layout.windows.push_back(group.kind == KvKind::kWindowed ? group.window : 0);
  }
  runner_ = std::make_unique<FakeRunner>(model_, layout, options_.scheduler.num_blocks);
  runner_->set_tier_faults(options_.tier_lost, options_.tier_broken, 1);
  auto scheduler = Scheduler::create(options_.scheduler);
  require(scheduler.ok(), "{}", scheduler.ok() ? "" : scheduler.error().message);
  scheduler_ = std::move(scheduler).value();
}

Status Simulation::add(Request request) {
  Live live{request, {}, 1, false, {}};
  PM_TRY(scheduler_->add_request(std::move(request)));
  Progress start;
  for (const TokenId token : live.request.prompt_token_ids) {
    start.last = model_.content(start.last, token);
  }
  live.sequences.assign(live.request.params.num_outputs(), start);
  if (live.request.params.use_beam_search) find_hypotheses(live, start.last);
  requests_.emplace(live.request.id, std::move(live));
  return ok_status();
}

void Simulation::find_hypotheses(Live& live, SlotContent prompt) const {
  const SamplingParams& params = live.request.params;
  const auto prompt_len = static_cast<std::int32_t>(live.request.prompt_token_ids.size());
  const std::int32_t max_tokens =
      std::min(params.max_tokens, options_.scheduler.max_model_len - prompt_len);
  live.hypotheses = reference_beam_search(
      params, model_.eos_token_ids, max_tokens, [&](std::span<const TokenId> output) {
        SlotContent last = prompt;
        for (const TokenId token : output) last = model_.content(last, token);
        std::vector<float> logprobs(model_.vocab_size, -std::numeric_limits<float>::infinity());
        const auto position = static_cast<std::int32_t>(output.size());
        for (const BeamCandidate& next : model_.candidates(last, params, position)) {
          logprobs[next.token] = next.logprob;
        }
        return logprobs;
      });
}

void Simulation::abort(RequestId request) {
  require(scheduler_->abort(request) == alive(request), "abort of request {}", request);
  if (alive(request)) forget(request);
}

void Simulation::finish_sequence(RequestId request, std::int32_t index) {
  Live& live = requests_.at(request);
  require(scheduler_->finish_sequence(request, index), "no sequence {} of {}", index, request);
  live.sequences[index].reason = FinishReason::kAbort;
  if (alive_sequences(request).empty()) forget(request);
}

bool Simulation::fail_next(RequestId request) {
  const auto seen = last_seen_.find(request);
  if (seen == last_seen_.end() || !alive(request)) return false;
  runner_->fail_next(seen->second);
  requests_.at(request).may_fail = true;
  return true;
}

bool Simulation::step() {
  scheduler_->plan(plan_);
  const bool planned = !plan_.empty();
  if (planned) {
    require(plan_.num_tokens <= options_.scheduler.max_num_batched_tokens, "over the token budget");
    require(scheduler_->stats().num_running_seqs <= options_.scheduler.max_num_seqs,
            "over max_num_seqs");
    runner_->submit(plan_);
    require(!plan_.sequences.empty() || !plan_.drops.empty() || !plan_.loads.empty() ||
                !plan_.forks.empty(),
            "a step does nothing");
  }
  const bool commits =
      runner_->num_in_flight() >= options_.depth || (!planned && runner_->num_in_flight() > 0);
  if (commits) commit_oldest();
  if (options_.check_every_step) scheduler_->check_invariants();
  return planned || commits;
}

void Simulation::run(std::int64_t max_steps) {
  while (scheduler_->has_work() || runner_->num_in_flight() > 0) {
    require(max_steps-- > 0, "{} requests are left after too many steps", requests_.size());
    require(step(), "{} requests are left, but nothing is planned", requests_.size());
  }
  require(requests_.empty(), "{} requests never ended", requests_.size());
}

void Simulation::flush() {
  for (;;) {
    scheduler_->plan_flush(plan_, 7);
    if (plan_.empty()) return;
    runner_->submit(plan_);
    commit_oldest();
  }
}

void Simulation::check_all_freed() {
  const BlockPoolStats& blocks = scheduler_->stats().blocks;
  require(blocks.referenced == 0 && blocks.pinned == 0 && blocks.empty_slots == 0,
          "{} blocks are still referenced, {} pinned",
          blocks.referenced,
          blocks.pinned);
  require(blocks.free + blocks.cached + 1 == blocks.total, "blocks are lost");
  require(runner_->num_states() == 0, "{} states are left in the runner", runner_->num_states());
  scheduler_->check_invariants();
}

std::vector<RequestId> Simulation::alive_requests() const {
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, live] : requests_) ids.push_back(id);
  return ids;
}

std::vector<std::int32_t> Simulation::alive_sequences(RequestId request) const {
  std::vector<std::int32_t> indices;
  const auto found = requests_.find(request);
  if (found == requests_.end()) return indices;
  const auto& sequences = found->second.sequences;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].reason == FinishReason::kNone && sequences[i].num_output > 0) {
      indices.push_back(static_cast<std::int32_t>(i));
    }
  }
  return indices;
}

void Simulation::commit_oldest() {
  StepResult result = runner_->wait();
  // Some time that varies with the step: what it makes of prompts' chunks must change no output.
  result.seconds = 1e-3 * static_cast<double>(1 + result.sequences.size() % 5);
  scheduler_->commit(std::move(result), output_);
  for (const PromptLogprobsEvent& event : output_.prompt_logprobs) accept(event);
  for (const SequenceEvent& event : output_.events) accept(event);
}

void Simulation::accept(const PromptLogprobsEvent& event) {
  Live& live = requests_.at(event.request);
  const auto& prompt = live.request.prompt_token_ids;
  require(event.first_position == live.next_prompt_logprob && !event.entries.empty(),
          "prompt logprobs from {} where {} is next",
          event.first_position,
          live.next_prompt_logprob);
  for (const PositionLogprobs& entry : event.entries) {
    require(entry.chosen.token == prompt.at(live.next_prompt_logprob++), "wrong prompt logprob");
  }
}

void Simulation::accept(const SequenceEvent& event) {
  require(alive(event.request), "an event of request {}, which has ended", event.request);
  Live& live = requests_.at(event.request);
  Progress& progress = live.sequences.at(event.sequence_index);
  require(progress.reason == FinishReason::kNone, "an event of a sequence that has ended");
  last_seen_[event.request] = event.seq;
  if (event.sampled && live.request.params.use_beam_search) {
    accept_beam_token(event, live, progress);
  } else if (event.sampled) {
    accept_token(event, live, progress);
  } else if (event.finish_reason == FinishReason::kLength) {
    require(event.sequence_index >= static_cast<std::int32_t>(live.hypotheses.size()) &&
                live.request.params.use_beam_search,
            "request {} ends without a token",
            event.request);
  } else {
    require(event.finish_reason == FinishReason::kError && live.may_fail,
            "request {} fails without a cause",
            event.request);
  }
  progress.reason = event.finish_reason;
  const auto goes_on = [](const Progress& p) { return p.reason == FinishReason::kNone; };
  const bool finished = std::none_of(live.sequences.begin(), live.sequences.end(), goes_on);
  require(event.request_finished == finished, "request {}: wrong request_finished", event.request);
  if (!finished) return;
  const std::int32_t prompt_len = live.request.prompt_token_ids.size();
  require(!live.request.params.prompt_logprobs || event.finish_reason == FinishReason::kError ||
              live.next_prompt_logprob == prompt_len,
          "request {} got {} of {} prompt logprobs",
          event.request,
          live.next_prompt_logprob,
          prompt_len);
  forget(event.request);
}

void Simulation::accept_token(const SequenceEvent& event, Live& live, Progress& progress) {
  const SamplingParams& params = live.request.params;
  const TokenId expected = model_.sample(
      progress.last, params, params.seed.value_or(0), event.sequence_index, progress.num_output);
  require(event.sampled->token == expected,
          "request {}, sequence {}: output token {} is {}, alone it is {}",
          event.request,
          event.sequence_index,
          progress.num_output,
          event.sampled->token,
          expected);
  progress.last = model_.content(progress.last, expected);
  ++progress.num_output;
  const FinishReason end = expected_end(live, expected, progress.num_output);
  require(event.finish_reason == end,
          "request {} ends with '{}' instead of '{}'",
          event.request,
          to_string(event.finish_reason),
          to_string(end));
  require(event.stop_token.has_value() ==
              (end == FinishReason::kStop && contains(params.stop_token_ids, expected) &&
               (params.ignore_eos || !contains(model_.eos_token_ids, expected))),
          "a stop token is reported wrongly");
}

// The tokens of each hypothesis come one by one, all in the step that ends the search.
void Simulation::accept_beam_token(const SequenceEvent& event,
                                   const Live& live,
                                   Progress& progress) {
  const auto index = static_cast<std::size_t>(event.sequence_index);
  require(index < live.hypotheses.size(), "request {} has too many hypotheses", event.request);
  const ReferenceHypothesis& expected = live.hypotheses[index];
  progress.beam_tokens.push_back(event.sampled->token);
  ++progress.num_output;
  const std::size_t count = progress.beam_tokens.size();
  require(
      count <= expected.tokens.size() && progress.beam_tokens.back() == expected.tokens[count - 1],
      "request {}, hypothesis {}: output token {} is {}",
      event.request,
      index,
      count - 1,
      progress.beam_tokens.back());
  const bool is_last = count == expected.tokens.size();
  require(is_last == event.beam_score.has_value() &&
              is_last == (event.finish_reason != FinishReason::kNone),
          "request {}, hypothesis {} ends after {} tokens",
          event.request,
          index,
          count);
  if (!is_last) return;
  const SamplingParams& params = live.request.params;
  const bool ends = is_end_token(params, model_.eos_token_ids, event.sampled->token);
  require(*event.beam_score == expected.score &&
              event.finish_reason == (ends ? FinishReason::kStop : FinishReason::kLength),
          "request {}, hypothesis {}: score {} instead of {}",
          event.request,
          index,
          *event.beam_score,
          expected.score);
}

FinishReason Simulation::expected_end(const Live& live,
                                      TokenId token,
                                      std::int32_t num_output) const {
  const SamplingParams& params = live.request.params;
  const bool may_stop = num_output > params.min_tokens;
  if (may_stop && ((!params.ignore_eos && contains(model_.eos_token_ids, token)) ||
                   contains(params.stop_token_ids, token))) {
    return FinishReason::kStop;
  }
  const auto length = static_cast<std::int32_t>(live.request.prompt_token_ids.size()) + num_output;
  return num_output >= params.max_tokens || length >= options_.scheduler.max_model_len
             ? FinishReason::kLength
             : FinishReason::kNone;
}

void Simulation::forget(RequestId request) {
  auto node = requests_.extract(request);
  for (Progress& progress : node.mapped().sequences) {
    if (progress.reason == FinishReason::kNone) progress.reason = FinishReason::kAbort;
  }
  finished_.emplace(request, std::move(node.mapped().sequences));
  finished_order_.push_back(request);
  last_seen_.erase(request);
}

}  // namespace pagemill
