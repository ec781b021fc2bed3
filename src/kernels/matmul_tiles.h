// Cuts a kernel call into register tiles of kRows rows by a few panels. Included by each ISA's
// sources: everything is in an unnamed namespace, so that no copy compiled for one ISA is linked
// into another.
#pragma once

#include "kernels/panel_layout.h"
#include "kernels/unroll.h"

namespace pagemill {
namespace {

// Ahead of what is being read, over all streams of a tile: what hides the latency of memory.
constexpr std::int64_t kPrefetchBytes = 4096;

// Prefetches block `index`'s share of the lines of a unit, its scales included.
template <DType kType>
inline void prefetch_block(const std::byte* unit, int index) {
  constexpr std::int64_t kShare = unit_bytes<kType>() / PanelFormat<kType>::kUnitBlocks;
  PM_UNROLL
  for (std::int64_t at = 0; at < kShare; at += kLine) {
    __builtin_prefetch(unit + index * kShare + at, 0, 3);
  }
}

// kCount panels, each a stream of its own; a stream that has run out repeats the first, unstored.
template <int kCount>
struct TilePanels {
  const std::byte* data[kCount];
  std::int64_t index[kCount];  // -1: not to be stored

  // To be called for each line (`at` bytes into the panel) that is read of panel `p`.
  void prefetch(int p, std::int64_t at) const {
    __builtin_prefetch(data[p] + at + kPrefetchBytes / kCount, 0, 3);
  }
};

// The same, fetching a part of other panels meanwhile: 2^-shift of them.
template <int kCount>
struct GroupPanels {
  const std::byte* data[kCount];
  std::int64_t index[kCount];
  const std::byte* ahead[kCount];
  int shift;

  void prefetch(int p, std::int64_t at) const {
    __builtin_prefetch(ahead[p] + (at >> shift), 0, 3);
  }
};

// A tile of rows by all panels. A stream runs through neighbouring panels, so that what is
// prefetched past the end of one is the next.
template <typename Kernel, int kRows>
void run_streams(const MatmulArgs& a, std::int64_t row) {
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

using StreamsFn = void (*)(const MatmulArgs&, std::int64_t);

template <typename Kernel, int kRows>
StreamsFn streams_fn(std::int64_t rows) {
  if (rows == kRows) return run_streams<Kernel, kRows>;
  if constexpr (kRows > 1) return streams_fn<Kernel, kRows - 1>(rows);
  return nullptr;
}

// Panels that stay in the second-level cache while all rows pass over them, beside the next ones.
constexpr std::int64_t kGroupBytes = 128 << 10;

// A tile of rows by the panels [first, end) of a group of `group` panels. `share`, of 2^shift, says
// which part of the next group is fetched meanwhile; none past the last.
template <typename Kernel, int kRows>
void run_row_tile(const MatmulArgs& a,
                  std::int64_t row,
                  std::int64_t first,
                  std::int64_t group,
                  std::int64_t share,
                  int shift) {
  constexpr int kCount = Kernel::panels(Kernel::kMaxRows);
  const auto panel_bytes = static_cast<std::int64_t>(a.panel_bytes);
  const std::int64_t end = first + group < a.panel_end ? first + group : a.panel_end;
  const std::int64_t ahead =
      share >> shift == 0 ? group * panel_bytes + share * (panel_bytes >> shift) : 0;
  GroupPanels<kCount> panels;
  panels.shift = shift;
  for (; first < end; first += kCount) {
    PM_UNROLL
    for (int p = 0; p < kCount; ++p) {
      const bool valid = first + p < end;
      panels.index[p] = valid ? first + p : -1;
      panels.data[p] = a.weights + (valid ? first + p : first) * panel_bytes;
      panels.ahead[p] = panels.data[p] + ahead;
    }
    Kernel::template compute<kRows, kCount>(a, row, panels);
  }
}

template <typename Kernel, int kRows>
auto row_tile_fn(std::int64_t rows) {
  if constexpr (kRows > (Kernel::kMaxRows + 1) / 2) {
    if (rows < kRows) return row_tile_fn<Kernel, kRows - 1>(rows);
  }
  return run_row_tile<Kernel, kRows>;
}

// Calls fn(row, height, tile) for tiles of even height: 17 rows are 9 and 8, not 12 and 5.
template <typename Kernel, typename Fn>
void for_each_row_tile(std::int64_t num_rows, Fn fn) {
  const std::int64_t tiles = (num_rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
  std::int64_t row = 0;
  for (std::int64_t t = 0; t < tiles; ++t) {
    const std::int64_t height = (num_rows - row + tiles - t - 1) / (tiles - t);
    fn(row, height, t);
    row += height;
  }
}

// The rows of a tile stay in L1 while the chunk's panels stream: for weights so small, or so dear
// to unpack, that fetching them is hidden anyhow.
template <typename Kernel>
void run_tiles(const MatmulArgs& a) {
  for_each_row_tile<Kernel>(a.num_rows, [&](std::int64_t row, std::int64_t height, std::int64_t) {
    streams_fn<Kernel, Kernel::kMaxRows>(height)(a, row);
  });
}

// For weights of 16 bits and more. Few rows stream. Of many, a group of panels at a time comes from
// memory for the first tile and from the cache for the others, while the next group is fetched
// little by little.
template <typename Kernel>
void run_groups(const MatmulArgs& a) {
  if (a.num_rows <= Kernel::kMaxRows) {
    return streams_fn<Kernel, Kernel::kMaxRows>(a.num_rows)(a, 0);
  }
  constexpr int kCount = Kernel::panels(Kernel::kMaxRows);
  const std::int64_t fitting = kGroupBytes / static_cast<std::int64_t>(a.panel_bytes);
  const std::int64_t group = fitting < kCount ? kCount : fitting / kCount * kCount;
  int shift = 1;  // over 2^shift tiles of rows the next group is fetched
  while ((Kernel::kMaxRows << (shift + 1)) <= a.num_rows) ++shift;
  for (std::int64_t first = a.panel_begin; first < a.panel_end; first += group) {
    for_each_row_tile<Kernel>(
        a.num_rows, [&](std::int64_t row, std::int64_t height, std::int64_t tile) {
          row_tile_fn<Kernel, Kernel::kMaxRows>(height)(a, row, first, group, tile, shift);
        });
  }
}

}  // namespace
}  // namespace pagemill
