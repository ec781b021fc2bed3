// BF16 weights as block fixed point (FIXED16): exact int32 sums of 128 products by VPDPWSSD, two at
// a time in each lane, then sum += float(int32 sum) * scale_w * scale_x in f32. Where VDPBF16PS is
// slow this has twice the rate of widening bf16 to f32, and less error than rounding activations to
// bf16 (docs/ARCHITECTURE.md, "Kernels").
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

struct Fixed16Kernel {
  static constexpr int kMaxRows = 12;
  static constexpr int panels(int rows) { return rows <= 6 ? 4 : 2; }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    const std::byte* const x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t blocks = fixed_blocks(a.cols);
    const std::int64_t padded = fixed_padded_cols(a.cols);
    const std::byte* const scales_x = x + padded * 2;
    __m512 sums[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) sums[r][p] = _mm512_setzero_ps();
    }
    for (std::int64_t b = 0; b < blocks; ++b) {
      __m512i products[kRows][kCount];
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) products[r][p] = _mm512_setzero_si512();
      }
      const std::byte* pair = x + b * kFixedBlock * 2;
      const std::int64_t begin = b * kFixedUnitBytes + kLine;
      const std::int64_t left = padded - b * kFixedBlock;
      const std::int64_t end = begin + (left < kFixedBlock ? left : kFixedBlock) / 2 * kLine;
      for (std::int64_t at = begin; at < end; at += kLine, pair += 4) {
        const std::byte* line[kCount];
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) {
          line[p] = panels.data[p] + at;
          panels.prefetch(p, at);
        }
        add_pair(line, pair, a.x_stride, products);
      }
      __m512 scale_w[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const std::byte* const unit = panels.data[p] + b * kFixedUnitBytes;
        scale_w[p] = _mm512_castsi512_ps(load_line(unit));
        panels.prefetch(p, (b + 1) * kFixedUnitBytes);
      }
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m512 scale_x =
            broadcast_f32(scales_x + b * 4 + static_cast<std::size_t>(r) * a.x_stride);
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) {
          const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(products[r][p]), scale_w[p]);
          sums[r][p] = _mm512_fmadd_ps(scaled, scale_x, sums[r][p]);
        }
      }
    }
    store_tile<kRows, kCount>(a, row, panels, sums);
  }

  template <int kRows, int kCount>
  static inline void add_pair(const std::byte* const (&line)[kCount],
                              const std::byte* x,
                              std::size_t x_stride,
                              __m512i (&products)[kRows][kCount]) {
    __m512i weights[kCount];
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) weights[p] = load_line(line[p]);
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512i shared = broadcast_i32(x + static_cast<std::size_t>(r) * x_stride);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        add_dot_i16(products[r][p], weights[p], shared);
      }
    }
  }
};

}  // namespace

MatmulFn matmul_fixed16_fn() { return run_groups<Fixed16Kernel>; }

}  // namespace pagemill::avx512
