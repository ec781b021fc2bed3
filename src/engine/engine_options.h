// EngineOptions: what `pagemill serve` and the library take to start an engine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pagemill {

struct EngineOptions {
  std::string model;  // a GGUF file or a Hugging Face directory
  // While `model` is still a name on the Hugging Face Hub: its branch, tag or commit, and the GGUF
  // file wanted of it (empty: whatever fits).
  std::string revision = "main";
  std::string gguf_file;
  std::string dtype = "auto";  // auto | float32 | bfloat16; a GGUF file is expanded unless auto
  std::string kv_cache_dtype = "auto";     // auto | float32 | bfloat16
  std::string chat_template;               // a file or a built-in name; empty: the model's own
  std::int32_t threads = 0;                // 0: default_num_threads()
  std::int32_t block_size = 16;            // tokens, a multiple of 16
  std::int64_t kv_cache_memory_bytes = 0;  // 0: a share of free memory
  std::int32_t max_model_len = 0;          // 0: the model's
  std::int32_t max_num_batched_tokens = 2048;
  std::int32_t max_num_seqs = 256;
  std::int32_t max_queued_requests = 4096;
  bool enable_prefix_caching = true;
  std::string scheduling_policy = "fcfs";  // fcfs | priority | fair
  // Under the fair policy: what a computed prompt token and a generated one count for.
  std::int32_t fair_input_weight = 1, fair_output_weight = 2;
  // Evicted KV blocks are kept in this directory (empty: nowhere) and found there after a restart.
  std::string kv_disk_path;
  std::int64_t kv_disk_bytes = std::int64_t{4} << 30;  // the most that they take
  std::string preemption_mode = "auto";                // recompute | swap | auto
  bool admission_headroom = true;                      // see SchedulerConfig
  // The time between two tokens of a stream that prompts may not push a step above; 0: any.
  double target_itl_ms = 0;
  // Where each step's time goes is written there, in the Chrome trace format; empty: nowhere.
  std::string profile_path;
  std::int64_t profile_bytes = std::int64_t{256} << 20;  // the most of that file
  std::uint64_t seed = 0;  // base for requests without a seed; 0: from the clock
  // Benches only: memory set aside as by a contiguous cache: none | max | pow2 | oracle.
  std::string kv_reservation = "none";
  // Tests only.
  std::optional<std::int32_t> num_blocks_override;
  bool poison_free_blocks = false;  // fill free and fresh blocks with NaN
};

}  // namespace pagemill
