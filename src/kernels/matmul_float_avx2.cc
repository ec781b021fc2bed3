// F32 and BF16 weights by fused multiply-adds; bf16 is widened in registers.
#include "kernels/matmul_tile_avx2.h"

namespace pagemill::avx2 {
namespace {

struct F32Step {
  static std::int64_t steps(std::int64_t cols) { return cols; }
  struct Operand {
    __m256 value;
  };
  static Operand widen(__m256i bits) { return {_mm256_castsi256_ps(bits)}; }
  static __m256 apply(__m256 sum, const Operand& w, const Operand& x) {
    return _mm256_fmadd_ps(w.value, x.value, sum);
  }
};

// The odd element of a pair first, as VDPBF16PS does it.
struct Bf16Step {
  static std::int64_t steps(std::int64_t cols) { return (cols + 1) / 2; }
  struct Operand {
    __m256 even;
    __m256 odd;
  };
  static Operand widen(__m256i bits) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(bits, high))};
  }
  static __m256 apply(__m256 sum, const Operand& w, const Operand& x) {
    return _mm256_fmadd_ps(w.even, x.even, _mm256_fmadd_ps(w.odd, x.odd, sum));
  }
};

template <typename Step>
struct FloatKernel {
  static constexpr int kMaxRows = 4;
  static constexpr int panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

  template <int kRows, int kCount>
  static void compute(const MatmulArgs& a, std::int64_t row, const TilePanels<kCount>& panels) {
    constexpr int kHalves = 2 * kCount;
    __m256 sums[kRows][kHalves];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_setzero_ps();
    }
    const std::byte* x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t bytes = Step::steps(a.cols) * kLine;
    for (std::int64_t at = 0; at < bytes; at += kLine, x += 4) {
      PM_UNROLL
      for (int h = 0; h < kHalves; ++h) {
        const std::byte* const line = panels.data[h / 2] + at;
        if (h % 2 == 0) _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
        const auto weights = Step::widen(load_half_line(line + h % 2 * 32));
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const auto shared =
              Step::widen(broadcast_i32(x + static_cast<std::size_t>(r) * a.x_stride));
          sums[r][h] = Step::apply(sums[r][h], weights, shared);
        }
      }
    }
    PM_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      if (panels.index[h / 2] < 0) continue;
      const std::int64_t column = panels.index[h / 2] * kPanelCols + h % 2 * kHalfCols;
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) store_sums(a, row + r, column, sums[r][h]);
    }
  }
};

}  // namespace

MatmulFn matmul_fn(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return run_tiles<FloatKernel<F32Step>>;
    case DType::kBF16:
      return run_tiles<FloatKernel<Bf16Step>>;
    default:
      return matmul_quant_fn(dtype);
  }
}

}  // namespace pagemill::avx2
