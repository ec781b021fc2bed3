// Quantized weights by many rows: some blocks of a pair of panels are unpacked to int16 once, and
// every tile of rows passes over them. Few rows unpack in registers (matmul_quant_generic.h). Both
// scale the same exact sums in the same order, so both give the same bits.
#pragma once

#include "kernels/matmul_quant_avx512.h"

namespace pagemill::avx512 {
namespace {

// A block of 32 as lines of 16 columns: int16 pairs, offset subtracted, then f32 scales (two where
// the format has one per 16), then the f32 minimum if there is one.
template <DType kType>
struct UnpackedBlock {
  static constexpr int kHalves = kType == DType::kQ6_K ? 2 : 1;
  static constexpr int kPairs = kQuantBlock / 2;
  static constexpr int kMin = kPairs + kHalves;
  static constexpr int kLines = kMin + (PanelFormat<kType>::kHasMin ? 1 : 0);
  static constexpr std::int64_t kBytes = kLines * kLine;
};

template <DType kType, int kGroup = 0>
inline void unpack_groups(const std::byte* quants, std::byte* to) {
  if constexpr (kGroup < kQuantBlock / 4) {
    const __m512i offset = QuantOps::set_i16(PanelFormat<kType>::kOffset);
    const __m512i even = load_pair<QuantOps, kType, kGroup, 0>(quants);
    const __m512i odd = load_pair<QuantOps, kType, kGroup, 1>(quants);
    _mm512_store_si512(to + 2 * kGroup * kLine, _mm512_sub_epi16(even, offset));
    _mm512_store_si512(to + (2 * kGroup + 1) * kLine, _mm512_sub_epi16(odd, offset));
    unpack_groups<kType, kGroup + 1>(quants, to);
  }
}

// Blocks [begin, end) of a panel; `begin` is the first of a unit.
template <DType kType>
void unpack_blocks(const std::byte* panel, std::int64_t begin, std::int64_t end, std::byte* to) {
  using Format = PanelFormat<kType>;
  using Block = UnpackedBlock<kType>;
  for (std::int64_t b = begin; b < end; ++b, to += Block::kBytes) {
    const std::byte* const unit = panel + b / Format::kUnitBlocks * unit_bytes<kType>();
    const int index = static_cast<int>(b % Format::kUnitBlocks);
    unpack_groups<kType>(unit + Format::kQuants + index * Format::kBlockBytes, to);
    Scales<QuantOps> scales;
    load_scales<QuantOps, kType>(unit, index, 0, scales);
    for (int half = 0; half < Block::kHalves; ++half) {
      _mm512_store_ps(to + (Block::kPairs + half) * kLine, scales.scale[half]);
    }
    if constexpr (Format::kHasMin) _mm512_store_ps(to + Block::kMin * kLine, scales.min);
  }
}

template <DType kType>
class QuantRows {
 public:
  static constexpr int kMaxRows = 6;

  static void run(const MatmulArgs& a) {
    if (a.num_rows <= kFewRows || a.num_rows > kMostRows) {
      return run_tiles<QuantKernel<QuantOps, kType>>(a);
    }
    alignas(kLine) std::byte unpacked[kColumns][kChunkBlocks * Block::kBytes];
    alignas(kLine) float sums[kMostRows][kColumns][kPanelCols];
    const std::int64_t blocks = a.cols / kQuantBlock;
    const std::int64_t chunks = (blocks + kChunkBlocks - 1) / kChunkBlocks;
    const std::int64_t units = (blocks + kUnitBlocks - 1) / kUnitBlocks;
    const std::int64_t per_chunk = (units + chunks - 1) / chunks * kUnitBlocks;
    for (std::int64_t panel = a.panel_begin; panel < a.panel_end; panel += kColumns) {
      for (std::int64_t begin = 0; begin < blocks; begin += per_chunk) {
        const std::int64_t end = begin + per_chunk < blocks ? begin + per_chunk : blocks;
        PM_UNROLL
        for (int p = 0; p < kColumns; ++p) {
          // A last panel without a neighbour is its own, unstored.
          const std::int64_t index = panel + p < a.panel_end ? panel + p : panel;
          unpack_blocks<kType>(a.weights + index * static_cast<std::int64_t>(a.panel_bytes),
                               begin,
                               end,
                               unpacked[p]);
        }
        const Pass pass{a, panel, begin, end, unpacked[0], sums};
        const Ahead ahead = next_read(a, panel, begin, end, per_chunk);
        for_each_row_tile<QuantRows>(a.num_rows,
                                     [&](std::int64_t row, std::int64_t height, std::int64_t tile) {
                                       ahead.fetch(tile);
                                       height == 4   ? add_tile<4>(pass, row)
                                       : height == 5 ? add_tile<5>(pass, row)
                                                     : add_tile<6>(pass, row);
                                     });
      }
    }
  }

 private:
  using Format = PanelFormat<kType>;
  using Block = UnpackedBlock<kType>;
  static constexpr int kColumns = 2;  // panels: 6 rows by 2 are 12 chains, each of two registers
  static constexpr std::int64_t kUnitBlocks = Format::kUnitBlocks;
  // Unpacked they fit half of the first-level cache's 48 KB.
  static constexpr std::int64_t kChunkBlocks = kUnitBlocks == 8 ? 8 : 10;
  static constexpr std::int64_t kFewRows = 24;    // they would not pay for the unpacking
  static constexpr std::int64_t kMostRows = 240;  // matmul.cc cuts no longer runs

