// BF16 weights by activations in bf16 pairs: VDPBF16PS, two elements of K an instruction. One chain
// of such pairs an output. Everything else of kAvx512Bf16 is kAvx512's.
//
// VDPBF16PS takes subnormals for zero and flushes them, where kAvx512 keeps them.
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512bf16 {
namespace {

inline __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }

// Up to 24 sums in registers, twice what covers the latency of two products a cycle: 6 rows by 4
// panels while memory feeds the kernel, 12 by 2 where the rows are many and the panels come from
// L2. Either way each cycle of two products needs less than two loads.
struct Bf16Kernel {
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
    const std::int64_t lines = (a.cols + 1) / 2;
    for (std::int64_t at = 0; at < lines * kLine; at += kLine, x += 4) {
      __m512i line[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        line[p] = avx512::load_line(panels.data[p] + at);
        panels.prefetch(p, at);
      }
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m512i pair = avx512::broadcast_i32(x + static_cast<std::size_t>(r) * a.x_stride);
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) {
          sums[r][p] = _mm512_dpbf16_ps(sums[r][p], as_bf16(line[p]), as_bf16(pair));
        }
      }
    }
    avx512::store_tile<kRows, kCount>(a, row, panels, sums);
  }
};

}  // namespace

MatmulFn matmul_fn(DType dtype) {
  return dtype == DType::kBF16 ? run_groups<Bf16Kernel> : avx512::matmul_fn(dtype);
}

}  // namespace pagemill::avx512bf16
