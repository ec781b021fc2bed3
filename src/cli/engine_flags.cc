#include <cstdio>

#include "cli/commands.h"
#include "hub/model_path.h"

namespace pagemill::cli {

void add_engine_options(CLI::App& command, EngineOptions& options) {
  command
      .add_option("MODEL",
                  options.model,
                  "A GGUF file, a Hugging Face directory, 'demo', or org/name or org/name:QUANT of "
                  "the Hugging Face Hub")
      ->required();
  command
      .add_option("--revision",
                  options.revision,
                  "Of a model on the Hub: a branch, a tag, a commit or refs/pr/N")
      ->capture_default_str();
  command.add_option("--gguf-file",
                     options.gguf_file,
                     "The GGUF file to take of MODEL, a repository on the Hub or a directory");
  command
      .add_option("--dtype",
                  options.dtype,
                  "auto (weights as stored), float32 or bfloat16 (converted; GGUF is expanded)")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str();
  command.add_option("--kv-cache-dtype", options.kv_cache_dtype, "auto, float32 or bfloat16")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->capture_default_str();
  command.add_option("--chat-template",
                     options.chat_template,
                     "A Jinja file, or one of chatml, llama2, vicuna (default: the model's)");
  command.add_option("--threads",
                     options.threads,
                     "Compute threads (default: one per physical core that the process may use)");
  command.add_option("--block-size", options.block_size, "Tokens of a KV block, a multiple of 16")
      ->capture_default_str();
  command
      .add_option("--kv-cache-memory",
                  options.kv_cache_memory_bytes,
                  "Most that the KV cache may grow to, e.g. 2GiB (default: half of free memory)")
      ->transform(CLI::AsSizeValue(false));
  command.add_option("--max-model-len",
                     options.max_model_len,
                     "Most tokens of a sequence, prompt and output (default: the model's)");
  command
      .add_option(
          "--max-num-batched-tokens", options.max_num_batched_tokens, "Most tokens of a step")
      ->capture_default_str();
  command.add_option("--max-num-seqs", options.max_num_seqs, "Most sequences that run at once")
      ->capture_default_str();
  command
      .add_option("--max-queued-requests",
                  options.max_queued_requests,
                  "Most requests that wait; past it clients hear 429")
      ->capture_default_str();
  command.add_flag("!--no-prefix-caching",
                   options.enable_prefix_caching,
                   "Do not keep full blocks for prompts that begin alike");
  command.add_flag("!--no-admission-headroom",
                   options.admission_headroom,
                   "Admit whatever fits now: fuller memory, more preemptions");
  command
      .add_option("--target-itl-ms",
                  options.target_itl_ms,
                  "Prompts get smaller chunks so that running streams get a token at least this "
                  "often; 0: chunks as large as --max-num-batched-tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--kv-disk-path",
                     options.kv_disk_path,
                     "A directory where evicted KV blocks are kept, also for the next start");
  command
      .add_option("--kv-disk-size", options.kv_disk_bytes, "Most that they take there, e.g. 8GiB")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command
      .add_option("--preemption-mode",
                  options.preemption_mode,
                  "How a preempted request comes back: recompute, swap (from --kv-disk-path), or "
                  "auto: the cheaper by measurement")
      ->check(CLI::IsMember({"recompute", "swap", "auto"}))
      ->capture_default_str();
  command
      .add_option("--scheduling-policy",
                  options.scheduling_policy,
                  "fcfs, priority, or fair: between tenants, by API key or `user`")
      ->check(CLI::IsMember({"fcfs", "priority", "fair"}))
      ->capture_default_str();
  command
      .add_option("--fair-input-weight",
                  options.fair_input_weight,
                  "Under the fair policy: what a computed prompt token counts for")
      ->capture_default_str();
  command
      .add_option("--fair-output-weight",
                  options.fair_output_weight,
                  "Under the fair policy: what a generated token counts for")
      ->capture_default_str();
  command.add_option("--profile",
                     options.profile_path,
                     "A file for where each step's time goes: a Chrome trace, for ui.perfetto.dev");
  command
      .add_option("--profile-size",
                  options.profile_bytes,
                  "Most that it takes; steps past it are counted, not kept")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  command.add_option(
      "--seed", options.seed, "Base for requests without a seed (default: from the clock)");
}

Status resolve_model(EngineOptions& options) {
  PM_ASSIGN(options.model,
            resolve_model_path(options.model, {options.revision, options.gguf_file}));
  return ok_status();
}

int fail(const Error& error) {
  std::fprintf(stderr, "pagemill: error: %s\n", error.message.c_str());
  return 1;
}

}  // namespace pagemill::cli
