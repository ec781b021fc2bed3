// pagemill inspect MODEL: what a model's files hold and what serving it would take; or, with
// --memory URL, what a running server's KV memory holds.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/memory_report.h"
#include "engine/loaded_model.h"
#include "engine/memory_budget.h"
#include "layers/kv_storage.h"

namespace pagemill::cli {
namespace {

struct InspectOptions {
  EngineOptions engine;
  bool tensors = false;
  std::string memory_url;
};

std::string mebibytes(std::int64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string shape_of(const TensorView& view) {
  return fmt::format("[{}]", fmt::join(view.shape, ", "));
}

void print_tensors(const Checkpoint& checkpoint, bool each) {
  std::map<std::string_view, std::pair<std::int64_t, std::int64_t>> by_dtype;  // count, bytes
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    auto& [count, bytes] = by_dtype[dtype_info(tensor.view.dtype).name];
    ++count;
    bytes += static_cast<std::int64_t>(tensor.view.bytes());
  }
  fmt::print("tensors            {}\n", checkpoint.tensors().size());
  for (const auto& [name, totals] : by_dtype) {
    fmt::print("  {:<16} {} tensors, {}\n", name, totals.first, mebibytes(totals.second));
  }
  if (!each) return;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    fmt::print("  {:<48} {:<6} {:<16} {}\n",
               tensor.name,
               dtype_info(tensor.view.dtype).name,
               shape_of(tensor.view),
               tensor.source_name == tensor.name ? "" : tensor.source_name);
  }
}

void print_tokenizer(const LoadedModel& loaded) {
  if (!loaded.tokenizer) {
    fmt::print("tokenizer          none: token ids only\n");
    return;
  }
  const Tokenizer& tokenizer = *loaded.tokenizer;
  fmt::print("tokenizer          {}, {} tokens\n", tokenizer.kind(), tokenizer.vocab_size());
  std::string ends;
  for (TokenId id : loaded.info.eos_token_ids) {
    ends += fmt::format("{}{} {}", ends.empty() ? "" : ", ", id, tokenizer.token_piece(id));
  }
  fmt::print("  end of text      {}\n", ends);
  fmt::print("chat template      {}\n", loaded.chat_template ? "yes" : "none");
  if (!tokenizer.chat_template().empty()) fmt::print("{}\n", tokenizer.chat_template());
}

Status print_memory(const InspectOptions& options, const LoadedModel& loaded) {
  const ModelSpec& spec = loaded.model->spec();
  PM_ASSIGN(const MemoryBudget budget,
            plan_memory(options.engine, spec.kv_specs, loaded.kv_dtype, spec.max_model_len));
  fmt::print("memory plan\n");
  fmt::print("  weights          {} packed\n",
             mebibytes(static_cast<std::int64_t>(spec.weight_bytes)));
  fmt::print("  free             {}\n", mebibytes(budget.free_bytes));
  fmt::print("  KV cache         {} at most: {} blocks of {} tokens, {} bytes a token ({})\n",
             mebibytes(budget.kv_cache_bytes),
             budget.num_blocks,
             budget.block_size,
             budget.bytes_per_block / budget.block_size,
             dtype_info(loaded.kv_dtype).name);
  return ok_status();
}

int inspect_server(const std::string& url) {
  const auto report = fetch_memory_report(url);
  if (!report.ok()) return fail(report.error());
  fmt::print("{}", *report);
  return 0;
}

int inspect(InspectOptions& options) {
  if (!options.memory_url.empty()) return inspect_server(options.memory_url);
  if (options.engine.model.empty()) {
    return fail(invalid_argument("inspect: expected MODEL, or --memory URL"));
  }
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  auto loaded = load_engine_model(options.engine);
  if (!loaded.ok()) return fail(loaded.error());
  const ModelSpec& spec = loaded->model->spec();
  const auto& config = loaded->checkpoint->config();
  fmt::print("model              {}\n", options.engine.model);
  fmt::print("architecture       {}\n", spec.architecture);
  fmt::print("parameters         {:.1f} M\n", static_cast<double>(spec.num_parameters) / 1e6);
  fmt::print("computes in        {} ({})\n", spec.dtype, to_string(loaded->isa));
  fmt::print("layers             {}\n", spec.num_layers);
  fmt::print("hidden size        {}\n", spec.hidden_size);
  for (const char* key : {"intermediate_size",
                          "num_attention_heads",
                          "num_key_value_heads",
                          "rope_theta",
                          "rope_scaling",
                          "sliding_window"}) {
    if (config.contains(key) && !config[key].is_null())
      fmt::print("{:<18} {}\n", key, config[key].dump());
  }
  fmt::print("max model len      {}\n", spec.max_model_len);
  print_tensors(*loaded->checkpoint, options.tensors);
  if (const Status status = print_memory(options, *loaded); !status.ok())
    return fail(status.error());
  print_tokenizer(*loaded);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, ExitStatus& status) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Show a model's architecture, tensors, memory plan, tokenizer and chat template");
  auto options = std::make_shared<InspectOptions>();
  add_engine_options(*command, options->engine);
  command->get_option("MODEL")->required(false);
  command->add_flag("--tensors", options->tensors, "List every tensor");
  command->add_option("--memory",
                      options->memory_url,
                      "Instead, what the KV memory of the server at http://HOST:PORT holds now");
  command->callback([options, &status] { status.code = inspect(*options); });
}

}  // namespace pagemill::cli
