#include "scheduler/beam_group.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace pagemill {

BeamGroup::BeamGroup(std::shared_ptr<const SamplingParams> params, std::int32_t max_tokens)
    : params_(std::move(params)),
      width_(params_->num_sequences()),
      max_tokens_(max_tokens),
      beams_(1),
      candidates_(width_),
      added_(width_, false) {
  beams_.reserve(width_);
  next_beams_.reserve(width_);
  hypotheses_.reserve(width_ + 1);
  heads_.reserve(width_);
}

void BeamGroup::add_candidates(std::int32_t beam, BeamCandidates&& candidates) {
  PM_CHECK(beam < static_cast<std::int32_t>(beams_.size()) && !added_[beam], "beam {}", beam);
  candidates_[beam] = std::move(candidates);
  added_[beam] = true;
  ++num_added_;
}

void BeamGroup::drop_candidates() {
  std::fill(added_.begin(), added_.end(), false);
  num_added_ = 0;
}

void BeamGroup::advance() {
  PM_CHECK(ready() && !done_, "{} of {} beams have candidates", num_added_, beams_.size());
  ++length_;
  const bool is_last = length_ >= max_tokens_;
  next_beams_.clear();
  heads_.clear();
  for (std::size_t beam = 0; beam < beams_.size(); ++beam) {
    push_head(static_cast<std::int32_t>(beam), 0);
  }
  for (std::int32_t taken = 0; !heads_.empty(); ++taken) {
    const bool may_finish = taken < width_;
    if (!may_finish && (is_last || static_cast<std::int32_t>(next_beams_.size()) == width_)) break;
    const Head head = pop_head();
    const BeamCandidate& candidate = candidates_[head.beam].candidates[head.candidate];
    if (candidate.ends || is_last) {
      if (may_finish) finish(head, candidate.ends);
    } else if (static_cast<std::int32_t>(next_beams_.size()) < width_) {
      next_beams_.push_back({head.beam, candidate.token, head.score, add_node(head)});
    }
    push_head(head.beam, head.candidate + 1);
  }
  beams_.swap(next_beams_);
  drop_candidates();
  done_ = is_last || beams_.empty() || !can_improve();
}

// Continuations of one beam come in order, so ties are between beams.
bool BeamGroup::is_worse(const Head& a, const Head& b) {
  return a.score != b.score ? a.score < b.score : a.beam > b.beam;
}

void BeamGroup::push_head(std::int32_t beam, std::int32_t candidate) {
  const auto& list = candidates_[beam].candidates;
  if (candidate == static_cast<std::int32_t>(list.size())) return;
  heads_.push_back({beams_[beam].score + list[candidate].logprob, beam, candidate});
  std::push_heap(heads_.begin(), heads_.end(), is_worse);
}

BeamGroup::Head BeamGroup::pop_head() {
  std::pop_heap(heads_.begin(), heads_.end(), is_worse);
  const Head head = heads_.back();
  heads_.pop_back();
  return head;
}

std::int32_t BeamGroup::add_node(const Head& head) {
  const BeamCandidates& from = candidates_[head.beam];
  const BeamCandidate& candidate = from.candidates[head.candidate];
  nodes_.push_back({beams_[head.beam].node, candidate.token});
  if (params_->logprobs) {
    node_logprobs_.push_back(
        {{candidate.token, candidate.raw_logprob, candidate.rank, {}}, from.top});
  }
  return static_cast<std::int32_t>(nodes_.size() - 1);
}

void BeamGroup::finish(const Head& head, bool ends) {
  const float score = normalized(head.score, length_);
  const auto place = std::upper_bound(
      hypotheses_.begin(), hypotheses_.end(), score, [](float value, const Hypothesis& other) {
        return value > other.score;
      });
  if (place - hypotheses_.begin() == width_) return;
  hypotheses_.insert(place, {score, ends, add_node(head)});
  if (static_cast<std::int32_t>(hypotheses_.size()) > width_) hypotheses_.pop_back();
}

float BeamGroup::normalized(float score, std::int32_t length) const {
  return score / static_cast<float>(std::pow(1.0 * length, 1.0 * params_->length_penalty));
}

// Whether another step may find a hypothesis that is better than the worst of `width` ones.
bool BeamGroup::can_improve() const {
  if (static_cast<std::int32_t>(hypotheses_.size()) < width_) return true;
  // One beam is greedy search, which ends at its first end token.
  if (params_->early_stopping == EarlyStopping::kTrue || width_ == 1) return false;
  const bool at_longest =
      params_->early_stopping == EarlyStopping::kNever && params_->length_penalty > 0;
  const float best = normalized(beams_.front().score, at_longest ? max_tokens_ : length_);
  return best > hypotheses_.back().score;
}

std::vector<SampledToken> BeamGroup::tokens(const Hypothesis& hypothesis) const {
  std::vector<SampledToken> tokens;
  for (std::int32_t node = hypothesis.node; node >= 0; node = nodes_[node].parent) {
    SampledToken& token = tokens.emplace_back();
    token.token = nodes_[node].token;
    if (params_->logprobs) token.logprobs = node_logprobs_[node];
  }
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

}  // namespace pagemill
