// Fuzzes traces: whatever parses is safe to replay.
#include <cstdlib>

#include "simulate/batcher.h"
#include "simulate/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pagemill;
  auto parsed = parse_trace(std::string_view(reinterpret_cast<const char*>(data), size), "fuzzed");
  if (!parsed.ok()) return 0;
  Trace trace = with_hash_block_tokens(std::move(parsed).value(), 16);
  BatcherConfig config;
  config.kv_slots = 4096;
  config.max_model_len = 512;
  clip_to_model_len(trace, config.max_model_len);
  const auto batcher = make_batcher(BatchPolicy::kPaged, config, trace).value();
  StepLoad load;
  std::vector<TokenEvent> events;
  for (std::size_t i = 0; i < trace.requests.size() && i < 16; ++i) {
    if (!batcher->add(static_cast<std::int32_t>(i)).ok()) std::abort();
  }
  for (int step = 0; step < 64 && batcher->plan(load); ++step) batcher->commit(0, events);
  batcher->check_invariants();
  return 0;
}
