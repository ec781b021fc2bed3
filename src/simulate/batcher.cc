#include "simulate/batcher.h"

#include <fmt/format.h>

namespace pagemill {
namespace {

struct Name {
  BatchPolicy policy;
  const char* name;
};
constexpr Name kNames[] = {
    {BatchPolicy::kPaged, "paged"},
    {BatchPolicy::kPagedFull, "paged-full"},
    {BatchPolicy::kOrcaMax, "orca-max"},
    {BatchPolicy::kOrcaPow2, "orca-pow2"},
    {BatchPolicy::kOrcaOracle, "orca-oracle"},
    {BatchPolicy::kStatic, "static"},
};

}  // namespace

Result<BatchPolicy> parse_batch_policy(const std::string& name) {
  for (const Name& entry : kNames) {
    if (name == entry.name) return entry.policy;
  }
  return invalid_argument(fmt::format("--policy: expected paged, paged-full, orca-max, orca-pow2, "
                                      "orca-oracle or static, got '{}'",
                                      name),
                          "policy");
}

const char* to_string(BatchPolicy policy) {
  for (const Name& entry : kNames) {
    if (policy == entry.policy) return entry.name;
  }
  return "unknown";
}

Result<std::unique_ptr<Batcher>> make_batcher(BatchPolicy policy,
                                              const BatcherConfig& config,
                                              const Trace& trace) {
  const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) -> Status {
    if (value >= least) return ok_status();
    return invalid_argument(
        fmt::format("{}: expected an integer >= {}, got {}", name, least, value), name);
  };
  PM_TRY(at_least("max_model_len", config.max_model_len, 2));
  PM_TRY(at_least("max_num_seqs", config.max_num_seqs, 1));
  PM_TRY(at_least("max_num_batched_tokens", config.max_num_batched_tokens, 1));
  PM_TRY(at_least("kv_slots", config.kv_slots, 2));
  switch (policy) {
    case BatchPolicy::kPaged:
      return make_paged_batcher(config, trace, /*admission_headroom=*/true);
    case BatchPolicy::kPagedFull:
      return make_paged_batcher(config, trace, /*admission_headroom=*/false);
    case BatchPolicy::kStatic:
      PM_TRY(
          at_least("kv_slots (one row of max_model_len)", config.kv_slots, config.max_model_len));
      return make_static_batcher(config, trace);
    default:
      return make_contiguous_batcher(policy, config, trace);
  }
}

}  // namespace pagemill
