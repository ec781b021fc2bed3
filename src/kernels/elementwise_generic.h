// The row-wise operations, written once over Vec (vec_*.h); included by elementwise_<isa>.cc.
//
// Sums run over 4 vectors of 16 lanes, element i in lane i % 64, and are reduced in one fixed
// order.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"

namespace pagemill {
namespace {

// Calls full(i) for each whole vector at i and tail(i, n) for the n < 16 elements left.
template <typename Full, typename Tail>
inline void for_vectors(std::int64_t n, Full full, Tail tail) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) full(i);
  if (i < n) tail(i, static_cast<int>(n - i));
}

// The sum of term(i, lanes) over the row; beyond the row's end lanes of a term must be 0.
template <typename Full, typename Tail>
inline float sum_row(std::int64_t n, Full full, Tail tail) {
  Vec sums[4] = {splat(0), splat(0), splat(0), splat(0)};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) sums[j] = sums[j] + full(i + j * kLanes);
  }
  for (int j = 0; i < n; ++j, i += kLanes) {
    const std::int64_t left = n - i;
    sums[j] = sums[j] + (left >= kLanes ? full(i) : tail(i, static_cast<int>(left)));
  }
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t n, float* y) {
  const float sum = sum_row(
      n,
      [&](std::int64_t i) {
        const Vec a = load(x + i);
        return a * a;
      },
      [&](std::int64_t i, int left) {
        const Vec a = load_first(x + i, left);
        return a * a;
      });
  const Vec mean = splat(sum / static_cast<float>(n) + eps);
  const Vec inverse = splat(1.0f) / vec_sqrt(mean);
  for_vectors(
      n,
      [&](std::int64_t i) { store(y + i, load(x + i) * inverse * load(weight + i)); },
      [&](std::int64_t i, int left) {
        const Vec a = load_first(x + i, left) * inverse * load_first(weight + i, left);
        store_first(y + i, a, left);
      });
}

void layer_norm(
    const float* x, const float* weight, const float* bias, float eps, std::int64_t n, float* y) {
  const float sum = sum_row(
      n,
      [&](std::int64_t i) { return load(x + i); },
      [&](std::int64_t i, int left) { return load_first(x + i, left); });
  const Vec mean = splat(sum / static_cast<float>(n));
  const float squares = sum_row(
      n,
      [&](std::int64_t i) {
        const Vec a = load(x + i) - mean;
        return a * a;
      },
      [&](std::int64_t i, int left) {
        const Vec a = keep_range(load_first(x + i, left) - mean, 0, left, 0);
        return a * a;
      });
  const Vec inverse = splat(1.0f) / vec_sqrt(splat(squares / static_cast<float>(n) + eps));
  for_vectors(
      n,
      [&](std::int64_t i) {
        const Vec a = (load(x + i) - mean) * inverse * load(weight + i);
        store(y + i, bias != nullptr ? a + load(bias + i) : a);
      },
      [&](std::int64_t i, int left) {
        const Vec a = (load_first(x + i, left) - mean) * inverse * load_first(weight + i, left);
        store_first(y + i, bias != nullptr ? a + load_first(bias + i, left) : a, left);
      });
}

inline Vec silu(Vec x) { return x * reciprocal(splat(1.0f) + vec_exp(splat(0) - x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec gelu_tanh(Vec x) {
  const Vec cubic = fma(x * x, splat(0.044715f), splat(1.0f)) * x;
  return x * reciprocal(splat(1.0f) + vec_exp(cubic * splat(-1.5957691216f)));
}

// 0.5 x (1 + erf(x / sqrt(2))). erf by Abramowitz and Stegun, Handbook of Mathematical Functions,
// 7.1.26: its absolute error is below 1.5e-7.
inline Vec gelu_erf(Vec x) {
  const Vec z = x * splat(0.70710678f);
  const Vec size = vec_max(z, splat(0) - z);
  const Vec t = reciprocal(fma(size, splat(0.3275911f), splat(1.0f)));
  Vec poly = splat(1.061405429f);
  poly = fma(poly, t, splat(-1.453152027f));
  poly = fma(poly, t, splat(1.421413741f));
  poly = fma(poly, t, splat(-0.284496736f));
  poly = fma(poly, t, splat(0.254829592f));
  // What erf(|z|) lacks to 1, halved; the same for both signs of x.
  const Vec rest = splat(0.5f) * poly * t * vec_exp(splat(0) - z * z);
  const Vec positive = vec_max(x, splat(0));
  return positive - (positive + positive - x) * rest;
}

inline Vec relu(Vec x) { return vec_max(splat(0), x); }  // this order keeps a NaN

// y[i] = activation(gate[i]) * up[i], or activation(gate[i]) where up is null.
template <typename Activation>
inline void activate(
    const float* gate, const float* up, std::int64_t n, float* y, Activation activation) {
  for_vectors(
      n,
      [&](std::int64_t i) {
        const Vec a = activation(load(gate + i));
        store(y + i, up != nullptr ? a * load(up + i) : a);
      },
      [&](std::int64_t i, int left) {
        const Vec a = activation(load_first(gate + i, left));
        store_first(y + i, up != nullptr ? a * load_first(up + i, left) : a, left);
      });
}

void silu_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  activate(gate, up, n, y, [](Vec x) { return silu(x); });
}

void gelu_tanh_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  activate(gate, up, n, y, [](Vec x) { return gelu_tanh(x); });
}

void gelu_erf_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  activate(gate, up, n, y, [](Vec x) { return gelu_erf(x); });
}

