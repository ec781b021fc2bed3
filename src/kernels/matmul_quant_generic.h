// Quantized weights by int16 activations, written once for both vector instruction sets. Per block
// of 32 along K, an exact int32 sum of products, then
//   sum += float(int32 sum) * d * scale_x  (+ min * scaled_sum_x)
// in this order in f32, so both give the same bits.
//
// `Ops` is an instruction set's vector of kLanes columns: a panel's 16 or half of them.
#pragma once

#include <cstddef>

#include "kernels/matmul_tiles.h"
#include "kernels/panel_layout.h"

namespace pagemill {
namespace {

// What a block of 32 of one panel is scaled by.
template <typename Ops>
struct Scales {
  typename Ops::Float scale[2];  // of each half; only the first unless the format has one per 16
  typename Ops::Float min;       // added per element
};

// Two elements of group kGroup (4 elements) of a block as an int16 pair a column, unsigned:
// elements 0 and 2 if kPart is 0, 1 and 3 if it is 1. That is the order of Q16Block, and takes no
// shuffle: the pair already lies 16 bits apart. `quants` points at the first line's columns.
template <typename Ops, DType kType, int kGroup, int kPart>
inline typename Ops::Int load_pair(const std::byte* quants) {
  if constexpr (kType == DType::kQ8_0) {
    const auto bytes = Ops::load(quants + kGroup * kLine);
    if constexpr (kPart == 1) return Ops::template shift_right<8>(bytes);
    return Ops::bit_and(bytes, Ops::set_i16(0xff));
  } else {
    constexpr int kShift = kGroup / 4 * 4 + kPart * 8;
    const auto line = Ops::template shift_right<kShift>(Ops::load(quants + kGroup % 4 * kLine));
    const auto nibbles = kShift == 12 ? line : Ops::bit_and(line, Ops::set_i16(15));
    if constexpr (kType == DType::kQ5_K) {
      const auto bits = Ops::load(quants + 4 * kLine);
      return Ops::or_and(
          nibbles, Ops::template move_bit<kGroup + kPart * 8, 4>(bits), Ops::set_i16(0x10));
    }
    if constexpr (kType == DType::kQ6_K) {
      const auto bits = Ops::load(quants + (4 + kGroup / 4) * kLine);
      return Ops::or_and(
          nibbles, Ops::template move_bit<kGroup % 4 * 2 + kPart * 8, 4>(bits), Ops::set_i16(0x30));
    }
    return nibbles;
  }
}

// `column` is the first of the vector's columns within the panel.
template <typename Ops, DType kType>
inline void load_scales(const std::byte* unit,
                        int index,
                        std::int64_t column,
                        Scales<Ops>& scales) {
  using Format = PanelFormat<kType>;
  const std::byte* const halves = unit + column * 2;
  const std::byte* const bytes = unit + column;
  if constexpr (kType == DType::kQ6_K) {
    const auto d = Ops::load_f16(halves);
    const int at = Format::kScales + index * 32;
    scales.scale[0] = Ops::mul(d, Ops::load_i8(bytes + at));
    scales.scale[1] = Ops::mul(d, Ops::load_i8(bytes + at + 16));
  } else if constexpr (Format::kUnitBlocks == 8) {
    scales.scale[0] =
        Ops::mul(Ops::load_f16(halves), Ops::load_u8(bytes + Format::kScales + index * 16));
    const auto minus_dmin = Ops::sub(Ops::zero(), Ops::load_f16(halves + 32));
    scales.min = Ops::mul(minus_dmin, Ops::load_u8(bytes + Format::kMins + index * 16));
  } else {
    scales.scale[0] = Ops::load_f16(halves + index * 32);
    if constexpr (Format::kHasMin) {
      scales.min = Ops::load_f16(halves + Format::kMins + index * 32);
    }
  }
}

// A tile's blocks: per panel the block's quants, per row its activations.
template <int kRows, int kCount>
struct TileBlock {
  const std::byte* quants[kCount];
  const std::byte* x;  // of the first row: a Q16Block
  std::size_t x_stride;

  const Q16Block& row(int r) const {
    return *reinterpret_cast<const Q16Block*>(x + static_cast<std::size_t>(r) * x_stride);
  }
};

// Two elements of every panel by every row: the chains of all sums advance side by side.
template <typename Ops, DType kType, int kGroup, int kPart, int kRows, int kCount>
inline void dot_pair(const TileBlock<kRows, kCount>& tile,
                     typename Ops::Int (&products)[kRows][kCount]) {
  typename Ops::Int q[kCount];
  PM_UNROLL
  for (int p = 0; p < kCount; ++p) q[p] = load_pair<Ops, kType, kGroup, kPart>(tile.quants[p]);
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto shared = Ops::broadcast_i32(tile.row(r).q + kGroup * 4 + kPart * 2);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) products[r][p] = Ops::dot(products[r][p], q[p], shared);
  }
}

