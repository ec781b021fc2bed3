// pagemill chat MODEL: a conversation in the terminal.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/sampling_flags.h"
#include "cli/terminal_stream.h"
#include "engine/engine_client.h"

namespace pagemill::cli {
namespace {

using json = nlohmann::ordered_json;  // templates see the keys' order

struct ChatOptions {
  EngineOptions engine;
  SamplingFlags sampling;
  std::string system;
};

// Streams the answer to stdout and returns it whole.
Result<std::string> answer(EngineClient& engine,
                           const json& messages,
                           const SamplingParams& params) {
  const json context = {{"messages", messages}, {"add_generation_prompt", true}};
  PM_ASSIGN(const std::string text, engine.chat_template()->render(context.dump()));
  Request request;
  request.params = params;
  PM_ASSIGN(request.prompt_token_ids, engine.tokenizer()->encode(text, false));
  return stream_to_stdout(engine, std::move(request));
}

int chat(ChatOptions& options) {
  if (const Status status = resolve_model(options.engine); !status.ok())
    return fail(status.error());
  auto engine = EngineClient::start(options.engine);
  if (!engine.ok()) return fail(engine.error());
  if (!(*engine)->chat_template()) {
    return fail(invalid_argument("the model has no chat template; give one with --chat-template"));
  }
  SamplingParams defaults = (*engine)->model().default_sampling;
  defaults.max_tokens = kTerminalMaxTokens;
  const SamplingParams params = options.sampling.apply(defaults);
  const bool is_terminal = isatty(STDIN_FILENO) != 0;
  if (is_terminal) std::cerr << "/clear starts over, /exit or end of input leaves\n";

  const json start = options.system.empty()
                         ? json::array()
                         : json::array({{{"role", "system"}, {"content", options.system}}});
  json messages = start;
  std::string line;
  while ((is_terminal ? std::cerr << "> " << std::flush : std::cerr),
         std::getline(std::cin, line)) {
    if (line == "/exit") break;
    if (line == "/clear") messages = start;
    if (line.empty() || line == "/clear") continue;
    messages.push_back({{"role", "user"}, {"content", line}});
    auto reply = answer(**engine, messages, params);
    if (!reply.ok()) {
      fail(reply.error());
      messages.erase(messages.size() - 1);
      continue;
    }
    messages.push_back({{"role", "assistant"}, {"content", *reply}});
  }
  return 0;
}

}  // namespace

void add_chat(CLI::App& app, ExitStatus& status) {
  CLI::App* command = app.add_subcommand("chat", "Talk to a model in the terminal");
  auto options = std::make_shared<ChatOptions>();
  add_engine_options(*command, options->engine);
  options->sampling.add_to(*command);
  command->add_option("--system", options->system, "The system message");
  command->callback([options, &status] { status.code = chat(*options); });
}

}  // namespace pagemill::cli
