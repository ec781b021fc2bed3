// Who gets in, and who has to leave when blocks run out.
#include <algorithm>
#include <bit>

#include "base/check.h"
#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

// The headroom grows by this share of the blocks that a preemption takes away, and shrinks by that
// of the blocks that an ending gives back. It settles where preemptions take a sixth of what
// endings give: fewer would cost more memory than the recomputation that they save is worth.
constexpr double kHeadroomGrowth = 0.3;
constexpr double kHeadroomDecay = 0.05;
constexpr double kMaxHeadroom = 0.25;  // of the pool

}  // namespace

Result<SchedulingPolicy> parse_scheduling_policy(const std::string& name) {
  if (name == "fcfs") return SchedulingPolicy::kFcfs;
  if (name == "priority") return SchedulingPolicy::kPriority;
  if (name == "fair") return SchedulingPolicy::kFair;
  return invalid_argument(
      fmt::format("scheduling_policy: expected fcfs, priority or fair, got '{}'", name),
      "scheduling_policy");
}

Result<Reservation> parse_reservation(const std::string& name) {
  if (name == "none") return Reservation::kNone;
  if (name == "max") return Reservation::kMax;
  if (name == "pow2") return Reservation::kPowerOfTwo;
  if (name == "oracle") return Reservation::kOracle;
  return invalid_argument(
      fmt::format("kv_reservation: expected none, max, pow2 or oracle, got '{}'", name),
      "kv_reservation");
}

Result<PreemptionMode> parse_preemption_mode(const std::string& name) {
  if (name == "recompute") return PreemptionMode::kRecompute;
  if (name == "swap") return PreemptionMode::kSwap;
  if (name == "auto") return PreemptionMode::kAuto;
  return invalid_argument(
      fmt::format("preemption_mode: expected recompute, swap or auto, got '{}'", name),
      "preemption_mode");
}

Result<std::unique_ptr<Scheduler>> Scheduler::create(SchedulerConfig config) {
  const auto at_least = [](const char* name, std::int32_t value, std::int32_t least) -> Status {
    if (value >= least) return ok_status();
    return invalid_argument(
        fmt::format("{}: expected an integer >= {}, got {}", name, least, value), name);
  };
  PM_TRY(at_least("num_blocks", config.num_blocks, 2));
  PM_TRY(at_least("block_size", config.block_size, 1));
  PM_TRY(at_least("max_model_len", config.max_model_len, 2));
  PM_TRY(at_least("max_num_batched_tokens", config.max_num_batched_tokens, 1));
  PM_TRY(at_least("max_num_seqs", config.max_num_seqs, 1));
  PM_TRY(at_least("max_queued_requests", config.max_queued_requests, 1));
  PM_TRY(at_least("fair_input_weight", config.fair_input_weight, 0));
  PM_TRY(at_least("fair_output_weight", config.fair_output_weight, 0));
  if (config.fair_input_weight == 0 && config.fair_output_weight == 0) {
    return invalid_argument("fair_output_weight: expected one of the weights to be above 0",
                            "fair_output_weight");
  }
  if (!(config.target_itl_s >= 0)) {
    return invalid_argument(
        fmt::format("target_itl_ms: expected a number >= 0, got {}", 1e3 * config.target_itl_s),
        "target_itl_ms");
  }
  if (config.kv_groups.empty() || config.kv_groups.size() > kMaxKvGroups) {
    return invalid_argument(fmt::format(
        "kv_groups: expected 1 to {} groups, got {}", kMaxKvGroups, config.kv_groups.size()));
  }
  if (config.tier_bytes > 0) {
    PM_CHECK(config.tier_block_bytes.size() == config.kv_groups.size());
    if (!config.enable_prefix_caching) {
      return invalid_argument(
          "kv_disk_path: blocks are kept by the hash of their contents: it needs prefix caching",
          "kv_disk_path");
    }
  }
  BlockLayout layout{config.block_size, {}};
  for (const KvSpec& group : config.kv_groups) {
    if (group.kind == KvKind::kRecurrentState) {
      return unsupported("kv_groups: recurrent state is not kept in blocks yet");
    }
    const bool windowed = group.kind == KvKind::kWindowed;
    if (windowed) PM_TRY(at_least("window", group.window, 1));
    layout.windows.push_back(windowed ? group.window : 0);
  }
  return std::unique_ptr<Scheduler>(new Scheduler(std::move(config), std::move(layout)));
}

