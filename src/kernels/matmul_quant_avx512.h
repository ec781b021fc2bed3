// Quantized weights by int8 activations: per block of 32 along K, an exact int32 sum of products,
// then
//   sum += float(int32 sum) * d * scale_x  (+ min * scaled_sum_x)
// in this order in f32: the AVX2 kernels do the same and give the same bits.
#pragma once

#include <cstddef>

#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

// A block of 32 of one panel, unpacked: 8 groups of 4 elements, 16 columns each.
struct Block {
  __m512i q[8];     // unsigned bytes
  __m512 scale[2];  // of each half; one and the same unless the format has a scale per 16
  __m512 min;       // added per element
};

inline __m512 load_f16(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 load_u8(const std::byte* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
}
inline __m512 load_i8(const std::byte* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
}

inline void load_nibbles(const std::byte* quants, Block& block) {
  const __m512i low = _mm512_set1_epi8(15);
  PM_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512i line = load_line(quants + i * kLine);
    block.q[i] = _mm512_and_si512(line, low);
    block.q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
  }
}

template <DType kType>
inline void load_quants(const std::byte* quants, Block& block) {
  if constexpr (kType == DType::kQ8_0) {
    PM_UNROLL
    for (int g = 0; g < 8; ++g) block.q[g] = load_line(quants + g * kLine);
    return;
  }
  load_nibbles(quants, block);
  // (a & mask) | b in one instruction
  constexpr int kAndOr = 0xf8;
  if constexpr (kType == DType::kQ5_K) {
    const __m512i mask = _mm512_set1_epi8(0x10);
    const __m512i bits = load_line(quants + 4 * kLine);
    PM_UNROLL
    for (int g = 0; g < 8; ++g) {
      const __m512i moved = g < 4 ? _mm512_slli_epi16(bits, 4 - g) : _mm512_srli_epi16(bits, g - 4);
      block.q[g] = _mm512_ternarylogic_epi32(block.q[g], moved, mask, kAndOr);
    }
  }
  if constexpr (kType == DType::kQ6_K) {
    const __m512i mask = _mm512_set1_epi8(0x30);
    PM_UNROLL
    for (int v = 0; v < 2; ++v) {
      const __m512i pairs = load_line(quants + (4 + v) * kLine);
      block.q[v * 4] =
          _mm512_ternarylogic_epi32(block.q[v * 4], _mm512_slli_epi16(pairs, 4), mask, kAndOr);
      block.q[v * 4 + 1] =
          _mm512_ternarylogic_epi32(block.q[v * 4 + 1], _mm512_slli_epi16(pairs, 2), mask, kAndOr);
      block.q[v * 4 + 2] = _mm512_ternarylogic_epi32(block.q[v * 4 + 2], pairs, mask, kAndOr);
      block.q[v * 4 + 3] =
          _mm512_ternarylogic_epi32(block.q[v * 4 + 3], _mm512_srli_epi16(pairs, 2), mask, kAndOr);
    }
  }
}

template <DType kType>
inline void load_scales(const std::byte* unit, int index, Block& block) {
  using Format = PanelFormat<kType>;
  if constexpr (kType == DType::kQ6_K) {
    const __m512 d = load_f16(unit);
    const std::byte* const scales = unit + Format::kScales + index * 32;
    block.scale[0] = _mm512_mul_ps(d, load_i8(scales));
    block.scale[1] = _mm512_mul_ps(d, load_i8(scales + 16));
  } else if constexpr (Format::kUnitBlocks == 8) {
    block.scale[0] = _mm512_mul_ps(load_f16(unit), load_u8(unit + Format::kScales + index * 16));
    // fnmadd later would do as well; a product with minus dmin keeps one code path
    const __m512 minus_dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(unit + 32));
    block.min = _mm512_mul_ps(minus_dmin, load_u8(unit + Format::kMins + index * 16));
  } else {
    block.scale[0] = load_f16(unit + index * 32);
    if constexpr (Format::kHasMin) block.min = load_f16(unit + Format::kMins + index * 32);
  }
}

// The sum of products of groups [kFirst, kLast), started from `sum`. Groups 0-3 are the first half.
template <int kFirst, int kLast>
inline __m512i dot_groups(const Block& block, const Q8Block& x, __m512i sum) {
  PM_UNROLL
  for (int g = kFirst; g < kLast; ++g) {
    sum = _mm512_dpbusd_epi32(sum, block.q[g], broadcast_i32(x.q + g * 4));
  }
  return sum;
}

template <DType kType>
inline __m512 add_block(__m512 sum, const Block& block, const Q8Block& x) {
  using Format = PanelFormat<kType>;
  const __m512 scale_x = broadcast_f32(&x.scale);
  if constexpr (kType == DType::kQ6_K) {
    const __m512i first = dot_groups<0, 4>(block, x, broadcast_i32(&x.sum_x32[0]));
    const __m512i second = dot_groups<4, 8>(block, x, broadcast_i32(&x.sum_x32[1]));
    sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(first), block.scale[0]), scale_x, sum);
    return _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(second), block.scale[1]), scale_x, sum);
  } else {
    __m512i start = _mm512_setzero_si512();
    if constexpr (Format::kOffset == 8) start = broadcast_i32(&x.sum_x8);
    if constexpr (Format::kOffset == 128) start = broadcast_i32(&x.sum_x128);
    const __m512i products = dot_groups<0, 8>(block, x, start);
    sum =
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(products), block.scale[0]), scale_x, sum);
    if constexpr (Format::kHasMin) {
      sum = _mm512_fmadd_ps(block.min, broadcast_f32(&x.scaled_sum), sum);
    }
    return sum;
  }
}

template <DType kType>
struct QuantKernel {
  using Format = PanelFormat<kType>;
  static constexpr int kMaxRows = 12;
  // Streams while memory is the limit; one panel, its block unpacked once, where the rows are many.
  static constexpr int panels(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 2 : 1; }

  template <int kRows, int kCount>
  static void compute(const MatmulArgs& a, std::int64_t row, const TilePanels<kCount>& panels) {
    __m512 sums[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) sums[r][p] = _mm512_setzero_ps();
    }
    const std::byte* x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t blocks = a.cols / kQuantBlock;
    for (std::int64_t b = 0; b < blocks; ++b, x += sizeof(Q8Block)) {
      const std::int64_t unit = b / Format::kUnitBlocks * unit_bytes<kType>();
      const int index = static_cast<int>(b % Format::kUnitBlocks);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const std::byte* const data = panels.data[p] + unit;
        const std::byte* const quants = data + Format::kQuants + index * Format::kBlockBytes;
        PM_UNROLL
        for (int line = 0; line < Format::kBlockBytes; line += kLine) {
          _mm_prefetch(quants + line + kPrefetchBytes, _MM_HINT_T0);
        }
        Block block;
        load_scales<kType>(data, index, block);
        load_quants<kType>(quants, block);
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const auto& xb =
              *reinterpret_cast<const Q8Block*>(x + static_cast<std::size_t>(r) * a.x_stride);
          sums[r][p] = add_block<kType>(sums[r][p], block, xb);
        }
      }
    }
    store_tile<kRows, kCount>(a, row, panels, sums);
  }
};

}  // namespace
}  // namespace pagemill::avx512
