// pagemill generate MODEL: one prompt streamed to the terminal, or a file of prompts as an offline
// batch.
//
// --prompts takes JSON lines, each {"prompt": TEXT} or {"prompt_token_ids": [..]} or {"messages":
// [..]}, with an optional "id" and sampling fields of its own ("max_tokens", "temperature", ...).
// --output gets a JSON line for each, in the order of the input.
#include <fmt/format.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/sampling_flags.h"
#include "engine/engine_client.h"

namespace pagemill::cli {
namespace {

using nlohmann::json;

struct GenerateOptions {
  EngineOptions engine;
  SamplingFlags sampling;
  std::string prompt, prompts_file, output_file;
  bool chat = false;
};

// Where a prompt of the batch came from, for errors, and what became of it.
struct BatchItem {
  std::int64_t line = 0;
  json id;
  Request request;
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> token_ids;
  std::vector<FinishReason> finish_reasons;
  Usage usage;
  std::optional<Error> error;
  bool done = false;
};

Result<std::vector<TokenId>> encode_messages(const EngineClient& engine, const json& messages) {
  if (!engine.chat_template())
    return invalid_argument("the model has no chat template (--chat-template)");
  const json context = {{"messages", messages}, {"add_generation_prompt", true}};
  PM_ASSIGN(const std::string text, engine.chat_template()->render(context.dump()));
  return engine.tokenizer()->encode(text, false);
}

Result<std::vector<TokenId>> encode_prompt(const EngineClient& engine,
                                           const std::string& text,
                                           bool chat) {
  if (!engine.tokenizer())
    return invalid_argument("the model has no tokenizer: give prompt_token_ids");
  if (chat) return encode_messages(engine, json::array({{{"role", "user"}, {"content", text}}}));
  return engine.tokenizer()->encode(text, true);
}

template <typename T>
Status read_field(const json& object, const char* key, T* out) {
  const auto it = object.find(key);
  if (it == object.end()) return ok_status();
  try {
    *out = it->get<T>();
    return ok_status();
  } catch (const json::exception&) {
    return invalid_argument(fmt::format("{}: unexpected {}", key, it->type_name()), key);
  }
}

Status read_sampling(const json& object, SamplingParams* params) {
  PM_TRY(read_field(object, "max_tokens", &params->max_tokens));
  PM_TRY(read_field(object, "temperature", &params->temperature));
  PM_TRY(read_field(object, "top_p", &params->top_p));
  PM_TRY(read_field(object, "top_k", &params->top_k));
  PM_TRY(read_field(object, "n", &params->n));
  PM_TRY(read_field(object, "stop", &params->stop));
  PM_TRY(read_field(object, "ignore_eos", &params->ignore_eos));
  std::uint64_t seed = 0;
  PM_TRY(read_field(object, "seed", &seed));
  if (object.contains("seed")) params->seed = seed;
  return ok_status();
}

Status read_item(const EngineClient& engine,
                 const std::string& line,
                 const SamplingParams& defaults,
                 bool chat,
                 BatchItem* item) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object()) return invalid_argument("expected a JSON object");
  item->id = object.value("id", json(item->line));
  item->request.params = defaults;
  PM_TRY(read_sampling(object, &item->request.params));
  if (object.contains("prompt_token_ids")) {
    return read_field(object, "prompt_token_ids", &item->request.prompt_token_ids);
  }
  if (object.contains("messages")) {
    PM_ASSIGN(item->request.prompt_token_ids, encode_messages(engine, object["messages"]));
    return ok_status();
  }
  if (!object.contains("prompt") || !object["prompt"].is_string()) {
    return invalid_argument("expected a field prompt (string), prompt_token_ids or messages",
                            "prompt");
  }
  PM_ASSIGN(item->request.prompt_token_ids,
            encode_prompt(engine, object["prompt"].get<std::string>(), chat));
  return ok_status();
}

class BatchRun {
 public:
  BatchRun(EngineClient& engine, std::vector<BatchItem>& items)
      : engine_(engine), items_(items), is_terminal_(isatty(STDERR_FILENO) != 0) {}

  // Keeps the engine's queue filled, and returns when every item is done.
  void run() {
    const double begin = monotonic_seconds();
    for (std::size_t i = 0; i < items_.size(); ++i) submit(i);
    std::unique_lock lock(mutex_);
    while (num_done_ < items_.size()) {
      changed_.wait_for(lock, std::chrono::milliseconds(200));
      if (is_terminal_) show_progress(monotonic_seconds() - begin);
    }
    show_progress(monotonic_seconds() - begin);
    std::fputc('\n', stderr);
  }

 private:
  void submit(std::size_t index) {
    BatchItem& item = items_[index];
    item.texts.resize(item.request.params.n);
    item.token_ids.resize(item.request.params.n);
    item.finish_reasons.resize(item.request.params.n);
    while (!item.error) {
      auto submitted = engine_.submit(
          item.request, [this, index](const RequestDelta& delta) { take(index, delta); });
      if (submitted.ok()) return;
      if (submitted.error().code != ErrorCode::kResourceExhausted) item.error = submitted.error();
      if (!item.error) wait_for_progress();
    }
    const std::lock_guard lock(mutex_);
    item.done = true;
    ++num_done_;
  }

