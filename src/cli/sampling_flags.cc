#include "cli/sampling_flags.h"

#include <map>

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
  command.add_option("--best-of", best_of, "Answers to sample, of which the --n likeliest return");
  command.add_flag("--use-beam-search", use_beam_search, "The --n best that a beam search finds");
  command.add_option("--beam-width", beam_width, "Beams, --n or more (default: --n)");
  command.add_option(
      "--length-penalty", length_penalty, "Beam scores are divided by length to this power");
  command
      .add_option("--early-stopping",
                  early_stopping,
                  "Whether a beam search ends with its beam_width-th answer: false, true or never")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, EarlyStopping>{{"false", EarlyStopping::kFalse},
                                               {"true", EarlyStopping::kTrue},
                                               {"never", EarlyStopping::kNever}}));
  command.add_option("--stop", stop, "Strings that end the text");
  command.add_flag("--ignore-eos", ignore_eos, "Go on past the end-of-text token");
}

SamplingParams SamplingFlags::apply(SamplingParams params) const {
  const auto set = [](auto& field, const auto& flag) {
    if (flag) field = *flag;
  };
  if (use_beam_search) params.make_greedy();  // the defaults may sample
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
  if (best_of) params.best_of = best_of;
  params.use_beam_search = use_beam_search;
  if (beam_width) params.beam_width = beam_width;
  set(params.length_penalty, length_penalty);
  set(params.early_stopping, early_stopping);
  params.stop = stop;
  params.ignore_eos = ignore_eos;
  return params;
}

}  // namespace pagemill::cli
