// Counter-based random numbers: a draw is a pure function of (seed, sequence index, position), so
// that neither the batch nor a preemption changes a request's text.
//
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), Philox4x32-10.
#pragma once

#include <array>
#include <cstdint>

namespace pagemill {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// Uniform in [0, 1), 53 bits. `position` is the number of the sequence's output tokens so far.
double uniform_draw(std::uint64_t seed, std::int32_t sequence_index, std::int32_t position);

}  // namespace pagemill
