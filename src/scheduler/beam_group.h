// BeamGroup: the beam search of one request. It decides which beams go on with which tokens, which
// hypotheses are complete, and when to end.
//
// The rules are those of Hugging Face Transformers 5 (generate(num_beams=w, do_sample=False)), on
// the same log-probabilities. Each step takes the best continuations of all beams together. Of
// those that end (EOS, a stop token, the length limit) only the ones among the best w become
// hypotheses, of which the best w are kept; the best w of the others are the next beams. Sums are
// kept in float, as there; ties go to the better beam, then to the likelier token.
//
// It knows neither blocks nor sequences: the scheduler forks block tables as beams() says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "plan/step_plan.h"
#include "request/outputs.h"
#include "request/sampling_params.h"

namespace pagemill {

class BeamGroup {
 public:
  struct Beam {
    std::int32_t parent = 0;  // among the beams of the step before
    TokenId token = 0;        // the newest
    float score = 0;          // sum of its tokens' log-probabilities
    std::int32_t node = -1;   // of its newest token; -1: none yet
  };
  struct Hypothesis {
    float score = 0;    // divided by length^length_penalty
    bool ends = false;  // by an end token rather than by length
    std::int32_t node = 0;
  };

  // One beam without tokens. max_tokens >= 1: the longest output.
  BeamGroup(std::shared_ptr<const SamplingParams> params, std::int32_t max_tokens);

  std::int32_t width() const { return width_; }
  // 1..width() of them, best first. Fewer than width() only before the first step, or where masks
  // leave fewer tokens.
  std::span<const Beam> beams() const { return beams_; }

  // What the model says follows a beam; each beam's once a step, in any order.
  void add_candidates(std::int32_t beam, BeamCandidates&& candidates);
  // Forgets the candidates of this step: they will be added again.
  void drop_candidates();
  // Every beam has its candidates.
  bool ready() const { return num_added_ == static_cast<std::int32_t>(beams_.size()); }
  // Replaces the beams by the next ones; ready().
  void advance();
  // No step follows: the best hypotheses are known.
  bool done() const { return done_; }

  // Best first, at most width(). Fewer only where masks leave fewer sequences.
  std::span<const Hypothesis> hypotheses() const { return hypotheses_; }
  // The output tokens of a hypothesis, with logprobs if the request asked for them.
  std::vector<SampledToken> tokens(const Hypothesis& hypothesis) const;

 private:
  // The output so far as a tree: a token and where it continues from.
  struct Node {
    std::int32_t parent = -1;
    TokenId token = 0;
  };
  // The best continuation of a beam that has not been taken yet.
  struct Head {
    float score = 0;
    std::int32_t beam = 0, candidate = 0;
  };

  static bool is_worse(const Head& a, const Head& b);
  void push_head(std::int32_t beam, std::int32_t candidate);
  Head pop_head();
  std::int32_t add_node(const Head& head);
  void finish(const Head& head, bool ends);
  float normalized(float score, std::int32_t length) const;
  bool can_improve() const;

  std::shared_ptr<const SamplingParams> params_;
  std::int32_t width_, max_tokens_;
  std::int32_t length_ = 0;  // output tokens of every beam
  bool done_ = false;
  std::vector<Beam> beams_, next_beams_;
  std::vector<Hypothesis> hypotheses_;
  std::vector<BeamCandidates> candidates_;  // [width]
  std::vector<bool> added_;                 // [width]
  std::int32_t num_added_ = 0;
  std::vector<Head> heads_;  // a heap, the best on top; one for each beam
  std::vector<Node> nodes_;
  std::vector<PositionLogprobs> node_logprobs_;  // [nodes], or empty without logprobs
};

}  // namespace pagemill
