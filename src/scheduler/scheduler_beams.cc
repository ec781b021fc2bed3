// Beam search on block tables: beams fork where the BeamGroup says, and nothing is computed twice.
#include <algorithm>

#include "base/check.h"
#include "scheduler/scheduler.h"

namespace pagemill {

void Scheduler::accept_candidates(const Chunk& chunk,
                                  Sequence& sequence,
                                  BeamCandidates&& candidates,
                                  StepOutput& output) {
  // Preempted since then: the beam will be computed, and ask, again.
  if (sequence.incarnation != chunk.incarnation) return;
  ScheduledRequest& request = sequence.request;
  BeamGroup& group = *request.beams;
  group.add_candidates(sequence.index, std::move(candidates));
  if (!group.ready()) return;
  group.advance();
  group.done() ? finish_beams(request, output) : continue_beams(request);
}

// A beam's first child keeps its sequence. Each further child takes over the sequence of a beam
// that has none, or a new one, and refers to its parent's blocks; the first of them to write to the
// last block copies it.
void Scheduler::continue_beams(ScheduledRequest& request) {
  const std::span<const BeamGroup::Beam> beams = request.beams->beams();
  auto& sequences = request.sequences;
  old_beams_.swap(sequences);
  sequences.resize(beams.size());
  for (std::size_t i = 0; i < beams.size(); ++i) {
    if (old_beams_[beams[i].parent]) sequences[i] = std::move(old_beams_[beams[i].parent]);
  }
  std::size_t spare = 0;
  for (std::size_t i = 0; i < beams.size(); ++i) {
    if (sequences[i]) continue;
    const auto first_child = std::find_if(beams.begin(), beams.end(), [&](const auto& beam) {
      return beam.parent == beams[i].parent;
    });
    const Sequence& parent = *sequences[first_child - beams.begin()];
    while (spare < old_beams_.size() && !old_beams_[spare]) ++spare;
    sequences[i] =
        spare < old_beams_.size() ? std::move(old_beams_[spare]) : make_sequence(request, 0);
    Sequence& child = *sequences[i];
    child.blocks.release(nullptr);  // no step in flight uses them: all beams have candidates
    child.blocks.share(parent.blocks);
    child.tokens = parent.tokens;
    child.hashes = parent.hashes;
    child.num_computed = parent.num_computed;
    child.in_runner = true;
    pending_forks_.push_back(
        {parent.id, child.id, static_cast<std::int32_t>(i), request.params->seed.value_or(0)});
    ++counters_.forks;
  }
  for (const auto& unused : old_beams_) {
    if (!unused) continue;
    release(*unused);
    sequences_.erase(unused->id);
  }
  old_beams_.clear();
  for (std::size_t i = 0; i < beams.size(); ++i) {
    sequences[i]->index = static_cast<std::int32_t>(i);
    sequences[i]->tokens.push_back(beams[i].token);
  }
  request.forked = true;
}

void Scheduler::finish_beams(ScheduledRequest& request, StepOutput& output) {
  const SamplingParams& params = *request.params;
  const auto hypotheses = request.beams->hypotheses();
  for (std::int32_t index = 0; index < params.n; ++index) {
    const auto add_event = [&]() -> SequenceEvent& {
      SequenceEvent& event = output.events.emplace_back();
      event.request = request.id;
      event.sequence_index = index;
      event.seq = request.leader().id;
      return event;
    };
    if (index >= static_cast<std::int32_t>(hypotheses.size())) {
      // Masks left fewer sequences than n.
      add_event().finish_reason = FinishReason::kLength;
      continue;
    }
    const BeamGroup::Hypothesis& hypothesis = hypotheses[index];
    for (SampledToken& token : request.beams->tokens(hypothesis)) {
      add_event().sampled = std::move(token);
    }
    SequenceEvent& last = output.events.back();
    last.beam_score = hypothesis.score;
    last.finish_reason = FinishReason::kLength;
    if (hypothesis.ends) end_by_token(last.sampled->token, params, last);
  }
  output.events.back().request_finished = true;
  end_request(request);
}

// Tokens that all beams begin with.
std::int32_t Scheduler::common_length(const ScheduledRequest& request) {
  const std::vector<TokenId>& first = request.leader().tokens;
  auto end = first.end();
  for (const auto& sequence : request.sequences) {
    end = std::mismatch(first.begin(), end, sequence->tokens.begin()).first;
  }
  return static_cast<std::int32_t>(end - first.begin());
}

}  // namespace pagemill