  void wait_for_progress() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(50));
  }

  void take(std::size_t index, const RequestDelta& delta) {
    const std::lock_guard lock(mutex_);
    BatchItem& item = items_[index];
    for (const CompletionDelta& completion : delta.completions) {
      item.texts[completion.index] += completion.text;
      auto& ids = item.token_ids[completion.index];
      ids.insert(ids.end(), completion.token_ids.begin(), completion.token_ids.end());
      num_tokens_ += completion.token_ids.size();
      if (completion.finish_reason != FinishReason::kNone) {
        item.finish_reasons[completion.index] = completion.finish_reason;
      }
    }
    if (!delta.finished) return;
    item.usage = delta.usage;
    item.error = delta.error;
    item.done = true;
    ++num_done_;
    changed_.notify_all();
  }

  void show_progress(double seconds) const {
    constexpr std::size_t kBarWidth = 30;
    const std::size_t filled = items_.empty() ? kBarWidth : kBarWidth * num_done_ / items_.size();
    fmt::print(stderr,
               "{}[{}{}] {}/{} prompts, {} tokens, {:.1f} tokens/s",
               is_terminal_ ? "\r" : "",
               std::string(filled, '#'),
               std::string(kBarWidth - filled, '.'),
               num_done_,
               items_.size(),
               num_tokens_,
               static_cast<double>(num_tokens_) / std::max(seconds, 1e-9));
    std::fflush(stderr);
  }

  EngineClient& engine_;
  std::vector<BatchItem>& items_;
  const bool is_terminal_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t num_done_ = 0;
  std::size_t num_tokens_ = 0;
};

json to_json(const BatchItem& item) {
  json line = {{"id", item.id}};
  if (item.error) {
    line["error"] = {{"message", item.error->message}, {"param", item.error->param}};
    return line;
  }
  line["outputs"] = json::array();
  for (std::size_t i = 0; i < item.texts.size(); ++i) {
    line["outputs"].push_back({{"index", i},
                               {"text", item.texts[i]},
                               {"token_ids", item.token_ids[i]},
                               {"finish_reason", to_string(item.finish_reasons[i])}});
  }
  line["usage"] = {{"prompt_tokens", item.usage.prompt_tokens},
                   {"completion_tokens", item.usage.completion_tokens},
                   {"cached_tokens", item.usage.cached_tokens}};
  return line;
}

Result<std::vector<BatchItem>> read_batch(const EngineClient& engine,
                                          const GenerateOptions& options) {
  std::ifstream file(options.prompts_file);
  if (!file) return not_found(fmt::format("--prompts: cannot open '{}'", options.prompts_file));
  const SamplingParams defaults = options.sampling.apply(engine.model().default_sampling);
  std::vector<BatchItem> items;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    if (line.empty()) continue;
    BatchItem item;
    item.line = number;
    if (const Status status = read_item(engine, line, defaults, options.chat, &item);
        !status.ok()) {
      item.error = status.error();
      item.error->message =
          fmt::format("{}:{}: {}", options.prompts_file, number, item.error->message);
    }
    items.push_back(std::move(item));
  }
  return items;
}

int generate_batch(EngineClient& engine, const GenerateOptions& options) {
  auto items = read_batch(engine, options);
  if (!items.ok()) return fail(items.error());
  std::ofstream file;
  if (!options.output_file.empty()) {
    file.open(options.output_file);
    if (!file)
      return fail(io_error(fmt::format("--output: cannot write '{}'", options.output_file)));
  }
  BatchRun(engine, *items).run();
  std::ostream& out = options.output_file.empty() ? std::cout : file;
  std::int64_t num_failed = 0;
  for (const BatchItem& item : *items) {
    out << to_json(item).dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
    num_failed += item.error ? 1 : 0;
    if (item.error) fail(*item.error);
  }
  return num_failed == 0 ? 0 : 1;
}

int generate_one(EngineClient& engine, const GenerateOptions& options) {
  auto prompt = encode_prompt(engine, options.prompt, options.chat);
  if (!prompt.ok()) return fail(prompt.error());
  Request request;
  request.prompt_token_ids = std::move(prompt).value();
  request.params = options.sampling.apply(engine.model().default_sampling);
  if (request.params.n != 1)
    return fail(invalid_argument("--n: one answer is streamed; use --prompts for more"));
  std::mutex mutex;
  std::condition_variable finished;
  bool done = false;
  std::optional<Error> error;
  auto submitted = engine.submit(std::move(request), [&](const RequestDelta& delta) {
    for (const CompletionDelta& completion : delta.completions) {
      std::fwrite(completion.text.data(), 1, completion.text.size(), stdout);
      std::fflush(stdout);
    }
    if (!delta.finished) return;
    const std::lock_guard lock(mutex);
    error = delta.error;
    done = true;
    finished.notify_one();
  });
  if (!submitted.ok()) return fail(submitted.error());
  std::unique_lock lock(mutex);
  finished.wait(lock, [&] { return done; });
  std::fputc('\n', stdout);
  return error ? fail(*error) : 0;
}

int generate(GenerateOptions& options) {
  if (options.prompt.empty() == options.prompts_file.empty()) {
    return fail(invalid_argument("give either -p TEXT or --prompts FILE"));
  }
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  auto engine = EngineClient::start(options.engine);
  if (!engine.ok()) return fail(engine.error());
  return options.prompts_file.empty() ? generate_one(**engine, options)
                                      : generate_batch(**engine, options);
}

}  // namespace

void add_generate(CLI::App& app, ExitStatus& status) {
  CLI::App* command =
      app.add_subcommand("generate", "Generate from a prompt, or from a file of prompts");
  auto options = std::make_shared<GenerateOptions>();
  add_engine_options(*command, options->engine);
  options->sampling.add_to(*command);
  command->add_option(
      "-p,--prompt", options->prompt, "The prompt; its continuation is streamed to the terminal");
  command->add_flag(
      "--chat", options->chat, "Prompts are a user's messages: apply the chat template");
  command->add_option(
      "--prompts", options->prompts_file, "A file of JSON lines, each with a prompt");
  command->add_option(
      "--output", options->output_file, "Where --prompts writes its JSON lines (default: stdout)");
  command->callback([options, &status] { status.code = generate(*options); });
}

}  // namespace pagemill::cli
