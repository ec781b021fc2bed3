// F32 and BF16 weights: one fused multiply-add, or one bf16 dot product of pairs, per element or
// pair.
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

// A step is one line of a panel and the 4 bytes of activations that all its lanes share.
struct F32Step {
  static __m512 apply(__m512 sum, __m512i weights, __m512i x) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(weights), _mm512_castsi512_ps(x), sum);
  }
  static std::int64_t steps(std::int64_t cols) { return cols; }
};
struct Bf16Step {
  static __m512 apply(__m512 sum, __m512i weights, __m512i x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)x);
  }
  static std::int64_t steps(std::int64_t cols) { return (cols + 1) / 2; }
};

// Up to 24 sums in registers: 6 rows by 4 panels while memory feeds the kernel, 12 by 2 where the
// rows are many and the panels come from L2 (half the bytes a product).
template <typename Step>
struct FloatKernel {
  static constexpr int kMaxRows = 12;
  static constexpr int panels(int rows) { return rows <= 6 ? 4 : 2; }

  template <int kRows, int kCount>
  static void compute(const MatmulArgs& a, std::int64_t row, const TilePanels<kCount>& panels) {
    __m512 sums[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) sums[r][p] = _mm512_setzero_ps();
    }
    const std::byte* x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t bytes = Step::steps(a.cols) * kLine;
    for (std::int64_t at = 0; at < bytes; at += kLine, x += 4) {
      __m512i weights[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        weights[p] = load_line(panels.data[p] + at);
        _mm_prefetch(panels.data[p] + at + kPrefetchBytes, _MM_HINT_T0);
      }
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m512i shared = broadcast_i32(x + static_cast<std::size_t>(r) * a.x_stride);
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) sums[r][p] = Step::apply(sums[r][p], weights[p], shared);
      }
    }
    store_tile<kRows, kCount>(a, row, panels, sums);
  }
};

}  // namespace

MatmulFn matmul_fn(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return run_tiles<FloatKernel<F32Step>>;
    case DType::kBF16:
      return run_tiles<FloatKernel<Bf16Step>>;
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
      return matmul_quant_fn(dtype);
    default:
      return matmul_kquant_fn(dtype);
  }
}

}  // namespace pagemill::avx512
