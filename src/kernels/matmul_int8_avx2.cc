// I8 weights by I8 activations in exact int32 sums: both sides widened to int16 for VPMADDWD, since
// VPMADDUBSW would saturate. Even and odd bytes of a line are two operands, which takes shifts and
// no shuffle; the activations already lie in that order.
#include "kernels/matmul_tile_avx2.h"

namespace pagemill::avx2 {
namespace {

struct Int8Kernel {
  static constexpr int kMaxRows = 4;
  static constexpr int panels(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    constexpr int kHalves = 2 * kCount;
    const std::byte* const x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    __m256i sums[kRows][kHalves];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int h = 0; h < kHalves; ++h) sums[r][h] = _mm256_setzero_si256();
    }
    const std::byte* quad = x + kInt8RowQuants;
    const std::int64_t end = kInt8Quants + int8_lines(a.cols) * kLine;
    for (std::int64_t at = kInt8Quants; at < end; at += kLine, quad += 8) {
      const std::byte* line[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        line[p] = panels.data[p] + at;
        panels.prefetch(p, at);
      }
      add_quad(line, quad, a.x_stride, sums);
    }
    PM_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      if (panels.index[h / 2] < 0) continue;
      const std::byte* const scales = panels.data[h / 2] + h % 2 * kLine / 2;
      const __m256 scale = _mm256_castsi256_ps(load_half_line(scales));
      const std::int64_t column = panels.index[h / 2] * kPanelCols + h % 2 * kHalfCols;
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m256 scale_x = broadcast_f32(x + static_cast<std::size_t>(r) * a.x_stride);
        const __m256 sum = _mm256_cvtepi32_ps(sums[r][h]);
        store_sums(a, row + r, column, _mm256_mul_ps(_mm256_mul_ps(sum, scale_x), scale));
      }
    }
  }

  template <int kRows, int kCount, int kHalves>
  static inline void add_quad(const std::byte* const (&line)[kCount],
                              const std::byte* x,
                              std::size_t x_stride,
                              __m256i (&sums)[kRows][kHalves]) {
    PM_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      const __m256i bytes = load_half_line(line[h / 2] + h % 2 * kLine / 2);
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
      const __m256i odd = _mm256_srai_epi16(bytes, 8);
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const std::byte* const shared = x + static_cast<std::size_t>(r) * x_stride;
        const __m256i first = _mm256_madd_epi16(even, broadcast_i32(shared));
        const __m256i second = _mm256_madd_epi16(odd, broadcast_i32(shared + 4));
        sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_add_epi32(first, second));
      }
    }
  }
};

}  // namespace

MatmulFn matmul_int8_fn() { return run_groups<Int8Kernel>; }

}  // namespace pagemill::avx2