  // One chunk of one pair of panels.
  struct Pass {
    const MatmulArgs& a;
    std::int64_t panel;
    std::int64_t begin;  // blocks
    std::int64_t end;
    const std::byte* unpacked;
    float (*sums)[kColumns][kPanelCols];
  };

  // What is unpacked next, fetched little by little: a part with each tile of rows.
  struct Ahead {
    const std::byte* data[kColumns];
    std::int64_t bytes;  // of each
    std::int64_t part;   // bytes

    void fetch(std::int64_t tile) const {
      const std::int64_t end = (tile + 1) * part < bytes ? (tile + 1) * part : bytes;
      for (std::int64_t at = tile * part; at < end; at += kLine) {
        PM_UNROLL
        for (int p = 0; p < kColumns; ++p) __builtin_prefetch(data[p] + at, 0, 2);
      }
    }
  };

  static Ahead next_read(const MatmulArgs& a,
                         std::int64_t panel,
                         std::int64_t begin,
                         std::int64_t end,
                         std::int64_t per_chunk) {
    const std::int64_t chunk_bytes = per_chunk / kUnitBlocks * unit_bytes<kType>();
    const bool same_panels = end < a.cols / kQuantBlock;
    const std::int64_t at = same_panels ? (begin / per_chunk + 1) * chunk_bytes : 0;
    const std::int64_t next = same_panels ? panel : panel + kColumns;
    Ahead ahead{};
    PM_UNROLL
    for (int p = 0; p < kColumns; ++p) {
      const std::int64_t index = next + p < a.panel_end ? next + p : a.panel_begin;
      ahead.data[p] = a.weights + index * static_cast<std::int64_t>(a.panel_bytes) + at;
    }
    const std::int64_t tiles = (a.num_rows + kMaxRows - 1) / kMaxRows;
    ahead.bytes = chunk_bytes;
    ahead.part = (chunk_bytes / kLine + tiles - 1) / tiles * kLine;
    return ahead;
  }

  template <int kRows>
  static void add_tile(const Pass& pass, std::int64_t row) {
    const MatmulArgs& a = pass.a;
    __m512 sums[kRows][kColumns];
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kColumns; ++p) {
        sums[r][p] = pass.begin == 0 ? _mm512_setzero_ps() : _mm512_load_ps(pass.sums[row + r][p]);
      }
    }
    const std::byte* x =
        a.x + static_cast<std::size_t>(row) * a.x_stride + pass.begin * sizeof(Q16Block);
    const std::byte* block = pass.unpacked;
    for (std::int64_t b = pass.begin; b < pass.end; ++b) {
      add_block<kRows>(block, x, a.x_stride, sums);
      block += Block::kBytes;
      x += sizeof(Q16Block);
    }
    const bool last = pass.end == a.cols / kQuantBlock;
    PM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      PM_UNROLL
      for (int p = 0; p < kColumns; ++p) {
        if (!last) {
          _mm512_store_ps(pass.sums[row + r][p], sums[r][p]);
        } else if (pass.panel + p < a.panel_end) {
          store_sums(a, row + r, pass.panel + p, sums[r][p]);
        }
      }
    }
  }

  static const std::byte* line(const std::byte* block, int p, int index) {
    return block + p * kChunkBlocks * Block::kBytes + index * kLine;
  }

  template <int kRows>
  static inline void add_block(const std::byte* block,
                               const std::byte* x,
                               std::size_t x_stride,
                               __m512 (&sums)[kRows][kColumns]) {
    const auto row = [&](int r) -> const Q16Block& {
      return *reinterpret_cast<const Q16Block*>(x + static_cast<std::size_t>(r) * x_stride);
    };
    PM_UNROLL
    for (int half = 0; half < Block::kHalves; ++half) {
      __m512i products[kRows][kColumns];
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        PM_UNROLL
        for (int p = 0; p < kColumns; ++p) products[r][p] = _mm512_setzero_si512();
      }
      PM_UNROLL
      for (int i = 0; i < Block::kPairs / Block::kHalves; ++i) {
        const int pair = half * (Block::kPairs / Block::kHalves) + i;
        const __m512i first = load_line(line(block, 0, pair));
        const __m512i second = load_line(line(block, 1, pair));
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const __m512i shared = broadcast_i32(row(r).q + 2 * pair);
          add_dot_i16(products[r][0], first, shared);
          add_dot_i16(products[r][1], second, shared);
        }
      }
      PM_UNROLL
      for (int p = 0; p < kColumns; ++p) {
        const __m512 scale = _mm512_load_ps(line(block, p, Block::kPairs + half));
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const __m512 scaled =
              _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(0xffff, products[r][p]), scale);
          sums[r][p] = _mm512_fmadd_ps(scaled, broadcast_f32(&row(r).scale), sums[r][p]);
        }
      }
    }
    if constexpr (Format::kHasMin) {
      PM_UNROLL
      for (int p = 0; p < kColumns; ++p) {
        const __m512 min = _mm512_load_ps(line(block, p, Block::kMin));
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sums[r][p] = _mm512_fmadd_ps(min, broadcast_f32(&row(r).scaled_sum), sums[r][p]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace pagemill::avx512
