// What the AVX-512 matmul kernels share.
#pragma once

#include <immintrin.h>

#include "kernels/matmul_tiles.h"
#include "kernels/panel_layout.h"

namespace pagemill::avx512 {
namespace {

inline __m512i load_line(const std::byte* p) { return _mm512_load_si512(p); }

template <typename T>
inline T load_unaligned(const std::byte* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}

inline __m512i broadcast_i32(const void* p) {
  int value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm512_set1_epi32(value);
}

inline __m512 broadcast_f32(const void* p) {
  float value;
  __builtin_memcpy(&value, p, sizeof(value));
  return _mm512_set1_ps(value);
}

// sum += the products of the two int16 of each lane. Not _mm512_dpwssd_epi32: gcc 12 then copies
// every sum to the stack and back each time, since the built-in has another vector type than
// __m512i.
inline void add_dot_i16(__m512i& sum, __m512i a, __m512i b) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// sum += the products of the four bytes of each lane, `a` unsigned and `b` signed; wraps around.
inline void add_dot_u8_i8(__m512i& sum, __m512i a, __m512i b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// Writes the sums of row `row`, panel `panel`, with bias and residual; columns past N are masked
// off.
inline void store_sums(const MatmulArgs& a, std::int64_t row, std::int64_t panel, __m512 sums) {
  const std::int64_t column = panel * kPanelCols;
  const std::int64_t left = a.rows - column;
  const __mmask16 mask = left >= kPanelCols ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
  if (a.bias != nullptr) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, a.bias + column));
  float* const y = a.y + row * a.ldy + column;
  if (a.accumulate) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, y));
  _mm512_mask_storeu_ps(y, mask, sums);
}

template <int kRows, int kCount, typename Panels>
inline void store_tile(const MatmulArgs& a,
                       std::int64_t row,
                       const Panels& panels,
                       const __m512 (&sums)[kRows][kCount]) {
  PM_UNROLL
  for (int p = 0; p < kCount; ++p) {
    if (panels.index[p] < 0) continue;
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) store_sums(a, row + r, panels.index[p], sums[r][p]);
  }
}

}  // namespace
}  // namespace pagemill::avx512
