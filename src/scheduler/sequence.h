// A request inside the scheduler and its sequences, and the order in which requests are served.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "kv/sequence_blocks.h"
#include "request/sampling_params.h"
#include "scheduler/beam_group.h"

namespace pagemill {

struct ScheduledRequest;
struct Tenant;

struct Sequence {
  Sequence(ScheduledRequest& owner, SeqId seq, std::int32_t sequence_index, SequenceBlocks b)
      : request(owner), id(seq), index(sequence_index), blocks(std::move(b)) {}

  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens.size()); }
  bool loads() const { return load_in_flight || num_computed < load_end; }

  ScheduledRequest& request;
  SeqId id;
  std::int32_t index;              // 0..num_sequences-1; of a beam search the beam, best first
  std::vector<TokenId> tokens;     // the prompt, then the output; kPendingToken while in flight
  std::int32_t num_pending = 0;    // of those at the end
  std::int32_t num_computed = 0;   // tokens whose keys and values planned steps write or wrote
  std::int32_t num_in_flight = 0;  // steps
  std::uint32_t incarnation = 0;   // preemptions so far
  std::int32_t load_end = 0;       // tokens below are to come from the second tier
  bool load_in_flight = false;     // a step reads some of them
  bool in_runner = false;          // the runner has its sampling state
  SequenceBlocks blocks;
  std::vector<Digest> hashes;  // of the full blocks of `tokens`, as far as needed
};

struct ScheduledRequest {
  RequestId id = 0;
  std::shared_ptr<const SamplingParams> params;
  Tenant* tenant = nullptr;
  std::int32_t priority = 0;
  std::uint64_t arrival = 0;  // order of add_request()
  std::int32_t prompt_len = 0;
  std::int32_t max_len = 0;  // prompt and output tokens of one sequence at its end
  Digest root;
  std::int64_t num_reserved_blocks = 0;       // Reservation
  std::int32_t num_prompt_logprobs_done = 1;  // positions handed out; the first has none

  bool running = false;
  bool admitted_before = false;
  // Tokens that all sequences share and the leader alone computes after admission: the prompt, or
  // more of it once beams that have a common beginning were preempted.
  std::int32_t fork_len = 0;
  bool forked = false;   // since admission, all sequences have had the shared tokens' blocks
  bool spawned = false;  // all sequences exist; until then only the first does
  std::unique_ptr<BeamGroup> beams;  // of a beam search, whose sequences come and go with the beams
  std::vector<std::unique_ptr<Sequence>> sequences;  // alive, by index; never empty

  Sequence& leader() const { return *sequences.front(); }
  // Places it takes under max_num_seqs.
  std::int32_t num_places() const {
    return spawned && !beams ? static_cast<std::int32_t>(sequences.size())
                             : params->num_sequences();
  }
  // The shared tokens are computed by the leader; its siblings wait to fork.
  bool awaits_fork() const {
    return !forked && (spawned ? sequences.size() > 1 : params->num_sequences() > 1);
  }
  bool wants_prompt_logprobs() const {
    return params->prompt_logprobs.has_value() && num_prompt_logprobs_done < prompt_len;
  }
};

// The order of service among one tenant's: priority (all equal but under its policy), then arrival.
struct ServedBefore {
  bool operator()(const ScheduledRequest* a, const ScheduledRequest* b) const {
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
  }
};

using RequestQueue = std::set<ScheduledRequest*, ServedBefore>;

}  // namespace pagemill
