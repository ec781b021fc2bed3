// Cuts a kernel call into register tiles of kRows rows by a few panels. Included by each ISA's
// sources: everything is in an unnamed namespace, so that no copy compiled for one ISA is linked
// into another.
#pragma once

#include "kernels/panel_layout.h"

#if defined(__clang__)
#define PM_UNROLL _Pragma("unroll")
#else
#define PM_UNROLL _Pragma("GCC unroll 32")
#endif

namespace pagemill {
namespace {

// kCount panels, each a stream of its own; a stream that has run out repeats the first, unstored.
template <int kCount>
struct TilePanels {
  const std::byte* data[kCount];
  std::int64_t index[kCount];  // -1: not to be stored
};

// Prefetches block `index`'s share of the lines of a unit, its scales included.
template <DType kType>
inline void prefetch_block(const std::byte* unit, int index) {
  constexpr std::int64_t kShare = unit_bytes<kType>() / PanelFormat<kType>::kUnitBlocks;
  PM_UNROLL
  for (std::int64_t at = 0; at < kShare; at += kLine) {
    __builtin_prefetch(unit + index * kShare + at, 0, 3);
  }
}

// Row tiles outside, panels inside: the rows of a tile stay in L1 while the chunk's panels stream.
// A stream runs through neighbouring panels, so that what is prefetched past the end of one is the
// next.
template <typename Kernel, int kRows>
void run_row_tile(const MatmulArgs& a, std::int64_t row) {
  constexpr int kCount = Kernel::panels(kRows);
  const std::int64_t panels = a.panel_end - a.panel_begin;
  const std::int64_t steps = (panels + kCount - 1) / kCount;
  for (std::int64_t i = 0; i < steps; ++i) {
    TilePanels<kCount> tile;
    PM_UNROLL
    for (int s = 0; s < kCount; ++s) {
      const std::int64_t at = s * steps + i;
      const bool valid = at < panels;
      const std::int64_t index = a.panel_begin + (valid ? at : i);
      tile.data[s] = a.weights + static_cast<std::size_t>(index) * a.panel_bytes;
      tile.index[s] = valid ? index : -1;
    }
    Kernel::template compute<kRows, kCount>(a, row, tile);
  }
}

using RowTileFn = void (*)(const MatmulArgs&, std::int64_t);

template <typename Kernel, int kRows>
RowTileFn row_tile_fn(std::int64_t rows) {
  if (rows == kRows) return run_row_tile<Kernel, kRows>;
  if constexpr (kRows > 1) return row_tile_fn<Kernel, kRows - 1>(rows);
  return nullptr;
}

// Tiles of even height: 17 rows are 9 and 8, not 12 and 5.
template <typename Kernel>
void run_tiles(const MatmulArgs& a) {
  const std::int64_t tiles = (a.num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  std::int64_t row = 0;
  for (std::int64_t t = 0; t < tiles; ++t) {
    const std::int64_t height = (a.num_rows - row + tiles - t - 1) / (tiles - t);
    row_tile_fn<Kernel, Kernel::kMaxRows>(height)(a, row);
    row += height;
  }
}

}  // namespace
}  // namespace pagemill
