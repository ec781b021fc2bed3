// The loops behind limits_isa.h, compiled for each instruction set: everything here is in an
// unnamed namespace.
#pragma once

#include <immintrin.h>

#include "kernels/limits_isa.h"
#include "kernels/unroll.h"

namespace pagemill {
namespace {

// step(sum) is one instruction of its own chain, in an asm statement: a compiler would take what
// does not change out of the loop.
template <typename Sum, typename Step>
inline void run_chains(std::int64_t rounds, Step step) {
  Sum sums[kLimitChains] = {};
  for (std::int64_t round = 0; round < rounds; ++round) {
    PM_UNROLL
    for (int chain = 0; chain < kLimitChains; ++chain) step(sums[chain]);
  }
}

template <typename Vector, int kStreams, bool kPrefetch>
std::uint64_t read_streams(const std::byte* p, std::size_t bytes) {
  constexpr std::size_t kChunk = 256;   // bytes of a stream at a time
  constexpr std::size_t kAhead = 1024;  // bytes
  constexpr std::size_t kLine = 64;     // bytes
  const std::size_t stream_bytes = bytes / kStreams / kChunk * kChunk;
  Vector sums[4] = {};
  for (std::size_t at = 0; at < stream_bytes; at += kChunk) {
    PM_UNROLL
    for (int stream = 0; stream < kStreams; ++stream) {
      const std::byte* const chunk = p + stream * stream_bytes + at;
      PM_UNROLL
      for (std::size_t i = 0; i < kChunk; i += sizeof(Vector)) {
        if (kPrefetch && i % kLine == 0) __builtin_prefetch(chunk + kAhead + i);
        sums[i / sizeof(Vector) % 4] ^= *reinterpret_cast<const Vector*>(chunk + i);
      }
    }
  }
  const Vector sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  std::uint64_t result = 0;
  for (std::size_t i = 0; i < sizeof(Vector) / 8; ++i) {
    result ^= static_cast<std::uint64_t>(sum[i]);
  }
  return result;
}

template <typename Vector>
std::uint64_t read_loop(const std::byte* p, std::size_t bytes, int streams, bool prefetch) {
  switch (streams) {
    case 1:
      return prefetch ? read_streams<Vector, 1, true>(p, bytes)
                      : read_streams<Vector, 1, false>(p, bytes);
    case 2:
      return prefetch ? read_streams<Vector, 2, true>(p, bytes)
                      : read_streams<Vector, 2, false>(p, bytes);
    case 4:
      return prefetch ? read_streams<Vector, 4, true>(p, bytes)
                      : read_streams<Vector, 4, false>(p, bytes);
    default:
      return prefetch ? read_streams<Vector, 8, true>(p, bytes)
                      : read_streams<Vector, 8, false>(p, bytes);
  }
}

}  // namespace
}  // namespace pagemill
