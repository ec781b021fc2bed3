// AVX2's vectors for the quantized kernels: half a panel, 8 columns.
#include "kernels/matmul_quant_generic.h"
#include "kernels/matmul_tile_avx2.h"

namespace pagemill::avx2 {
namespace {

struct QuantOps {
  using Int = __m256i;
  using Float = __m256;
  static constexpr std::int64_t kLanes = kHalfCols;
  static constexpr int kMaxRows = 4;
  // Two registers a sum, of 16.
  static constexpr int panels(int rows) { return rows == 1 ? 2 : 1; }

  static Int load(const std::byte* p) { return load_half_line(p); }
  static Int zero_int() { return _mm256_setzero_si256(); }
  static Int set_i16(int value) { return _mm256_set1_epi16(static_cast<short>(value)); }
  static Int broadcast_i32(const void* p) { return avx2::broadcast_i32(p); }
  static Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int or_and(Int a, Int b, Int c) { return _mm256_or_si256(a, _mm256_and_si256(b, c)); }
  template <int kBits>
  static Int shift_right(Int a) {
    if constexpr (kBits == 0) return a;
    return _mm256_srli_epi16(a, kBits);
  }
  template <int kFrom, int kTo>  // within each 16 bits
  static Int move_bit(Int a) {
    if constexpr (kFrom >= kTo) return shift_right<kFrom - kTo>(a);
    return _mm256_slli_epi16(a, kFrom < kTo ? kTo - kFrom : 0);
  }
  // sum += the products of the two int16 of each lane
  static Int dot(Int sum, Int a, Int b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

  static Float zero() { return _mm256_setzero_ps(); }
  static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float fmadd(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float broadcast_f32(const void* p) { return avx2::broadcast_f32(p); }
  static Float load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Float load_u8(const std::byte* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static Float load_i8(const std::byte* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static void store(const MatmulArgs& a, std::int64_t row, std::int64_t column, Float sums) {
    store_sums(a, row, column, sums);
  }
};

}  // namespace

MatmulFn matmul_quant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return run_tiles<QuantKernel<QuantOps, DType::kQ8_0>>;
    case DType::kQ4_0:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_0>>;
    case DType::kQ4_1:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_1>>;
    case DType::kQ4_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_K>>;
    case DType::kQ5_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ5_K>>;
    case DType::kQ6_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ6_K>>;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx2