std::int64_t Scheduler::blocks_at_full_length(std::int32_t prompt_len,
                                              std::int32_t max_tokens,
                                              std::int32_t num_sequences) const {
  const std::int64_t end =
      std::min<std::int64_t>(config_.max_model_len, std::int64_t{prompt_len} + max_tokens);
  // The last token is sampled, but never computed.
  const auto length = static_cast<std::int32_t>(std::max<std::int64_t>(prompt_len, end - 1));
  std::int64_t needed = 0;
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    const std::int32_t shared = layout_.windows[group] > 0 ? 0 : prompt_len / config_.block_size;
    const std::int64_t held =
        layout_.max_blocks_held(group, length, config_.max_num_batched_tokens);
    needed += shared + num_sequences * (held - shared);
  }
  return needed;
}

std::int64_t Scheduler::blocks_to_reserve(std::int32_t prompt_len,
                                          std::int32_t max_tokens,
                                          std::int32_t num_sequences) const {
  const std::int32_t output = std::min(max_tokens, config_.max_model_len - prompt_len);
  std::int64_t tokens = 0;
  switch (config_.reservation) {
    case Reservation::kNone:
      return 0;
    case Reservation::kMax:
      tokens = config_.max_model_len;
      break;
    case Reservation::kPowerOfTwo:
      tokens = prompt_len + std::int64_t{std::bit_ceil(static_cast<std::uint32_t>(output))};
      break;
    case Reservation::kOracle:
      tokens = prompt_len + output;
  }
  const std::int64_t blocks = (tokens + config_.block_size - 1) / config_.block_size;
  return blocks * num_sequences * layout_.num_groups();
}

// Blocks that the request holds once every sequence has caught up with its tokens.
std::int64_t Scheduler::blocks_to_resume(const ScheduledRequest& request) const {
  std::int64_t needed = 0;
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    const std::int32_t shared =
        layout_.windows[group] > 0 ? 0 : request.fork_len / config_.block_size;
    needed += shared;
    for (const auto& sequence : request.sequences) {
      needed +=
          layout_.max_blocks_held(group, sequence->num_tokens(), config_.max_num_batched_tokens) -
          shared;
    }
  }
  return needed;
}

