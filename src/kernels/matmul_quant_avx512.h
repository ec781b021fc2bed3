// AVX-512's vectors for the quantized kernels: all 16 columns of a panel.
#pragma once

#include "kernels/matmul_quant_generic.h"
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

struct QuantOps {
  using Int = __m512i;
  using Float = __m512;
  static constexpr std::int64_t kLanes = 16;
  static constexpr int kMaxRows = 12;
  // Two registers a sum: 12 sums. Several streams while memory is the limit.
  static constexpr int panels(int rows) { return rows <= 3 ? 4 : rows <= 6 ? 2 : 1; }

  static Int load(const std::byte* p) { return load_line(p); }
  static Int zero_int() { return _mm512_setzero_si512(); }
  static Int set_i16(int value) { return _mm512_set1_epi16(static_cast<short>(value)); }
  static Int broadcast_i32(const void* p) { return avx512::broadcast_i32(p); }
  static Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int or_and(Int a, Int b, Int c) {
    constexpr int kOrAnd = 0xf8;  // a | (b & c)
    return _mm512_ternarylogic_epi32(a, b, c, kOrAnd);
  }
  template <int kBits>
  static Int shift_right(Int a) {
    if constexpr (kBits == 0) return a;
    return _mm512_srli_epi16(a, kBits);
  }
  template <int kFrom, int kTo>  // within each 16 bits
  static Int move_bit(Int a) {
    if constexpr (kFrom >= kTo) return shift_right<kFrom - kTo>(a);
    return _mm512_slli_epi16(a, kFrom < kTo ? kTo - kFrom : 0);
  }
  // sum += the products of the two int16 of each lane
  static Int dot(Int sum, Int a, Int b) {
    add_dot_i16(sum, a, b);
    return sum;
  }

  static Float zero() { return _mm512_setzero_ps(); }
  static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float fmadd(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float broadcast_f32(const void* p) { return avx512::broadcast_f32(p); }
  static Float load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Float load_u8(const std::byte* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static Float load_i8(const std::byte* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static void store(const MatmulArgs& a, std::int64_t row, std::int64_t column, Float sums) {
    store_sums(a, row, column / kPanelCols, sums);
  }
};

}  // namespace
}  // namespace pagemill::avx512
