// pagemill generate MODEL: one prompt streamed to the terminal, or a file of prompts as an offline
// batch.
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/generate_batch.h"
#include "cli/sampling_flags.h"
#include "cli/terminal_stream.h"
#include "pagemill/llm.h"

namespace pagemill::cli {
namespace {

struct GenerateOptions {
  EngineOptions engine;
  SamplingFlags sampling;
  std::string prompt;
  BatchFiles files;
  bool chat = false;
};

Result<std::vector<TokenId>> encode_prompt(const LLM& llm, const std::string& text, bool chat) {
  if (!chat) return llm.encode(text);
  using json = nlohmann::ordered_json;  // templates see the keys' order
  const json messages = json::array({{{"role", "user"}, {"content", text}}});
  const json context = {{"messages", messages}, {"add_generation_prompt", true}};
  return llm.encode_chat(context.dump(-1, ' ', false, json::error_handler_t::replace));
}

int generate_one(LLM& llm, const GenerateOptions& options) {
  auto prompt = encode_prompt(llm, options.prompt, options.chat);
  if (!prompt.ok()) return fail(prompt.error());
  Request request;
  request.prompt_token_ids = std::move(prompt).value();
  SamplingParams defaults = llm.default_sampling_params();
  defaults.max_tokens = kTerminalMaxTokens;
  request.params = options.sampling.apply(defaults);
  if (request.params.n != 1)
    return fail(invalid_argument("--n: one answer is streamed; use --prompts for more"));
  const auto text = stream_to_stdout(llm.engine(), std::move(request));
  return text.ok() ? 0 : fail(text.error());
}

int generate(GenerateOptions& options) {
  if (options.prompt.empty() == options.files.prompts.empty()) {
    return fail(invalid_argument("give either -p TEXT or --prompts FILE"));
  }
  auto llm = LLM::create(options.engine);
  if (!llm.ok()) return fail(llm.error());
  if (options.files.prompts.empty()) return generate_one(**llm, options);
  return generate_batch(**llm,
                        options.files,
                        options.sampling.apply((*llm)->default_sampling_params()),
                        options.chat);
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
      "--prompts", options->files.prompts, "A file of JSON lines, each with a prompt");
  command->add_option(
      "--output", options->files.output, "Where --prompts writes its JSON lines (default: stdout)");
  command->callback([options, &status] { status.code = generate(*options); });
}

}  // namespace pagemill::cli
