#include "cli/generate_batch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/sampling_json.h"

namespace pagemill::cli {
namespace {

using json = nlohmann::ordered_json;  // templates see the keys' order

struct BatchItem {
  json id;
  std::string where;  // "prompts.jsonl:3", for errors
  Prompt prompt;
  SamplingParams params;
  RequestOutput output;
};

Result<Prompt> read_prompt(const LLM& llm, const json& line, bool chat) {
  if (const auto ids = line.find("prompt_token_ids"); ids != line.end()) {
    const bool are_ids =
        ids->is_array() && std::all_of(ids->begin(), ids->end(), [](const json& id) {
          return id.is_number_integer();
        });
    if (!are_ids)
      return invalid_argument("prompt_token_ids: expected a list of integers", "prompt_token_ids");
    return Prompt(ids->get<std::vector<TokenId>>());
  }
  json messages;
  const auto prompt = line.find("prompt");
  if (line.contains("messages")) {
    messages = line["messages"];
  } else if (prompt == line.end() || !prompt->is_string()) {
    return invalid_argument("expected a field prompt (string), prompt_token_ids or messages",
                            "prompt");
  } else if (chat) {
    messages = json::array({{{"role", "user"}, {"content", *prompt}}});
  } else {
    return Prompt(prompt->get<std::string>());
  }
  const json context = {{"messages", std::move(messages)}, {"add_generation_prompt", true}};
  PM_ASSIGN(std::vector<TokenId> ids,
            llm.encode_chat(context.dump(-1, ' ', false, json::error_handler_t::replace)));
  return Prompt(std::move(ids));
}

Status read_item(const LLM& llm, const std::string& text, bool chat, BatchItem* item) {
  const json line = json::parse(text, nullptr, false);
  if (!line.is_object()) return invalid_argument("expected a JSON object");
  if (line.contains("id")) item->id = line["id"];
  PM_TRY(read_sampling_params(line, &item->params));
  PM_ASSIGN(item->prompt, read_prompt(llm, line, chat));
  return ok_status();
}

Result<std::vector<BatchItem>> read_items(const LLM& llm,
                                          const std::string& path,
                                          const SamplingParams& defaults,
                                          bool chat) {
  std::ifstream file(path);
  if (!file) return not_found(fmt::format("--prompts: cannot open '{}'", path));
  std::vector<BatchItem> items;
  std::string text;
  for (std::int64_t number = 1; std::getline(file, text); ++number) {
    if (text.empty()) continue;
    BatchItem item{.id = number,
                   .where = fmt::format("{}:{}", path, number),
                   .prompt = {},
                   .params = defaults,
                   .output = {}};
    if (const Status status = read_item(llm, text, chat, &item); !status.ok())
      item.output.error = status.error();
    items.push_back(std::move(item));
  }
  return items;
}

json to_json(const BatchItem& item) {
  json line = {{"id", item.id}};
  if (item.output.error) {
    line["error"] = {{"message", item.output.error->message}, {"param", item.output.error->param}};
    return line;
  }
  line["outputs"] = json::array();
  for (const CompletionOutput& output : item.output.outputs) {
    line["outputs"].push_back({{"index", output.index},
                               {"text", output.text},
                               {"token_ids", output.token_ids},
                               {"finish_reason", to_string(output.finish_reason)}});
    if (output.beam_score) line["outputs"].back()["beam_score"] = *output.beam_score;
  }
  const Usage& usage = item.output.usage;
  line["usage"] = {{"prompt_tokens", usage.prompt_tokens},
                   {"completion_tokens", usage.completion_tokens},
                   {"cached_tokens", usage.cached_tokens}};
  return line;
}

// A bar that redraws itself on a terminal, one line at the end otherwise.
class ProgressBar {
 public:
  void show(const BatchProgress& progress) const {
    const bool is_last = progress.num_finished == progress.num_prompts;
    if (!is_terminal_ && !is_last) return;
    constexpr std::size_t kWidth = 30;
    const std::size_t filled =
        progress.num_prompts == 0 ? kWidth : kWidth * progress.num_finished / progress.num_prompts;
    fmt::print(
        stderr,
        "{}[{}{}] {}/{} prompts, {} tokens, {:.1f} tokens/s{}",
        is_terminal_ ? "\r" : "",
        std::string(filled, '#'),
        std::string(kWidth - filled, '.'),
        progress.num_finished,
        progress.num_prompts,
        progress.num_generated_tokens,
        static_cast<double>(progress.num_generated_tokens) / std::max(progress.elapsed_s, 1e-9),
        is_last ? "\n" : "");
    std::fflush(stderr);
  }

 private:
  const bool is_terminal_ = isatty(STDERR_FILENO) != 0;
};

// Those that could be read; their outputs go back to where they came from.
void run_items(LLM& llm, std::vector<BatchItem>& items) {
  std::vector<BatchItem*> readable;
  std::vector<Prompt> prompts;
  std::vector<SamplingParams> params;
  for (BatchItem& item : items) {
    if (item.output.error) continue;
    readable.push_back(&item);
    prompts.push_back(std::move(item.prompt));
    params.push_back(item.params);
  }
  const ProgressBar bar;
  std::size_t next = 0;
  for (RequestOutput& output : llm.generate(prompts, params, [&](const BatchProgress& now) {
         bar.show(now);
         return true;
       })) {
    readable[next++]->output = std::move(output);
  }
}

}  // namespace

int generate_batch(LLM& llm, const BatchFiles& files, const SamplingParams& defaults, bool chat) {
  auto items = read_items(llm, files.prompts, defaults, chat);
  if (!items.ok()) return fail(items.error());
  std::ofstream file;
  if (!files.output.empty()) {
    file.open(files.output);
    if (!file) return fail(io_error(fmt::format("--output: cannot write '{}'", files.output)));
  }
  run_items(llm, *items);
  std::ostream& out = files.output.empty() ? std::cout : file;
  int status = 0;
  for (BatchItem& item : *items) {
    if (item.output.error) {
      item.output.error->message = fmt::format("{}: {}", item.where, item.output.error->message);
      status = fail(*item.output.error);
    }
    out << to_json(item).dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  if (!out.flush()) return fail(io_error("--output: the results could not be written in full"));
  return status;
}

}  // namespace pagemill::cli
