// GET /metrics: Prometheus text (docs/metrics.md), also while the server drains.
#include "server/endpoints/endpoints.h"

namespace pagemill {
namespace {

EngineSnapshot snapshot(const EngineStats& stats) {
  EngineSnapshot out;
  out.num_requests_running = stats.num_requests_running;
  out.num_requests_waiting = stats.num_requests_waiting;
  out.kv_cache_usage = stats.kv_cache_usage;
  out.kv_cache_waste = stats.kv_cache_waste;
  out.blocks_free = stats.num_blocks_free;
  out.blocks_cached = stats.num_blocks_cached;
  out.blocks_referenced = stats.num_blocks_referenced;
  out.blocks_pinned = stats.num_blocks_pinned;
  out.blocks_saved = static_cast<double>(stats.num_blocks_saved);
  out.empty_slots = static_cast<double>(stats.num_empty_slots);
  out.block_size = stats.block_size;
  out.block_bytes = static_cast<double>(stats.block_bytes);
  out.num_preemptions = stats.num_preemptions;
  out.prefix_cache_queries = stats.prefix_cache_queries;
  out.prefix_cache_hits = stats.prefix_cache_hits;
  out.prompt_tokens = stats.prompt_tokens;
  out.generation_tokens = stats.generation_tokens;
  out.steps = stats.steps;
  out.chunked_prefills = stats.chunked_prefills;
  out.copy_on_writes = stats.copy_on_writes;
  out.tier_queries = stats.tier_queries;
  out.tier_hits = stats.tier_hits;
  out.tier_saved_bytes = stats.tier_saved_bytes;
  out.tier_loaded_bytes = stats.tier_loaded_bytes;
  out.tier_failed_loads = stats.tier_failed_loads;
  out.prefix_cache_copied = stats.prefix_cache_copied;
  out.step_seconds = stats.step_seconds;
  out.iteration_tokens = stats.iteration_tokens;
  out.corrupted_requests = stats.corrupted_requests;
  return out;
}

Status handle(const ServerContextPtr& context,
              const HttpRequest&,
              const ResponseWriterPtr& writer) {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = context->metrics->render(snapshot(context->engine.stats()));
  writer->send(std::move(response));
  return ok_status();
}

}  // namespace

const Endpoint kMetrics = {"GET", "/metrics", true, handle, true};

}  // namespace pagemill
