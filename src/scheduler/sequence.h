// A request inside the scheduler and its sequences, and the order in which requests are served.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "base/ids.h"
#include "kv/sequence_blocks.h"
#include "kv/sha256.h"
#include "request/sampling_params.h"

namespace pagemill {

struct ScheduledRequest;
struct Tenant;

struct Sequence {
  Sequence(ScheduledRequest& owner, SeqId seq, std::int32_t sequence_index, SequenceBlocks b)
      : request(owner), id(seq), index(sequence_index), blocks(std::move(b)) {}

  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens.size()); }

  ScheduledRequest& request;
  SeqId id;
  std::int32_t index;              // 0..num_sequences-1
  std::vector<TokenId> tokens;     // the prompt, then the output; kPendingToken while in flight
  std::int32_t num_pending = 0;    // of those at the end
  std::int32_t num_computed = 0;   // tokens whose keys and values planned steps write or wrote
  std::int32_t num_in_flight = 0;  // steps
  std::uint32_t incarnation = 0;   // preemptions so far
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
  std::int32_t num_prompt_logprobs_done = 1;  // positions handed out; the first has none

  bool running = false;
  bool admitted_before = false;
  bool forked_prompt = false;  // since admission, all sequences have had the prompt's blocks
  bool spawned = false;        // all sequences exist; until then only the first does
  std::vector<std::unique_ptr<Sequence>> sequences;  // alive, by index; never empty

  Sequence& leader() const { return *sequences.front(); }
  // Places it takes under max_num_seqs.
  std::int32_t num_places() const {
    return spawned ? static_cast<std::int32_t>(sequences.size()) : params->num_sequences();
  }
  // The prompt is computed by the leader; its siblings wait to fork.
  bool awaits_fork() const { return !forked_prompt && num_places() > 1; }
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
