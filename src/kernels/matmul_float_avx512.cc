// F32 and F16 weights by f32 activations: one fused multiply-add per element. F16 weights are
// widened in registers, once for all rows of a tile.
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

// A line of a panel holds kElements of K for each of its 16 columns; load() widens one of them.
struct F32Line {
  static constexpr int kElements = 1;
  template <int>
  static __m512 load(const std::byte* line) {
    return _mm512_castsi512_ps(load_line(line));
  }
};
struct F16Line {
  static constexpr int kElements = 2;
  template <int kIndex>
  static __m512 load(const std::byte* line) {
    return _mm512_cvtph_ps(
        _mm256_load_si256(reinterpret_cast<const __m256i*>(line + kIndex * kLine / 2)));
  }
};
// Up to 24 sums in registers: 6 rows by 4 panels while memory feeds the kernel, 12 by 2 where the
// rows are many and the panels come from L2 (half the bytes a product).
template <typename Line>
struct FloatKernel {
  static constexpr int kMaxRows = 12;
  static constexpr int panels(int rows) { return rows <= 6 ? 4 : 2; }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    __m512 sums[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) sums[r][p] = _mm512_setzero_ps();
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
    store_tile<kRows, kCount>(a, row, panels, sums);
  }

  template <int kIndex, int kRows, int kCount>
  static inline void add_element(const std::byte* const (&line)[kCount],
                                 const std::byte* x,
                                 std::size_t x_stride,
                                 __m512 (&sums)[kRows][kCount]) {
    __m512 weights[kCount];
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) weights[p] = Line::template load<kIndex>(line[p]);
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512 shared = broadcast_f32(x + static_cast<std::size_t>(r) * x_stride);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        sums[r][p] = _mm512_fmadd_ps(weights[p], shared, sums[r][p]);
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
    case DType::kFixed16:
      return matmul_fixed16_fn();
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
      return matmul_quant_fn(dtype);
    default:
      return matmul_kquant_fn(dtype);
  }
}

}  // namespace pagemill::avx512
