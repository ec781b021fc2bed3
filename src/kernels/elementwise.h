// Row-wise operations around the matrix products. Each works on one row, so that callers can fuse
// them within one task of a fork-join; each is the same bits on every call within an ISA.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"

namespace pagemill {

enum class Activation { kSilu, kGeluTanh, kGeluErf, kRelu };
inline constexpr std::size_t kNumActivations = 4;

struct ElementwiseKernels {
  // y[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t n, float* y);
  // y[i] = (x[i] - mean) / sqrt(var + eps) * weight[i] + bias[i]; bias may be null
  void (*layer_norm)(
      const float* x, const float* weight, const float* bias, float eps, std::int64_t n, float* y);
  // By Activation: y[i] = activation(gate[i]) * up[i]; up may be null: then without it. y may be
  // gate.
  std::array<void (*)(const float* gate, const float* up, std::int64_t n, float* y),
             kNumActivations>
      activate;
  // Rotates pairs (i, i + rotary_dim/2) of each head in place; cos, sin: [rotary_dim/2] of this
  // position.
  void (*rope_neox)(float* x,
                    std::int64_t num_heads,
                    std::int64_t head_size,
                    std::int64_t rotary_dim,
                    const float* cos,
                    const float* sin);
  void (*add_scaled)(const float* x, float scale, std::int64_t n, float* y);  // y += scale * x
  // x = scale * x, and where cap > 0 cap * tanh(that / cap).
  void (*scale_softcap)(float* x, float scale, float cap, std::int64_t n);
  // Natural log of the sum of exp(x[i]), with the maximum subtracted first; also returns the
  // maximum.
  float (*log_sum_exp)(const float* x, std::int64_t n, float* max);
  // Index of the maximum, the lowest on ties.
  std::int64_t (*argmax)(const float* x, std::int64_t n);
};

const ElementwiseKernels& elementwise_kernels(Isa isa);

inline auto activation_kernel(const ElementwiseKernels& kernels, Activation activation) {
  return kernels.activate[static_cast<std::size_t>(activation)];
}

}  // namespace pagemill
