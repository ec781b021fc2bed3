// IterationTokens: how many tokens the engine's steps computed, by vLLM's buckets of
// iteration_tokens_total. The engine adds to it; /metrics shows it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace pagemill {

struct IterationTokens {
  static constexpr std::array<std::int32_t, 13> kBounds = {
      1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  std::array<std::uint64_t, kBounds.size() + 1> steps = {};  // up to each bound, and above them all
  std::uint64_t tokens = 0;                                  // of all steps

  void add_step(std::int32_t num_tokens) {
    const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), num_tokens);
    ++steps[static_cast<std::size_t>(bound - kBounds.begin())];
    tokens += static_cast<std::uint64_t>(num_tokens);
  }
};

}  // namespace pagemill
