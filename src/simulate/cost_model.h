// What a step takes, in place of a model that computes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "base/result.h"

namespace pagemill {

// What a step computes.
struct StepLoad {
  std::int32_t num_seqs = 0;
  std::int64_t num_tokens = 0;
  std::int64_t kv_tokens = 0;        // tokens whose keys and values are read, each once a sequence
  std::int64_t attention_pairs = 0;  // (token, token that it sees), over all computed tokens

  // Tokens [begin, end) of one sequence.
  void add_chunk(std::int64_t begin, std::int64_t end) {
    ++num_seqs;
    num_tokens += end - begin;
    kv_tokens += end;
    attention_pairs += (end * (end + 1) - begin * (begin + 1)) / 2;
  }
};

// The roofline (Williams, Waterman, Patterson 2009): a step moves its bytes at the full bandwidth
// and computes at the full rate, whichever takes longer. It reads all weights once, and the keys
// and values of each sequence once; each token takes two operations per weight of two bytes.
// Nothing else takes time unless overhead_s says so: a lower bound, and one without a parameter to
// tune.
struct Roofline {
  double weights_bytes = 0;
  double bytes_per_s = 0;
  double flops_per_s = 0;
  double kv_bytes_per_token = 0;
  double flops_per_pair = 0;  // attention: 4 * layers * heads * head size
  double overhead_s = 0;      // a step
};

// Measured: seconds = step + token * num_tokens + pair * attention_pairs.
struct LinearCost {
  double step_s = 0, token_s = 0, pair_s = 0;
};

using CostModel = std::variant<Roofline, LinearCost>;

double step_seconds(const CostModel& cost, const StepLoad& load);
std::string describe(const CostModel& cost);

// A measured run: so many steps computed so much in so many seconds.
struct CostSample {
  double steps = 0, tokens = 0, pairs = 0, seconds = 0;
  double predicted(const LinearCost& cost) const {
    return cost.step_s * steps + cost.token_s * tokens + cost.pair_s * pairs;
  }
};

// The least squares of relative errors with no coefficient below 0. kInvalidArgument if the samples
// don't tell the coefficients apart.
Result<LinearCost> fit_cost(std::span<const CostSample> samples);

// A machine with a model on it.
struct Machine {
  std::string name;
  CostModel cost;
  std::int64_t kv_slots = 0;  // tokens whose keys and values fit
  std::int32_t max_model_len = 0;
};

// "opt-13b@a100-40gb" or "llama-3.1-8b@h100-80gb". kInvalidArgument, with the names, otherwise.
Result<Machine> find_machine(const std::string& name);

}  // namespace pagemill
