// Vec: 16 floats, one a lane. The AVX-512 version; each ISA's kernels include their own.
#pragma once

// gcc 12 takes the don't-care operand of its own AVX-512 intrinsics for a variable we forgot to
// set.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace pagemill {
namespace {

struct Vec {
  __m512 v;
};

inline constexpr int kLanes = 16;

inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
// The first n lanes, 0 <= n <= 16; zeros beyond. Touches nothing beyond.
inline Vec load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline Vec splat(float x) { return {_mm512_set1_ps(x)}; }
inline float first(Vec a) { return _mm512_cvtss_f32(a.v); }

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
// 1 / a within 1 ulp for 1 <= a < 2^126, 0 from there on: 14 bits and a Newton step, a quarter of
// what a division takes.
inline Vec reciprocal(Vec a) {
  const __mmask16 small = _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(0x1p126f), _CMP_NGE_UQ);
  const __m512 guess = _mm512_rcp14_ps(a.v);
  const __m512 error = _mm512_fnmadd_ps(a.v, guess, _mm512_set1_ps(1.0f));
  return {_mm512_maskz_fmadd_ps(small, guess, error, guess)};
}
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
inline Vec vec_sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline Vec vec_max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }  // b where either is NaN
inline Vec vec_min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }  // b where either is NaN
inline Vec round_nearest(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT)}; }
// a * 2^n for integral n in [-160, 130], correctly rounded, subnormals and overflow included.
inline Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

// Lanes outside [lo, hi) become `other`; 0 <= lo <= hi <= 16.
inline Vec keep_range(Vec a, int lo, int hi, float other) {
  const auto keep = static_cast<__mmask16>(first_lanes(hi) & ~first_lanes(lo));
  return {_mm512_mask_mov_ps(_mm512_set1_ps(other), keep, a.v)};
}

// Bit i: lane i of a equals b's.
inline unsigned equal_lanes(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }

inline float sum_lanes(Vec a) {
  const __m256 high = _mm512_extractf32x8_ps(a.v, 1);
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), high);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

inline float max_lanes(Vec a) {
  const __m256 high = _mm512_extractf32x8_ps(a.v, 1);
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), high);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

}  // namespace
}  // namespace pagemill

#include "kernels/vec_exp.h"
