// What the AVX2 matmul kernels share. A panel of 16 columns is two halves of 8 lanes.
#pragma once

#include <immintrin.h>

#include "kernels/matmul_tiles.h"
#include "kernels/panel_layout.h"

namespace pagemill::avx2 {
namespace {

constexpr std::int64_t kHalfCols = 8;

inline __m256i load_half_line(const std::byte* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256i broadcast_i32(const void* p) {
  int value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm256_set1_epi32(value);
}

inline __m256 broadcast_f32(const void* p) {
  float value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm256_set1_ps(value);
}

// Writes 8 sums from column `column`, with bias and residual; columns past N are masked off.
inline void store_sums(const MatmulArgs& a, std::int64_t row, std::int64_t column, __m256 sums) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const std::int64_t left = a.rows - column;
  if (left <= 0) return;
  const __m256i mask =
      _mm256_cmpgt_epi32(_mm256_set1_epi32(left < kHalfCols ? static_cast<int>(left) : 8), lanes);
  if (a.bias != nullptr) sums = _mm256_add_ps(sums, _mm256_maskload_ps(a.bias + column, mask));
  float* const y = a.y + row * a.ldy + column;
  if (a.accumulate) sums = _mm256_add_ps(sums, _mm256_maskload_ps(y, mask));
  _mm256_maskstore_ps(y, mask, sums);
}

}  // namespace
}  // namespace pagemill::avx2
