// Quantized weights by int8 activations, half a panel (8 columns) at a time: the same exact integer
// sums and the same f32 operations in the same order as the AVX-512 kernels, so the same bits.
#include <cstddef>

#include "kernels/matmul_tile_avx2.h"

namespace pagemill::avx2 {
namespace {

// A block of 32 of 8 columns, unpacked.
struct Block {
  __m256i q[8];     // groups of 4 elements; unsigned bytes, but signed for Q8_0
  __m256 scale[2];  // of each half; one and the same unless the format has a scale per 16
  __m256 min;       // added per element
};

inline __m256 load_f16(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 load_u8(const std::byte* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline __m256 load_i8(const std::byte* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// Bits 4 and up of element quants from `bits`, shifted into place and masked.
inline __m256i add_high_bits(__m256i q, __m256i bits, __m256i mask) {
  return _mm256_or_si256(q, _mm256_and_si256(bits, mask));
}

// `quants` points at this half's 32 bytes of the first line.
template <DType kType>
inline void load_quants(const std::byte* quants, Block& block) {
  if constexpr (kType == DType::kQ8_0) {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
    PM_UNROLL
    for (int g = 0; g < 8; ++g) {
      block.q[g] = _mm256_xor_si256(load_half_line(quants + g * kLine), sign);
    }
    return;
  }
  const __m256i low = _mm256_set1_epi8(15);
  PM_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m256i line = load_half_line(quants + i * kLine);
    block.q[i] = _mm256_and_si256(line, low);
    block.q[i + 4] = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
  }
  if constexpr (kType == DType::kQ5_K) {
    const __m256i mask = _mm256_set1_epi8(0x10);
    const __m256i bits = load_half_line(quants + 4 * kLine);
    PM_UNROLL
    for (int g = 0; g < 8; ++g) {
      const __m256i moved = g < 4 ? _mm256_slli_epi16(bits, 4 - g) : _mm256_srli_epi16(bits, g - 4);
      block.q[g] = add_high_bits(block.q[g], moved, mask);
    }
  }
  if constexpr (kType == DType::kQ6_K) {
    const __m256i mask = _mm256_set1_epi8(0x30);
    PM_UNROLL
    for (int v = 0; v < 2; ++v) {
      const __m256i pairs = load_half_line(quants + (4 + v) * kLine);
      block.q[v * 4] = add_high_bits(block.q[v * 4], _mm256_slli_epi16(pairs, 4), mask);
      block.q[v * 4 + 1] = add_high_bits(block.q[v * 4 + 1], _mm256_slli_epi16(pairs, 2), mask);
      block.q[v * 4 + 2] = add_high_bits(block.q[v * 4 + 2], pairs, mask);
      block.q[v * 4 + 3] = add_high_bits(block.q[v * 4 + 3], _mm256_srli_epi16(pairs, 2), mask);
    }
  }
}

template <DType kType>
inline void load_scales(const std::byte* unit, int index, std::int64_t column, Block& block) {
  using Format = PanelFormat<kType>;
  const std::byte* const halves = unit + column * 2;
  const std::byte* const bytes = unit + column;
  if constexpr (kType == DType::kQ6_K) {
    const __m256 d = load_f16(halves);
    const int scales = Format::kScales + index * 32;
    block.scale[0] = _mm256_mul_ps(d, load_i8(bytes + scales));
    block.scale[1] = _mm256_mul_ps(d, load_i8(bytes + scales + 16));
  } else if constexpr (Format::kUnitBlocks == 8) {
    block.scale[0] = _mm256_mul_ps(load_f16(halves), load_u8(bytes + Format::kScales + index * 16));
    const __m256 minus_dmin = _mm256_sub_ps(_mm256_setzero_ps(), load_f16(halves + 32));
    block.min = _mm256_mul_ps(minus_dmin, load_u8(bytes + Format::kMins + index * 16));
  } else {
    block.scale[0] = load_f16(halves + index * 32);
    if constexpr (Format::kHasMin) block.min = load_f16(halves + Format::kMins + index * 32);
  }
}

// How many sums of two products (at most 2 * quant * 127) an int16 holds without saturating.
template <DType kType>
constexpr int kGroupsPerInt16 = kType == DType::kQ8_0   ? 1
                                : kType == DType::kQ6_K ? 2
                                : kType == DType::kQ5_K ? 4
                                                        : 8;
static_assert(8 * 2 * 15 * 127 <= 32767 && 4 * 2 * 31 * 127 <= 32767 && 2 * 2 * 63 * 127 <= 32767 &&
              2 * 128 * 127 <= 32767);

// The sum of products of groups [kFirst, kLast). Groups 0-3 are the first half.
template <DType kType, int kFirst, int kLast>
inline __m256i dot_groups(const Block& block, const Q8Block& x) {
  constexpr int kRun =
      kGroupsPerInt16<kType> < kLast - kFirst ? kGroupsPerInt16<kType> : kLast - kFirst;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
  PM_UNROLL
  for (int first = kFirst; first < kLast; first += kRun) {
    __m256i run = _mm256_setzero_si256();
    PM_UNROLL
    for (int g = first; g < first + kRun; ++g) {
      const __m256i shared = broadcast_i32(x.q + g * 4);
      const __m256i products = kType == DType::kQ8_0
                                   ? _mm256_maddubs_epi16(_mm256_abs_epi8(block.q[g]),
                                                          _mm256_sign_epi8(shared, block.q[g]))
                                   : _mm256_maddubs_epi16(block.q[g], shared);
      run = g == first ? products : _mm256_add_epi16(run, products);
    }
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(run, ones));
  }
  return sum;
}

inline __m256 add_scaled(__m256 sum, __m256i products, __m256 scale, __m256 scale_x) {
  return _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(products), scale), scale_x, sum);
}

template <DType kType>
inline __m256 add_block(__m256 sum, const Block& block, const Q8Block& x) {
  using Format = PanelFormat<kType>;
  const __m256 scale_x = broadcast_f32(&x.scale);
  if constexpr (kType == DType::kQ6_K) {
    const __m256i first =
        _mm256_add_epi32(dot_groups<kType, 0, 4>(block, x), broadcast_i32(&x.sum_x32[0]));
    const __m256i second =
        _mm256_add_epi32(dot_groups<kType, 4, 8>(block, x), broadcast_i32(&x.sum_x32[1]));
    sum = add_scaled(sum, first, block.scale[0], scale_x);
    return add_scaled(sum, second, block.scale[1], scale_x);
  } else {
    __m256i products = dot_groups<kType, 0, 8>(block, x);
    if constexpr (kType == DType::kQ4_0) {
      products = _mm256_add_epi32(products, broadcast_i32(&x.sum_x8));
    }
    sum = add_scaled(sum, products, block.scale[0], scale_x);
    if constexpr (Format::kHasMin) {
      sum = _mm256_fmadd_ps(block.min, broadcast_f32(&x.scaled_sum), sum);
    }
    return sum;
  }
}

template <DType kType>
struct QuantKernel {
  using Format = PanelFormat<kType>;
  static constexpr int kMaxRows = 4;
  static constexpr int panels(int rows) { return rows == 1 ? 2 : 1; }

