// Sampling options of the subcommands that generate.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "request/sampling_params.h"

namespace pagemill::cli {

// Only what was given on the command line; the rest keeps the model's defaults.
struct SamplingFlags {
  std::optional<float> temperature, top_p, min_p, presence_penalty, frequency_penalty,
      repetition_penalty, length_penalty;
  std::optional<EarlyStopping> early_stopping;
  std::optional<std::int32_t> top_k, max_tokens, min_tokens, n, best_of, beam_width;
  std::vector<std::string> stop;
  bool ignore_eos = false, use_beam_search = false;

  void add_to(CLI::App& command);
  SamplingParams apply(SamplingParams defaults) const;
};

}  // namespace pagemill::cli