void relu_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  activate(gate, up, n, y, [](Vec x) { return relu(x); });
}

void rope_neox(float* x,
               std::int64_t num_heads,
               std::int64_t head_size,
               std::int64_t rotary_dim,
               const float* cos,
               const float* sin) {
  const std::int64_t half = rotary_dim / 2;
  for (std::int64_t head = 0; head < num_heads; ++head) {
    float* low = x + head * head_size;
    float* high = low + half;
    for_vectors(
        half,
        [&](std::int64_t i) {
          const Vec a = load(low + i);
          const Vec b = load(high + i);
          const Vec c = load(cos + i);
          const Vec s = load(sin + i);
          store(low + i, a * c - b * s);
          store(high + i, b * c + a * s);
        },
        [&](std::int64_t i, int left) {
          const Vec a = load_first(low + i, left);
          const Vec b = load_first(high + i, left);
          const Vec c = load_first(cos + i, left);
          const Vec s = load_first(sin + i, left);
          store_first(low + i, a * c - b * s, left);
          store_first(high + i, b * c + a * s, left);
        });
  }
}

void add_scaled(const float* x, float scale, std::int64_t n, float* y) {
  const Vec factor = splat(scale);
  for_vectors(
      n,
      [&](std::int64_t i) { store(y + i, fma(load(x + i), factor, load(y + i))); },
      [&](std::int64_t i, int left) {
        store_first(y + i, fma(load_first(x + i, left), factor, load_first(y + i, left)), left);
      });
}

void scale_softcap(float* x, float scale, float cap, std::int64_t n) {
  const auto capped = [&](Vec a) {
    a = a * splat(scale);
    return cap > 0 ? splat(cap) * vec_tanh(a / splat(cap)) : a;
  };
  for_vectors(
      n,
      [&](std::int64_t i) { store(x + i, capped(load(x + i))); },
      [&](std::int64_t i, int left) { store_first(x + i, capped(load_first(x + i, left)), left); });
}

constexpr float kLowest = -__builtin_inff();

float row_max(const float* x, std::int64_t n) {
  Vec maxima[4] = {splat(kLowest), splat(kLowest), splat(kLowest), splat(kLowest)};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) maxima[j] = vec_max(load(x + i + j * kLanes), maxima[j]);
  }
  for (; i < n; i += kLanes) {
    const int left = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    maxima[0] = vec_max(keep_range(load_first(x + i, left), 0, left, kLowest), maxima[0]);
  }
  return max_lanes(vec_max(vec_max(maxima[0], maxima[1]), vec_max(maxima[2], maxima[3])));
}

float log_sum_exp(const float* x, std::int64_t n, float* max) {
  *max = row_max(x, n);
  const Vec shift = splat(*max);
  const float sum = sum_row(
      n,
      [&](std::int64_t i) { return vec_exp(load(x + i) - shift); },
      [&](std::int64_t i, int left) {
        return keep_range(vec_exp(load_first(x + i, left) - shift), 0, left, 0);
      });
  return __builtin_logf(sum) + *max;
}

std::int64_t argmax(const float* x, std::int64_t n) {
  const Vec target = splat(row_max(x, n));
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int left = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const unsigned inside = left == kLanes ? 0xffffu : (1u << left) - 1;
    const unsigned found = equal_lanes(load_first(x + i, left), target) & inside;
    if (found != 0) return i + __builtin_ctz(found);
  }
  return 0;  // every element is NaN
}

constexpr ElementwiseKernels kTable = {
    rms_norm,
    layer_norm,
    {silu_mul, gelu_tanh_mul, gelu_erf_mul, relu_mul},
    rope_neox,
    add_scaled,
    scale_softcap,
    log_sum_exp,
    argmax,
};

}  // namespace
}  // namespace pagemill
