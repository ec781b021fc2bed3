#include "cli/sampling_flags.h"

namespace pagemill::cli {

void SamplingFlags::add_to(CLI::App& command) {
  command.add_option("--temperature", temperature, "0 is greedy");
  command.add_option("--top-p", top_p, "Share of probability to draw from, (0, 1]");
  command.add_option("--top-k", top_k, "Tokens to draw from, 0 for all");
  command.add_option("--min-p", min_p, "Least probability relative to the likeliest token, [0, 1]");
  command.add_option("--presence-penalty", presence_penalty, "-2..2");
  command.add_option("--frequency-penalty", frequency_penalty, "-2..2");
  command.add_option("--repetition-penalty", repetition_penalty, "> 0, 1 is off");
  command.add_option("--max-tokens", max_tokens, "Most tokens to generate");
  command.add_option("--min-tokens", min_tokens, "Tokens before which nothing stops");
  command.add_option("--n", n, "Answers to each prompt");
  command.add_option("--stop", stop, "Strings that end the text");
  command.add_flag("--ignore-eos", ignore_eos, "Go on past the end-of-text token");
}

SamplingParams SamplingFlags::apply(SamplingParams params) const {
  const auto set = [](auto& field, const auto& flag) {
    if (flag) field = *flag;
  };
  set(params.temperature, temperature);
  set(params.top_p, top_p);
  set(params.min_p, min_p);
  set(params.presence_penalty, presence_penalty);
  set(params.frequency_penalty, frequency_penalty);
  set(params.repetition_penalty, repetition_penalty);
  set(params.top_k, top_k);
  set(params.max_tokens, max_tokens);
  set(params.min_tokens, min_tokens);
  set(params.n, n);
  params.stop = stop;
  params.ignore_eos = ignore_eos;
  return params;
}

}  // namespace pagemill::cli
