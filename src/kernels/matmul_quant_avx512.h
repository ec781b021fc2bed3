// Quantized weights by int8 activations: per block of 32 along K, an exact int32 sum of products,
// then
//   sum += float(int32 sum) * d * scale_x  (+ min * scaled_sum_x)
// in this order in f32: the AVX2 kernels do the same and give the same bits.
#pragma once

#include <cstddef>

#include "kernels/matmul_tile_avx512.h"

namespace pagemill::avx512 {
namespace {

// What a block of 32 of one panel is scaled by.
struct Scales {
  __m512 scale[2];  // of each half; only the first unless the format has a scale per 16
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

// Elements 4*kGroup .. +3 of a block: 16 columns of 4 unsigned bytes.
template <DType kType, int kGroup>
inline __m512i load_group(const std::byte* quants) {
  if constexpr (kType == DType::kQ8_0) return load_line(quants + kGroup * kLine);
  const __m512i low = _mm512_set1_epi8(15);
  const __m512i line = load_line(quants + kGroup % 4 * kLine);
  const __m512i nibbles =
      kGroup < 4 ? _mm512_and_si512(line, low) : _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
  constexpr int kOrAnd = 0xf8;  // a | (b & c)
  if constexpr (kType == DType::kQ5_K) {
    const __m512i bits = load_line(quants + 4 * kLine);
    const __m512i moved = kGroup < 4 ? _mm512_slli_epi16(bits, kGroup < 4 ? 4 - kGroup : 0)
                                     : _mm512_srli_epi16(bits, kGroup < 4 ? 0 : kGroup - 4);
    return _mm512_ternarylogic_epi32(nibbles, moved, _mm512_set1_epi8(0x10), kOrAnd);
  }
  if constexpr (kType == DType::kQ6_K) {
    constexpr int kPair = kGroup % 4;
    const __m512i pairs = load_line(quants + (4 + kGroup / 4) * kLine);
    const __m512i moved = kPair < 3 ? _mm512_slli_epi16(pairs, kPair < 3 ? 4 - 2 * kPair : 0)
                                    : _mm512_srli_epi16(pairs, 2);
    return _mm512_ternarylogic_epi32(nibbles, moved, _mm512_set1_epi8(0x30), kOrAnd);
  }
  return nibbles;
}

template <DType kType>
inline void load_scales(const std::byte* unit, int index, Scales& scales) {
  using Format = PanelFormat<kType>;
  if constexpr (kType == DType::kQ6_K) {
    const __m512 d = load_f16(unit);
    const std::byte* const bytes = unit + Format::kScales + index * 32;
    scales.scale[0] = _mm512_mul_ps(d, load_i8(bytes));
    scales.scale[1] = _mm512_mul_ps(d, load_i8(bytes + 16));
  } else if constexpr (Format::kUnitBlocks == 8) {
    scales.scale[0] = _mm512_mul_ps(load_f16(unit), load_u8(unit + Format::kScales + index * 16));
    const __m512 minus_dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(unit + 32));
    scales.min = _mm512_mul_ps(minus_dmin, load_u8(unit + Format::kMins + index * 16));
  } else {
    scales.scale[0] = load_f16(unit + index * 32);
    if constexpr (Format::kHasMin) scales.min = load_f16(unit + Format::kMins + index * 32);
  }
}

// A tile's blocks: per panel the block's quants, per row its activations.
template <int kRows, int kCount>
struct TileBlock {
  const std::byte* quants[kCount];
  const std::byte* x;  // of the first row: a Q8Block
  std::size_t x_stride;

  const Q8Block& row(int r) const {
    return *reinterpret_cast<const Q8Block*>(x + static_cast<std::size_t>(r) * x_stride);
  }
};

// One group of 4 elements of every panel by every row: the chains of all sums advance side by side.
template <DType kType, int kGroup, int kRows, int kCount>
inline void dot_group(const TileBlock<kRows, kCount>& tile, __m512i (&products)[kRows][kCount]) {
  __m512i q[kCount];
  PM_UNROLL
  for (int p = 0; p < kCount; ++p) q[p] = load_group<kType, kGroup>(tile.quants[p]);
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const __m512i shared = broadcast_i32(tile.row(r).q + kGroup * 4);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) {
      products[r][p] = _mm512_dpbusd_epi32(products[r][p], q[p], shared);
    }
  }
}