Status Scheduler::add_request(Request request) {
  PM_CHECK(requests_.count(request.id) == 0, "request {} exists", request.id);
  const auto prompt_len = static_cast<std::int32_t>(request.prompt_token_ids.size());
  const std::int32_t num_sequences = request.params.num_sequences();
  if (prompt_len == 0) return invalid_argument("prompt: expected at least one token", "prompt");
  if (prompt_len >= config_.max_model_len) {
    return invalid_argument(
        fmt::format("prompt: {} tokens leave no room for output: max_model_len is {}",
                    prompt_len,
                    config_.max_model_len),
        "prompt");
  }
  if (num_sequences > config_.max_num_seqs) {
    return invalid_argument(fmt::format("{}: {} sequences are more than max_num_seqs, {}",
                                        request.params.width_field(),
                                        num_sequences,
                                        config_.max_num_seqs),
                            request.params.width_field());
  }
  const std::int64_t reserved =
      blocks_to_reserve(prompt_len, request.params.max_tokens, num_sequences);
  const std::int64_t needed = std::max(
      reserved, blocks_at_full_length(prompt_len, request.params.max_tokens, num_sequences));
  if (needed > config_.num_blocks - 1) {
    return invalid_argument(
        fmt::format("max_tokens: {} prompt tokens and up to {} more in {} sequence(s) need {} KV "
                    "blocks of {} tokens, but there are {}",
                    prompt_len,
                    std::min(request.params.max_tokens, config_.max_model_len - prompt_len),
                    num_sequences,
                    needed,
                    config_.block_size,
                    config_.num_blocks - 1),
        "max_tokens");
  }
  if (waiting_.size() >= config_.max_queued_requests) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("{} requests are waiting: try again later", waiting_.size()),
                 {}};
  }
  auto added = std::make_unique<ScheduledRequest>();
  added->id = request.id;
  added->priority = config_.policy == SchedulingPolicy::kPriority ? request.priority : 0;
  added->arrival = next_arrival_++;
  added->prompt_len = prompt_len;
  added->max_len = static_cast<std::int32_t>(std::min<std::int64_t>(
      config_.max_model_len, std::int64_t{prompt_len} + request.params.max_tokens));
  added->root = sequence_root(root_, {}, request.cache_salt);
  added->num_reserved_blocks = reserved;
  added->fork_len = prompt_len;
  added->spawned = num_sequences == 1 || request.params.use_beam_search;
  added->params = std::make_shared<const SamplingParams>(std::move(request.params));
  if (added->params->use_beam_search) {
    added->beams = std::make_unique<BeamGroup>(added->params, added->max_len - prompt_len);
  }
  add_sequence(*added, 0).tokens = std::move(request.prompt_token_ids);
  waiting_.enter(*added, request.user);
  requests_.emplace(added->id, std::move(added));
  return ok_status();
}

void Scheduler::admit_waiting(StepPlan& plan) {
  while (budget_ > 0 && !waiting_.empty()) {
    ScheduledRequest& request = waiting_.front();
    if (num_running_seqs_ + request.num_places() > config_.max_num_seqs) return;
    // Preempted while a step samples for it: wait for that token.
    const auto in_flight = [](const auto& s) { return s->num_in_flight + s->num_pending > 0; };
    if (std::any_of(request.sequences.begin(), request.sequences.end(), in_flight)) return;
    if (!try_admit(request, plan)) return;
  }
}

// Admits the request if all its known tokens fit beside what runs: a first chunk alone would be
// preempted again soon.
bool Scheduler::try_admit(ScheduledRequest& request, StepPlan& plan) {
  if (num_reserved_blocks_ + request.num_reserved_blocks > config_.num_blocks - 1) return false;
  PrefixHit hit = find_hit(request);
  const std::int32_t num_loadable = find_loadable(request, hit.num_blocks());
  if (num_loadable > hit.num_blocks()) hit.num_copied = 0;  // that block and more can be read
  if (!has_room(request, hit)) {
    // The block to copy from takes room as well, which a request alone may lack.
    if (hit.num_copied == 0) return false;
    hit.num_copied = 0;
    if (!has_room(request, hit)) return false;
  }

  waiting_.erase(request);
  running_.push_back(&request);
  request.running = true;
  num_running_seqs_ += request.num_places();
  num_reserved_blocks_ += request.num_reserved_blocks;
  Sequence& leader = request.leader();
  copies_.clear();
  leader.blocks.adopt(hit, copies_, step_->pins);
  for (const BlockWrite& copy : copies_) {
    plan.copies.push_back({copy.group, copy.source, copy.target});
  }
  const std::int32_t hit_tokens = hit.num_tokens(layout_);
  leader.num_computed = hit_tokens;
  leader.load_end = num_loadable * config_.block_size;
  counters_.copied_hits += hit.num_copied;
  if (!request.admitted_before) {
    request.admitted_before = true;
    newly_admitted_.push_back({request.id, hit_tokens});
    waiting_.charge_input(*request.tenant, request.prompt_len - hit_tokens);
    counters_.prompt_tokens += request.prompt_len;
    counters_.prefix_cache_hits += hit_tokens;
    if (config_.enable_prefix_caching) counters_.prefix_cache_queries += request.prompt_len;
  } else {
    counters_.resumed_hits += hit_tokens;
  }
  if (tier_) counters_.tier_queries += leader.num_tokens() - hit_tokens;
  if (leader.loads()) {
    gather_load(request);
    PM_CHECK(blocks_needed(pool_, layout_, growths_) <= pool_.num_available());
    carry_out_load(leader, plan);
    return true;
  }
  gather_growths(request);
  PM_CHECK(blocks_needed(pool_, layout_, growths_) <= pool_.num_available());
  plan_request(request, plan);
  if (leader.num_computed < request.prompt_len) ++counters_.chunked_prefills;
  return true;
}

