// How a block of values becomes int16 and a scale, or a whole row int8 and a scale: the same
// arithmetic for every ISA, so that the bits are the same too.
#pragma once

#include "kernels/panel_layout.h"

namespace pagemill {
namespace {

constexpr float kQ16Max = 32767;

// A block whose maximum is below is taken for zero: max_q / max would overflow.
constexpr float kInt16Tiny = 1e-30f;
constexpr float kInt16MaxFinite = 3.4028234e38f;

// What the values are multiplied by before they are rounded to -max_q..max_q. `max` is the largest
// |x|; unless `finite`, the caller's integers are all zero.
inline float int16_factor(float max, bool finite, float max_q) {
  return finite && max >= kInt16Tiny ? max_q / max : 0.0f;
}

// What the integers are multiplied by. An infinity or a NaN makes it NaN, so that it shows in the
// result.
inline float int16_scale(float max, bool finite, float max_q) {
  if (!finite) return __builtin_nanf("");
  return max >= kInt16Tiny ? max / max_q : 0.0f;
}

// What a Q16Block holds beside its quants, from the sums of its quants 0-15 and 16-31.
inline void finish_q16(
    Q16Block& block, float max, bool finite, std::int32_t sum0, std::int32_t sum1) {
  const std::int32_t sum = sum0 + sum1;
  block.scale = int16_scale(max, finite, kQ16Max);
  block.scaled_sum = block.scale * static_cast<float>(sum);
  block.sum_x8 = -8 * sum;
  block.sum_x128 = -128 * sum;
  block.sum_x32[0] = -32 * sum0;
  block.sum_x32[1] = -32 * sum1;
  block.unused[0] = block.unused[1] = 0;
}

}  // namespace
}  // namespace pagemill