// The block's (kHalf < 0) or half a block's sums of products, scaled and added.
template <DType kType, int kHalf, int kRows, int kCount>
inline void add_products(const TileBlock<kRows, kCount>& tile,
                         const Scales (&scales)[kCount],
                         __m512 (&sums)[kRows][kCount]) {
  constexpr int kOffset = PanelFormat<kType>::kOffset;
  __m512i products[kRows][kCount];
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Q8Block& x = tile.row(r);
    __m512i start = _mm512_setzero_si512();
    if constexpr (kOffset == 8) start = broadcast_i32(&x.sum_x8);
    if constexpr (kOffset == 128) start = broadcast_i32(&x.sum_x128);
    if constexpr (kOffset == 32) start = broadcast_i32(&x.sum_x32[kHalf]);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) products[r][p] = start;
  }
  // Groups i and i + 4 share a line of nibbles.
  if constexpr (kHalf <= 0) dot_group<kType, 0>(tile, products);
  if constexpr (kHalf != 0) dot_group<kType, 4>(tile, products);
  if constexpr (kHalf <= 0) dot_group<kType, 1>(tile, products);
  if constexpr (kHalf != 0) dot_group<kType, 5>(tile, products);
  if constexpr (kHalf <= 0) dot_group<kType, 2>(tile, products);
  if constexpr (kHalf != 0) dot_group<kType, 6>(tile, products);
  if constexpr (kHalf <= 0) dot_group<kType, 3>(tile, products);
  if constexpr (kHalf != 0) dot_group<kType, 7>(tile, products);
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const __m512 scale_x = broadcast_f32(&tile.row(r).scale);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) {
      const __m512 scaled =
          _mm512_mul_ps(_mm512_cvtepi32_ps(products[r][p]), scales[p].scale[kHalf == 1]);
      sums[r][p] = _mm512_fmadd_ps(scaled, scale_x, sums[r][p]);
    }
  }
}

template <DType kType>
struct QuantKernel {
  using Format = PanelFormat<kType>;
  static constexpr int kMaxRows = 12;
  // Two registers a sum: 12 sums. Several streams while memory is the limit.
  static constexpr int panels(int rows) { return rows <= 3 ? 4 : rows <= 6 ? 2 : 1; }

  template <int kRows, int kCount>
  static void compute(const MatmulArgs& a, std::int64_t row, const TilePanels<kCount>& panels) {
    __m512 sums[kRows][kCount];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) sums[r][p] = _mm512_setzero_ps();
    }
    TileBlock<kRows, kCount> tile;
    tile.x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    tile.x_stride = a.x_stride;
    const std::int64_t blocks = a.cols / kQuantBlock;
    for (std::int64_t b = 0; b < blocks; ++b, tile.x += sizeof(Q8Block)) {
      const std::int64_t unit = b / Format::kUnitBlocks * unit_bytes<kType>();
      const int index = static_cast<int>(b % Format::kUnitBlocks);
      Scales scales[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const std::byte* const data = panels.data[p] + unit;
        load_scales<kType>(data, index, scales[p]);
        tile.quants[p] = data + Format::kQuants + index * Format::kBlockBytes;
        prefetch_block<kType>(data + kPrefetchBytes / kCount, index);
      }
      add_block(tile, scales, sums);
    }
    store_tile<kRows, kCount>(a, row, panels, sums);
  }

 private:
  template <int kRows, int kCount>
  static inline void add_block(const TileBlock<kRows, kCount>& tile,
                               const Scales (&scales)[kCount],
                               __m512 (&sums)[kRows][kCount]) {
    if constexpr (kType == DType::kQ6_K) {
      add_products<kType, 0>(tile, scales, sums);
      add_products<kType, 1>(tile, scales, sums);
    } else {
      add_products<kType, -1>(tile, scales, sums);
    }
    if constexpr (Format::kHasMin) {
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m512 scaled_sum = broadcast_f32(&tile.row(r).scaled_sum);
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) {
          sums[r][p] = _mm512_fmadd_ps(scales[p].min, scaled_sum, sums[r][p]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace pagemill::avx512
