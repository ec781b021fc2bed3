// Vec: 16 floats, one a lane. The AVX2 version; each ISA's kernels include their own.
#pragma once

#include <immintrin.h>

namespace pagemill {
namespace {

struct Vec {
  __m256 lo;  // lanes 0 to 7
  __m256 hi;
};

inline constexpr int kLanes = 16;

// All ones in the lanes first + i < n, i in [0, 8).
inline __m256i lanes_below(int first, int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - first), lane);
}

inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
// The first n lanes, 0 <= n <= 16; zeros beyond. Touches nothing beyond.
inline Vec load_first(const float* p, int n) {
  return {_mm256_maskload_ps(p, lanes_below(0, n)), _mm256_maskload_ps(p + 8, lanes_below(8, n))};
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void store_first(float* p, Vec a, int n) {
  _mm256_maskstore_ps(p, lanes_below(0, n), a.lo);
  _mm256_maskstore_ps(p + 8, lanes_below(8, n), a.hi);
}
inline Vec splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline float first(Vec a) { return _mm256_cvtss_f32(a.lo); }

inline Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Vec reciprocal(Vec a) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return {_mm256_div_ps(one, a.lo), _mm256_div_ps(one, a.hi)};
}
inline Vec fma(Vec a, Vec b, Vec c) {  // a * b + c
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec vec_sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Vec vec_max(Vec a, Vec b) {  // b where either is NaN
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Vec vec_min(Vec a, Vec b) {  // b where either is NaN
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Vec round_nearest(Vec a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}

inline __m256 scale_by_power(__m256 a, __m256 n) {
  // 2^n in two factors, so that neither leaves the normal range.
  const __m256i power = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(power, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i rest = _mm256_add_epi32(_mm256_sub_epi32(power, half), bias);
  const __m256i two = _mm256_slli_epi32(rest, 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two));
}
// a * 2^n for integral n in [-160, 130], subnormals and overflow included.
inline Vec scale_by_power(Vec a, Vec n) {
  return {scale_by_power(a.lo, n.lo), scale_by_power(a.hi, n.hi)};
}

// Lanes outside [lo, hi) become `other`; 0 <= lo <= hi <= 16.
inline Vec keep_range(Vec a, int lo, int hi, float other) {
  const __m256 fill = _mm256_set1_ps(other);
  const __m256i keep_lo = _mm256_andnot_si256(lanes_below(0, lo), lanes_below(0, hi));
  const __m256i keep_hi = _mm256_andnot_si256(lanes_below(8, lo), lanes_below(8, hi));
  return {_mm256_blendv_ps(fill, a.lo, _mm256_castsi256_ps(keep_lo)),
          _mm256_blendv_ps(fill, a.hi, _mm256_castsi256_ps(keep_hi))};
}

// Bit i: lane i of a equals b's.
inline unsigned equal_lanes(Vec a, Vec b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
  return static_cast<unsigned>(lo) | static_cast<unsigned>(hi) << 8;
}

inline float sum_lanes(Vec a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

inline float max_lanes(Vec a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

}  // namespace
}  // namespace pagemill

#include "kernels/vec_exp.h"
