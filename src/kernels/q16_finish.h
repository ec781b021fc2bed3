// What a Q16Block holds beside its quants: the same arithmetic for every ISA, so that the bits are
// the same too.
#pragma once

#include "kernels/panel_layout.h"

namespace pagemill {
namespace {

// A block whose maximum is below is taken for zero: 32767 / max would overflow.
constexpr float kQ16Tiny = 1e-30f;
constexpr float kQ16MaxFinite = 3.4028234e38f;

// What the activations are multiplied by before they are rounded. `max` is the largest |x|; unless
// `finite`, the caller's quants are all zero.
inline float q16_factor(float max, bool finite) {
  return finite && max >= kQ16Tiny ? 32767.0f / max : 0.0f;
}

// The block's scale and sums, from the sums of its quants 0-15 and 16-31. An infinity or a NaN
// makes the scale NaN, so that it shows in the result.
inline void finish_q16(
    Q16Block& block, float max, bool finite, std::int32_t sum0, std::int32_t sum1) {
  const std::int32_t sum = sum0 + sum1;
  block.scale = finite ? (max >= kQ16Tiny ? max / 32767.0f : 0.0f) : __builtin_nanf("");
  block.scaled_sum = block.scale * static_cast<float>(sum);
  block.sum_x8 = -8 * sum;
  block.sum_x128 = -128 * sum;
  block.sum_x32[0] = -32 * sum0;
  block.sum_x32[1] = -32 * sum1;
  block.unused[0] = block.unused[1] = 0;
}

}  // namespace
}  // namespace pagemill
