// F32, F16 and BF16 weights by fused multiply-adds; 16 bits are widened in registers.
#include "kernels/matmul_tile_avx2.h"

namespace pagemill::avx2 {
namespace {

// A line of a panel holds kElements of K for each of its 16 columns; load() widens one of them, of
// columns 0-7 (half 0) or 8-15.
struct F32Line {
  static constexpr int kElements = 1;
  template <int>
  static __m256 load(const std::byte* line, int half) {
    return _mm256_castsi256_ps(load_half_line(line + half * kLine / 2));
  }
};
struct F16Line {
  static constexpr int kElements = 2;
  template <int kIndex>
  static __m256 load(const std::byte* line, int half) {
    const std::byte* const eight = line + kIndex * kLine / 2 + half * kLine / 4;
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(eight)));
  }
};
struct Bf16Line {
  static constexpr int kElements = 2;
  template <int kIndex>
  static __m256 load(const std::byte* line, int half) {
    const __m256i pairs = load_half_line(line + half * kLine / 2);
    if constexpr (kIndex == 0) return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
  }
};

template <typename Line>
struct FloatKernel {
  static constexpr int kMaxRows = 4;
  static constexpr int panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    constexpr int kHalves = 2 * kCount;
    __m256 sums[kRows][kHalves];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_setzero_ps();
    }
    const std::byte* x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t lines = (a.cols + Line::kElements - 1) / Line::kElements;
    for (std::int64_t at = 0; at < lines * kLine; at += kLine, x += 4 * Line::kElements) {
      const std::byte* line[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        line[p] = panels.data[p] + at;
        panels.prefetch(p, at);
      }
      add_element<0>(line, x, a.x_stride, sums);
      if constexpr (Line::kElements == 2) add_element<1>(line, x + 4, a.x_stride, sums);
    }
    PM_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      if (panels.index[h / 2] < 0) continue;
      const std::int64_t column = panels.index[h / 2] * kPanelCols + h % 2 * kHalfCols;
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) store_sums(a, row + r, column, sums[r][h]);
    }
  }

  template <int kIndex, int kRows, int kCount, int kHalves>
  static inline void add_element(const std::byte* const (&line)[kCount],
                                 const std::byte* x,
                                 std::size_t x_stride,
                                 __m256 (&sums)[kRows][kHalves]) {
    PM_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      const __m256 weights = Line::template load<kIndex>(line[h / 2], h % 2);
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m256 shared = broadcast_f32(x + static_cast<std::size_t>(r) * x_stride);
        sums[r][h] = _mm256_fmadd_ps(weights, shared, sums[r][h]);
      }
    }
  }
};

}  // namespace

MatmulFn matmul_fn(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return run_groups<FloatKernel<F32Line>>;
    case DType::kF16:
      return run_groups<FloatKernel<F16Line>>;
    case DType::kI8:
      return matmul_int8_fn();
    case DType::kBF16:
      return run_groups<FloatKernel<Bf16Line>>;
    default:
      return matmul_quant_fn(dtype);
  }
}

}  // namespace pagemill::avx2
