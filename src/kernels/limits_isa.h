// The loops that limits.cc times, one table for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pagemill {

// Independent accumulators: more than the latency of any of the instructions asks for.
inline constexpr int kLimitChains = 12;
inline constexpr int kMaxReadStreams = 8;

struct LimitLoop {
  const char* instruction;
  int operations;                    // multiplications and additions of one
  void (*run)(std::int64_t rounds);  // of kLimitChains each
};

// Reads `bytes` from p, which is aligned to 64 bytes, as `streams` (1, 2, 4 or 8) equal parts side
// by side; returns something that depends on all of it.
using ReadLoop = std::uint64_t (*)(const std::byte* p,
                                   std::size_t bytes,
                                   int streams,
                                   bool prefetch);

extern const LimitLoop kLimitLoopsAvx2[2];
extern const LimitLoop kLimitLoopsAvx512[3];
extern const LimitLoop kLimitLoopsAvx512Bf16[1];
extern const ReadLoop kReadLoopScalar;
extern const ReadLoop kReadLoopAvx2;
extern const ReadLoop kReadLoopAvx512;

}  // namespace pagemill