  template <int kRows, int kCount>
  static void compute(const MatmulArgs& a, std::int64_t row, const TilePanels<kCount>& panels) {
    for (std::int64_t half = 0; half < 2; ++half) {
      __m256 sums[kRows][kCount];
      PM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        PM_UNROLL
        for (int p = 0; p < kCount; ++p) sums[r][p] = _mm256_setzero_ps();
      }
      sum_half<kRows, kCount>(a, row, panels, half * kHalfCols, sums);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        if (panels.index[p] < 0) continue;
        const std::int64_t column = panels.index[p] * kPanelCols + half * kHalfCols;
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) store_sums(a, row + r, column, sums[r][p]);
      }
    }
  }

  template <int kRows, int kCount>
  static inline void sum_half(const MatmulArgs& a,
                              std::int64_t row,
                              const TilePanels<kCount>& panels,
                              std::int64_t column,
                              __m256 (&sums)[kRows][kCount]) {
    const std::byte* x = a.x + static_cast<std::size_t>(row) * a.x_stride;
    const std::int64_t blocks = a.cols / kQuantBlock;
    for (std::int64_t b = 0; b < blocks; ++b, x += sizeof(Q8Block)) {
      const std::int64_t unit = b / Format::kUnitBlocks * unit_bytes<kType>();
      const int index = static_cast<int>(b % Format::kUnitBlocks);
      PM_UNROLL
      for (int p = 0; p < kCount; ++p) {
        const std::byte* const data = panels.data[p] + unit;
        const std::byte* const quants = data + Format::kQuants + index * Format::kBlockBytes;
        prefetch_block<kType>(data + kPrefetchBytes / kCount, index);
        Block block;
        load_scales<kType>(data, index, column, block);
        load_quants<kType>(quants + column * 4, block);
        PM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const auto& xb =
              *reinterpret_cast<const Q8Block*>(x + static_cast<std::size_t>(r) * a.x_stride);
          sums[r][p] = add_block<kType>(sums[r][p], block, xb);
        }
      }
    }
  }
};

}  // namespace

MatmulFn matmul_quant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return run_tiles<QuantKernel<DType::kQ8_0>>;
    case DType::kQ4_0:
      return run_tiles<QuantKernel<DType::kQ4_0>>;
    case DType::kQ4_1:
      return run_tiles<QuantKernel<DType::kQ4_1>>;
    case DType::kQ4_K:
      return run_tiles<QuantKernel<DType::kQ4_K>>;
    case DType::kQ5_K:
      return run_tiles<QuantKernel<DType::kQ5_K>>;
    case DType::kQ6_K:
      return run_tiles<QuantKernel<DType::kQ6_K>>;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx2