bool Scheduler::has_room(const ScheduledRequest& request, const PrefixHit& hit) const {
  std::int64_t needed = blocks_to_resume(request);
  for (std::int32_t group = 0; group < layout_.num_groups(); ++group) {
    const std::int32_t first = layout_.first_live_block(group, hit.num_tokens(layout_));
    needed -= hit.num_blocks() - std::min(hit.num_blocks(), first);
  }
  needed += SequenceBlocks::num_unreferenced(pool_, layout_, hit);
  if (!running_.empty()) needed += static_cast<std::int64_t>(headroom_);
  return needed <= pool_.num_available();
}

// What of the cache the leader may start from. At least one token is left to compute, for its
// logits; siblings fork at the end of what they share, so a hit ends before it.
PrefixHit Scheduler::find_hit(ScheduledRequest& request) const {
  if (!config_.enable_prefix_caching || request.wants_prompt_logprobs()) return {};
  Sequence& leader = request.leader();
  extend_hashes(leader.hashes, request.root, leader.tokens, config_.block_size);
  const std::int32_t end = request.awaits_fork() ? request.fork_len : leader.num_tokens();
  const auto tokens = std::span<const TokenId>(leader.tokens).first(end - 1);
  const auto hashes = std::span<const Digest>(leader.hashes).first((end - 1) / config_.block_size);
  return SequenceBlocks::find_hit(pool_, layout_, request.root, hashes, tokens);
}

Scheduler::Fit Scheduler::make_room(const ScheduledRequest& request, std::int32_t num_needed) {
  while (pool_.num_available() < num_needed) {
    if (pool_.num_available() + pool_.stats().pinned >= num_needed) return Fit::kStalled;
    ScheduledRequest& victim = *running_.back();
    PM_CHECK(running_.size() > 1, "request {} does not fit alone", victim.id);
    const bool is_self = &victim == &request;
    if (!is_self) owed_ -= victim.num_places();
    preempt(victim);
    if (is_self) return Fit::kPreempted;
  }
  return Fit::kPlanned;
}

void Scheduler::preempt(ScheduledRequest& request) {
  std::erase(running_, &request);
  num_running_seqs_ -= request.num_places();
  num_reserved_blocks_ -= request.num_reserved_blocks;
  std::int32_t num_taken = 0;
  for (const auto& sequence : request.sequences) {
    num_taken += release(*sequence);
    sequence->num_computed = sequence->load_end = 0;
    sequence->load_in_flight = false;
    ++sequence->incarnation;
  }
  request.running = false;
  request.forked = false;
  if (request.beams) {
    request.beams->drop_candidates();
    request.fork_len = common_length(request);
  }
  waiting_.insert(request);
  preempted_ = true;
  ++counters_.preemptions;
  adapt_headroom(num_taken, 0);
}

void Scheduler::adapt_headroom(std::int32_t num_taken, std::int32_t num_given_back) {
  // The fair policy's bounds need that whoever waits is let in as soon as it fits.
  if (!config_.admission_headroom || config_.policy == SchedulingPolicy::kFair) return;
  const double wanted = headroom_ + kHeadroomGrowth * num_taken - kHeadroomDecay * num_given_back;
  headroom_ = std::clamp(wanted, 0.0, kMaxHeadroom * config_.num_blocks);
}

}  // namespace pagemill
