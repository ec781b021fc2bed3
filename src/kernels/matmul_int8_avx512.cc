// I8 weights by I8 activations: VPDPBUSD, four products a lane, in one exact int32 sum over all of
// K. The instruction wants one side unsigned: activations come as q + 128, and a sum begins with
// what takes that back, -128 times the sum of its column. It may wrap around on the way; what it
// ends with fits (kInt8MaxCols).
#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

// Up to 24 sums in registers: 6 rows by 4 panels while memory feeds the kernel, 12 by 2 where the
// rows are many.
struct Int8Kernel {
  static constexpr int kMaxRows = 12;
  static constexpr int panels(int rows) { return rows <= 6 ? 4 : 2; }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    const std::byte* const x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    __m512i sums[kRows][kCount];
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) {
      const __m512i start = load_line(panels.data[p] + kLine);
      panels.prefetch(p, 0);
      panels.prefetch(p, kLine);
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) sums[r][p] = start;
    }
    const std::byte* quad = x + kInt8RowQuants;
    const std::int64_t end = kInt8Quants + int8_lines(a.cols) * kLine;
    for (std::int64_t at = kInt8Quants; at < end; at += kLine, quad += 4) {
      const std::byte* line[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        line[p] = panels.data[p] + at;
        panels.prefetch(p, at);
      }
      add_quad(line, quad, a.x_stride, sums);
    }
    __m512 scaled[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512 scale_x = broadcast_f32(x + static_cast<std::size_t>(r) * a.x_stride);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const __m512 scale = _mm512_castsi512_ps(load_line(panels.data[p]));
        // Not _mm512_cvtepi32_ps: gcc 12 sees an uninitialized use in it under the sanitizers.
        const __m512 sum = _mm512_maskz_cvtepi32_ps(0xffff, sums[r][p]);
        scaled[r][p] = _mm512_mul_ps(_mm512_mul_ps(sum, scale_x), scale);
      }
    }
    store_tile<kRows, kCount>(a, row, panels, scaled);
  }

  template <int kRows, int kCount>
  static inline void add_quad(const std::byte* const (&line)[kCount],
                              const std::byte* x,
                              std::size_t x_stride,
                              __m512i (&sums)[kRows][kCount]) {
    __m512i weights[kCount];
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) weights[p] = load_line(line[p]);
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m512i shared = broadcast_i32(x + static_cast<std::size_t>(r) * x_stride);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) add_dot_u8_i8(sums[r][p], shared, weights[p]);
    }
  }
};

}  // namespace

MatmulFn matmul_int8_fn() { return run_groups<Int8Kernel>; }

}  // namespace pagemill::avx512
