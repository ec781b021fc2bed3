// Vec: 16 floats, one a lane. The portable version, plain C++; each ISA's kernels include their
// own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace pagemill {
namespace {

struct Vec {
  float v[16];
};

inline constexpr int kLanes = 16;

template <typename F>
inline Vec each_lane(F f) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}

inline Vec load(const float* p) {
  return each_lane([&](int i) { return p[i]; });
}
// The first n lanes, 0 <= n <= 16; zeros beyond. Touches nothing beyond.
inline Vec load_first(const float* p, int n) {
  return each_lane([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline void store(float* p, Vec a) { std::memcpy(p, a.v, sizeof(a.v)); }
inline void store_first(float* p, Vec a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
inline Vec splat(float x) {
  return each_lane([&](int) { return x; });
}
inline float first(Vec a) { return a.v[0]; }

inline Vec operator+(Vec a, Vec b) {
  return each_lane([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return each_lane([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return each_lane([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return each_lane([&](int i) { return a.v[i] / b.v[i]; });
}
inline Vec reciprocal(Vec a) {
  return each_lane([&](int i) { return 1.0f / a.v[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {  // a * b + c; here with both roundings
  return each_lane([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline Vec vec_sqrt(Vec a) {
  return each_lane([&](int i) { return std::sqrt(a.v[i]); });
}
inline Vec vec_max(Vec a, Vec b) {  // b where either is NaN
  return each_lane([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec vec_min(Vec a, Vec b) {  // b where either is NaN
  return each_lane([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// For |a| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
inline Vec round_nearest(Vec a) {
  return each_lane([&](int i) { return (a.v[i] + 12582912.0f) - 12582912.0f; });
}
// a * 2^n for integral n in [-160, 130], subnormals and overflow included. NaN goes through.
inline Vec scale_by_power(Vec a, Vec n) {
  return each_lane([&](int i) {
    // 2^n in two factors, so that neither leaves the normal range.
    const std::int32_t power = n.v[i] == n.v[i] ? static_cast<std::int32_t>(n.v[i]) : 0;
    const std::int32_t half = power >> 1;
    const std::uint32_t bits[2] = {static_cast<std::uint32_t>(half + 127) << 23,
                                   static_cast<std::uint32_t>(power - half + 127) << 23};
    float factors[2];
    std::memcpy(factors, bits, sizeof(bits));
    return a.v[i] * factors[0] * factors[1];
  });
}

// Lanes outside [lo, hi) become `other`; 0 <= lo <= hi <= 16.
inline Vec keep_range(Vec a, int lo, int hi, float other) {
  return each_lane([&](int i) { return i >= lo && i < hi ? a.v[i] : other; });
}

// Bit i: lane i of a equals b's.
inline unsigned equal_lanes(Vec a, Vec b) {
  unsigned mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= (a.v[i] == b.v[i] ? 1u : 0u) << i;
  return mask;
}

inline float sum_lanes(Vec a) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] += a.v[i + step];
  }
  return a.v[0];
}

inline float max_lanes(Vec a) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  }
  return a.v[0];
}

}  // namespace
}  // namespace pagemill

#include "kernels/vec_exp.h"