template <typename Ops, DType kType, int kGroup, int kRows, int kCount>
inline void dot_group(const TileBlock<kRows, kCount>& tile,
                      typename Ops::Int (&products)[kRows][kCount]) {
  dot_pair<Ops, kType, kGroup, 0>(tile, products);
  dot_pair<Ops, kType, kGroup, 1>(tile, products);
}

// The block's (kHalf < 0) or half a block's sums of products, scaled and added.
template <typename Ops, DType kType, int kHalf, int kRows, int kCount>
inline void add_products(const TileBlock<kRows, kCount>& tile,
                         const Scales<Ops> (&scales)[kCount],
                         typename Ops::Float (&sums)[kRows][kCount]) {
  constexpr int kOffset = PanelFormat<kType>::kOffset;
  typename Ops::Int products[kRows][kCount];
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Q16Block& x = tile.row(r);
    auto start = Ops::zero_int();
    if constexpr (kOffset == 8) start = Ops::broadcast_i32(&x.sum_x8);
    if constexpr (kOffset == 128) start = Ops::broadcast_i32(&x.sum_x128);
    if constexpr (kOffset == 32) start = Ops::broadcast_i32(&x.sum_x32[kHalf]);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) products[r][p] = start;
  }
  // Groups i and i + 4 share a line of nibbles.
  if constexpr (kHalf <= 0) dot_group<Ops, kType, 0>(tile, products);
  if constexpr (kHalf != 0) dot_group<Ops, kType, 4>(tile, products);
  if constexpr (kHalf <= 0) dot_group<Ops, kType, 1>(tile, products);
  if constexpr (kHalf != 0) dot_group<Ops, kType, 5>(tile, products);
  if constexpr (kHalf <= 0) dot_group<Ops, kType, 2>(tile, products);
  if constexpr (kHalf != 0) dot_group<Ops, kType, 6>(tile, products);
  if constexpr (kHalf <= 0) dot_group<Ops, kType, 3>(tile, products);
  if constexpr (kHalf != 0) dot_group<Ops, kType, 7>(tile, products);
  PM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto scale_x = Ops::broadcast_f32(&tile.row(r).scale);
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) {
      const auto scaled = Ops::mul(Ops::to_float(products[r][p]), scales[p].scale[kHalf == 1]);
      sums[r][p] = Ops::fmadd(scaled, scale_x, sums[r][p]);
    }
  }
}

template <typename Ops, DType kType>
struct QuantKernel {
  using Format = PanelFormat<kType>;
  using Float = typename Ops::Float;
  static constexpr int kMaxRows = Ops::kMaxRows;
  static constexpr int panels(int rows) { return Ops::panels(rows); }

  template <int kRows, int kCount, typename Panels>
  static void compute(const MatmulArgs& a, std::int64_t row, const Panels& panels) {
    for (std::int64_t column = 0; column < kPanelCols; column += Ops::kLanes) {
      Float sums[kRows][kCount];
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) sums[r][p] = Ops::zero();
      }
      sum_columns<kRows, kCount>(a, row, panels, column, sums);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        if (panels.index[p] < 0) continue;
        const std::int64_t at = panels.index[p] * kPanelCols + column;
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) Ops::store(a, row + r, at, sums[r][p]);
      }
    }
  }

 private:
  template <int kRows, int kCount>
  static inline void sum_columns(const MatmulArgs& a,
                                 std::int64_t row,
                                 const TilePanels<kCount>& panels,
                                 std::int64_t column,
                                 Float (&sums)[kRows][kCount]) {
    TileBlock<kRows, kCount> tile;
    tile.x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    tile.x_stride = a.x_stride;
    const std::int64_t blocks = a.cols / kQuantBlock;
    for (std::int64_t b = 0; b < blocks; ++b, tile.x += sizeof(Q16Block)) {
      const std::int64_t unit = b / Format::kUnitBlocks * unit_bytes<kType>();
      const int index = static_cast<int>(b % Format::kUnitBlocks);
      Scales<Ops> scales[kCount];
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const std::byte* const data = panels.data[p] + unit;
        load_scales<Ops, kType>(data, index, column, scales[p]);
        tile.quants[p] = data + Format::kQuants + index * Format::kBlockBytes + column * 4;
        prefetch_block<kType>(data + kPrefetchBytes / kCount, index);
      }
      add_block(tile, scales, sums);
    }
  }

  template <int kRows, int kCount>
  static inline void add_block(const TileBlock<kRows, kCount>& tile,
                               const Scales<Ops> (&scales)[kCount],
                               Float (&sums)[kRows][kCount]) {
    if constexpr (kType == DType::kQ6_K) {
      add_products<Ops, kType, 0>(tile, scales, sums);
      add_products<Ops, kType, 1>(tile, scales, sums);
    } else {
      add_products<Ops, kType, -1>(tile, scales, sums);
    }
    if constexpr (Format::kHasMin) {
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const auto scaled_sum = Ops::broadcast_f32(&tile.row(r).scaled_sum);
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) {
          sums[r][p] = Ops::fmadd(scales[p].min, scaled_sum, sums[r][p]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace pagemill
