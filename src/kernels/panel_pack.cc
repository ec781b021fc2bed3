#include "kernels/panel_pack.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

using Rows = std::array<const std::byte*, kPanelCols>;

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

std::uint32_t u32(const std::byte* p) { return load<std::uint32_t>(p); }

// Lane `column` of line `line` of 16 lanes of 4 bytes.
std::byte* lane(std::byte* lines, int line, std::int64_t column) {
  return lines + line * kLine + column * 4;
}

constexpr std::uint32_t kLow = 0x0f0f0f0f;

// ---- packing: one block of one column at a time; `quants` is the block's place in the unit ----

struct Q8_0 : PanelFormat<DType::kQ8_0> {
  static void pack(const std::byte* src, int block, std::int64_t column, std::byte* unit) {
    std::memcpy(unit + block * 32 + column * 2, src, 2);
    std::byte* const quants = unit + kQuants + block * kBlockBytes;
    for (int g = 0; g < 8; ++g) {
      store(lane(quants, g, column), u32(src + 2 + g * 4) ^ 0x80808080u);  // -128..127 to 0..255
    }
  }
};

struct Q4_0 : PanelFormat<DType::kQ4_0> {
  static void pack(const std::byte* src, int block, std::int64_t column, std::byte* unit) {
    std::memcpy(unit + block * 32 + column * 2, src, 2);
    std::byte* const quants = unit + kQuants + block * kBlockBytes;
    for (int i = 0; i < 4; ++i) store(lane(quants, i, column), u32(src + 2 + i * 4));
  }
};

struct Q4_1 : PanelFormat<DType::kQ4_1> {
  static void pack(const std::byte* src, int block, std::int64_t column, std::byte* unit) {
    std::memcpy(unit + block * 32 + column * 2, src, 2);
    std::memcpy(unit + kMins + block * 32 + column * 2, src + 2, 2);
    std::byte* const quants = unit + kQuants + block * kBlockBytes;
    for (int i = 0; i < 4; ++i) store(lane(quants, i, column), u32(src + 4 + i * 4));
  }
};

// The 6-bit scales and mins of Q4_K and Q5_K, unpacked to bytes (dequantize.cc explains the
// packing).
void pack_k_scales(const std::byte* src, std::int64_t column, std::byte* unit) {
  using Format = PanelFormat<DType::kQ4_K>;
  std::memcpy(unit + column * 2, src, 2);
  std::memcpy(unit + 32 + column * 2, src + 2, 2);
  const auto byte = [&](int i) { return std::to_integer<int>(src[4 + i]); };
  for (int s = 0; s < 8; ++s) {
    const int scale = s < 4 ? byte(s) & 63 : (byte(s + 4) & 15) | (byte(s - 4) >> 6 << 4);
    const int min = s < 4 ? byte(s + 4) & 63 : byte(s + 4) >> 4 | (byte(s) >> 6 << 4);
    unit[Format::kScales + s * 16 + column] = static_cast<std::byte>(scale);
    unit[Format::kMins + s * 16 + column] = static_cast<std::byte>(min);
  }
}

// Sub-block s of 32 lies in the low (s even) or high nibbles of 32 bytes: brings its two halves of
// 16 together, the first in low nibbles.
void pack_k_nibbles(const std::byte* src, bool high, std::int64_t column, std::byte* quants) {
  const int shift = high ? 4 : 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t first = (u32(src + i * 4) >> shift) & kLow;
    const std::uint32_t second = (u32(src + 16 + i * 4) >> shift) & kLow;
    store(lane(quants, i, column), first | second << 4);
  }
}

struct Q4_K : PanelFormat<DType::kQ4_K> {
  static void pack(const std::byte* src, std::int64_t column, std::byte* unit) {
    pack_k_scales(src, column, unit);
    for (int s = 0; s < 8; ++s) {
      pack_k_nibbles(src + 16 + s / 2 * 32, s % 2 != 0, column, unit + kQuants + s * kBlockBytes);
    }
  }
};

struct Q5_K : PanelFormat<DType::kQ5_K> {
  static void pack(const std::byte* src, std::int64_t column, std::byte* unit) {
    pack_k_scales(src, column, unit);
    for (int s = 0; s < 8; ++s) {
      std::byte* const quants = unit + kQuants + s * kBlockBytes;
      pack_k_nibbles(src + 48 + s / 2 * 32, s % 2 != 0, column, quants);
      std::uint32_t bits = 0;
      for (int g = 0; g < 8; ++g) bits |= ((u32(src + 16 + g * 4) >> s) & 0x01010101u) << g;
      store(lane(quants, 4, column), bits);
    }
  }
};

struct Q6_K : PanelFormat<DType::kQ6_K> {
  static void pack(const std::byte* src, std::int64_t column, std::byte* unit) {
    std::memcpy(unit + column * 2, src + 208, 2);
    for (int s = 0; s < 16; ++s) unit[kScales + s * 16 + column] = src[192 + s];
    for (int s = 0; s < 8; ++s) {
      const int half = s / 4;
      const int part = s % 4;
      std::byte* const quants = unit + kQuants + s * kBlockBytes;
      pack_k_nibbles(src + half * 64 + part % 2 * 32, part >= 2, column, quants);
      const std::byte* const high = src + 128 + half * 32;
      for (int v = 0; v < 2; ++v) {
        std::uint32_t pairs = 0;
        for (int p = 0; p < 4; ++p) {
          pairs |= ((u32(high + v * 16 + p * 4) >> (2 * part)) & 0x03030303u) << (2 * p);
        }
        store(lane(quants, 4 + v, column), pairs);
      }
    }
  }
};

// Formats with blocks of 32 fill a unit from several source blocks, K-quants from one.
template <typename Format, DType kType>
void pack_quantized(const Rows& rows, std::int64_t cols, std::byte* panel) {
  constexpr bool kOneBlockUnits = Format::kUnitBlocks == 8;
  const DTypeInfo& info = dtype_info(kType);
  const std::int64_t blocks = cols / info.block_elements;
  constexpr std::array<std::byte, 256> kZeros{};
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::byte* src = rows[c] != nullptr ? rows[c] + b * info.block_bytes : kZeros.data();
      if constexpr (kOneBlockUnits) {
        Format::pack(src, c, panel + b * unit_bytes<kType>());
      } else {
        Format::pack(src, static_cast<int>(b % 2), c, panel + b / 2 * unit_bytes<kType>());
      }
    }
  }
  if (!kOneBlockUnits &&
      blocks % 2 != 0) {  // an absent second block: never read, but not left wild
    std::byte* const unit = panel + blocks / 2 * unit_bytes<kType>();
    std::memset(unit + Format::kQuants + Format::kBlockBytes, 0, Format::kBlockBytes);
    for (int line = 0; line < Format::kQuants; line += kLine) std::memset(unit + line + 32, 0, 32);
  }
}

void pack_f32(const Rows& rows, std::int64_t cols, std::byte* panel) {
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    for (std::int64_t k = 0; k < cols; ++k) {
      const float value = rows[c] != nullptr ? load<float>(rows[c] + k * 4) : 0.0f;
      store(panel + (k * kPanelCols + c) * 4, value);
    }
  }
}

void pack_f16(const Rows& rows, std::int64_t cols, std::byte* panel) {
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    for (std::int64_t k = 0; k < cols + cols % 2; ++k) {
      const bool zero = rows[c] == nullptr || k == cols;
      const auto value = zero ? std::uint16_t{0} : load<std::uint16_t>(rows[c] + k * 2);
      store(panel + (k * kPanelCols + c) * 2, value);
    }
  }
}

void pack_bf16(const Rows& rows, std::int64_t cols, std::byte* panel) {
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    const std::byte* const row = rows[c];
    for (std::int64_t pair = 0; pair < cols / 2; ++pair) {
      store(panel + (pair * kPanelCols + c) * 4, row != nullptr ? u32(row + pair * 4) : 0u);
    }
    if (cols % 2 != 0) {
      const std::uint32_t last = row != nullptr ? load<std::uint16_t>(row + (cols - 1) * 2) : 0u;
      store(panel + (cols / 2 * kPanelCols + c) * 4, last);
    }
  }
}

void pack_fixed16(const Rows& rows, std::int64_t cols, std::byte* panel) {
  constexpr std::int64_t kBytes = kFixedBlock * 2 + 4;
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    for (std::int64_t b = 0; b < fixed_blocks(cols); ++b) {
      const std::byte* const src = rows[c] != nullptr ? rows[c] + b * kBytes : nullptr;
      std::byte* const unit = panel + b * kFixedUnitBytes;
      store(unit + c * 4, src != nullptr ? load<float>(src + kFixedBlock * 2) : 0.0f);
      const std::int64_t pairs =
          std::min(kFixedBlock, fixed_padded_cols(cols) - b * kFixedBlock) / 2;
      for (int i = 0; i < pairs; ++i) {
        store(lane(unit + kLine, i, c), src != nullptr ? u32(src + i * 4) : 0u);
      }
    }
  }
}

// ---- unpacking: kCount columns from `column` of one block, as f32 [32][kCount] ----

struct QuantPlace {
  const std::byte* unit;
  int block;  // within the unit
};

template <DType kType>
QuantPlace place(const std::byte* panel, std::int64_t block) {
  constexpr int kBlocks = PanelFormat<kType>::kUnitBlocks;
  return {panel + block / kBlocks * unit_bytes<kType>(), static_cast<int>(block % kBlocks)};
}

// The quant of element `i` (0..3) of group `group`, unsigned, with its offset.
template <DType kType>
int quant(const std::byte* quants, int group, std::int64_t column, int i) {
  const std::int64_t at = column * 4 + i;
  const auto byte = [&](int line) { return std::to_integer<int>(quants[line * kLine + at]); };
  if constexpr (kType == DType::kQ8_0) return byte(group);
  const int nibble = (byte(group % 4) >> (group / 4 * 4)) & 15;
  if constexpr (kType == DType::kQ5_K) return nibble | ((byte(4) >> group) & 1) << 4;
  if constexpr (kType == DType::kQ6_K) {
    return nibble | ((byte(4 + group / 4) >> (group % 4 * 2)) & 3) << 4;
  }
  return nibble;
}

template <DType kType>
struct ScaleMin {
  float scale[2];  // of each half of the block
  float min;
};

template <DType kType>
ScaleMin<kType> scale_min(QuantPlace at, std::int64_t column) {
  using Format = PanelFormat<kType>;
  const auto half = [&](int offset) {
    return f16_to_float(load<std::uint16_t>(at.unit + offset + column * 2));
  };
  const auto byte = [&](int offset) {
    return std::to_integer<std::uint8_t>(at.unit[offset + column]);
  };
  if constexpr (kType == DType::kQ6_K) {
    const float d = half(0);
    const int scales = Format::kScales + at.block * 32;
    return {{d * static_cast<float>(static_cast<std::int8_t>(byte(scales))),
             d * static_cast<float>(static_cast<std::int8_t>(byte(scales + 16)))},
            0.0f};
  } else if constexpr (Format::kUnitBlocks == 8) {
    const float scale = half(0) * static_cast<float>(byte(Format::kScales + at.block * 16));
    return {{scale, scale}, -(half(32) * static_cast<float>(byte(Format::kMins + at.block * 16)))};
  } else {
    const float d = half(at.block * 32);
    if constexpr (Format::kHasMin) return {{d, d}, half(Format::kMins + at.block * 32)};
    return {{d, d}, 0.0f};
  }
}

// A function that converts a whole block keeps the inner loop over the columns vectorisable.
template <DType kType, int kCount>
void unpack_columns(const std::byte* panel, std::int64_t block, std::int64_t column, float* out) {
  using Format = PanelFormat<kType>;
  const QuantPlace at = place<kType>(panel, block);
  const std::byte* const quants = at.unit + Format::kQuants + at.block * Format::kBlockBytes;
  float scales[2][kCount];
  float mins[kCount];
  for (int c = 0; c < kCount; ++c) {
    const ScaleMin<kType> s = scale_min<kType>(at, column + c);
    scales[0][c] = s.scale[0];
    scales[1][c] = s.scale[1];
    mins[c] = s.min;
  }
  for (int k = 0; k < 32; ++k) {
    const float* const scale = scales[k / 16];
    for (int c = 0; c < kCount; ++c) {
      const int q = quant<kType>(quants, k / 4, column + c, k % 4) - Format::kOffset;
      const float product = scale[c] * static_cast<float>(q);
      out[k * kCount + c] = Format::kHasMin ? product + mins[c] : product;
    }
  }
}

template <int kCount>
void unpack_any(
    DType dtype, const std::byte* panel, std::int64_t block, std::int64_t column, float* out) {
  switch (dtype) {
    case DType::kQ8_0:
      return unpack_columns<DType::kQ8_0, kCount>(panel, block, column, out);
    case DType::kQ4_0:
      return unpack_columns<DType::kQ4_0, kCount>(panel, block, column, out);
    case DType::kQ4_1:
      return unpack_columns<DType::kQ4_1, kCount>(panel, block, column, out);
    case DType::kQ4_K:
      return unpack_columns<DType::kQ4_K, kCount>(panel, block, column, out);
    case DType::kQ5_K:
      return unpack_columns<DType::kQ5_K, kCount>(panel, block, column, out);
    case DType::kQ6_K:
      return unpack_columns<DType::kQ6_K, kCount>(panel, block, column, out);
    default:
      PM_CHECK(false, "no panels of {}", dtype_info(dtype).name);
  }
}

template <DType kType>
std::size_t quantized_bytes(std::int64_t cols) {
  constexpr std::int64_t kUnit = PanelFormat<kType>::kUnitBlocks * kQuantBlock;
  return static_cast<std::size_t>((cols + kUnit - 1) / kUnit * unit_bytes<kType>());
}

}  // namespace

bool is_panel_dtype(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype == DType::kI8 || is_quantized(dtype);
}

std::size_t panel_bytes(DType dtype, std::int64_t cols) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<std::size_t>(cols * kPanelCols * 4);
    case DType::kF16:
    case DType::kBF16:
      return static_cast<std::size_t>((cols + 1) / 2 * kPanelCols * 4);
    case DType::kI8:
      return static_cast<std::size_t>(kInt8Quants + int8_lines(cols) * kLine);
    case DType::kFixed16:
      return static_cast<std::size_t>((fixed_blocks(cols) + fixed_padded_cols(cols) / 2) * kLine);
    case DType::kQ8_0:
      return quantized_bytes<DType::kQ8_0>(cols);
    case DType::kQ4_0:
      return quantized_bytes<DType::kQ4_0>(cols);
    case DType::kQ4_1:
      return quantized_bytes<DType::kQ4_1>(cols);
    case DType::kQ4_K:
      return quantized_bytes<DType::kQ4_K>(cols);
    case DType::kQ5_K:
      return quantized_bytes<DType::kQ5_K>(cols);
    case DType::kQ6_K:
      return quantized_bytes<DType::kQ6_K>(cols);
    default:
      PM_CHECK(false, "no panels of {}", dtype_info(dtype).name);
  }
}

void pack_panel(DType dtype, const Rows& rows, std::int64_t cols, std::byte* panel) {
  switch (dtype) {
    case DType::kF32:
      return pack_f32(rows, cols, panel);
    case DType::kF16:
      return pack_f16(rows, cols, panel);
    case DType::kBF16:
      return pack_bf16(rows, cols, panel);
    case DType::kFixed16:
      return pack_fixed16(rows, cols, panel);
    case DType::kQ8_0:
      return pack_quantized<Q8_0, DType::kQ8_0>(rows, cols, panel);
    case DType::kQ4_0:
      return pack_quantized<Q4_0, DType::kQ4_0>(rows, cols, panel);
    case DType::kQ4_1:
      return pack_quantized<Q4_1, DType::kQ4_1>(rows, cols, panel);
    case DType::kQ4_K:
      return pack_quantized<Q4_K, DType::kQ4_K>(rows, cols, panel);
    case DType::kQ5_K:
      return pack_quantized<Q5_K, DType::kQ5_K>(rows, cols, panel);
    case DType::kQ6_K:
      return pack_quantized<Q6_K, DType::kQ6_K>(rows, cols, panel);
    default:
      PM_CHECK(false, "no panels of {}", dtype_info(dtype).name);
  }
}

void pack_int8_panel(const Rows& rows,
                     const std::array<float, kPanelCols>& scales,
                     std::int64_t cols,
                     std::byte* panel) {
  for (std::int64_t c = 0; c < kPanelCols; ++c) {
    const std::byte* const row = rows[c];
    std::int32_t sum = 0;
    for (std::int64_t k = 0; k < int8_lines(cols) * 4; ++k) {
      const std::byte quant = row != nullptr && k < cols ? row[k] : std::byte{0};
      sum += static_cast<std::int8_t>(quant);
      panel[kInt8Quants + (k / 4 * kPanelCols + c) * 4 + k % 4] = quant;
    }
    store(panel + c * 4, scales[c]);
    store(panel + kLine + c * 4, -128u * static_cast<std::uint32_t>(sum));  // wraps around
  }
}

void unpack_block(DType dtype, const std::byte* panel, std::int64_t block, float* out) {
  unpack_any<kPanelCols>(dtype, panel, block, 0, out);
}

void unpack_column(
    DType dtype, const std::byte* panel, std::int64_t column, std::int64_t cols, float* out) {
  if (dtype == DType::kF32) {
    for (std::int64_t k = 0; k < cols; ++k) {
      out[k] = load<float>(panel + (k * kPanelCols + column) * 4);
    }
  } else if (dtype == DType::kF16) {
    for (std::int64_t k = 0; k < cols; ++k) {
      out[k] = f16_to_float(load<std::uint16_t>(panel + (k * kPanelCols + column) * 2));
    }
  } else if (dtype == DType::kBF16) {
    for (std::int64_t k = 0; k < cols; ++k) {
      const std::byte* const pair = panel + (k / 2 * kPanelCols + column) * 4;
      out[k] = bf16_to_float(load<std::uint16_t>(pair + k % 2 * 2));
    }
  } else if (dtype == DType::kI8) {
    const auto scale = load<float>(panel + column * 4);
    for (std::int64_t k = 0; k < cols; ++k) {
      const std::byte* const quads = panel + kInt8Quants + (k / 4 * kPanelCols + column) * 4;
      out[k] = scale * static_cast<float>(load<std::int8_t>(quads + k % 4));
    }
  } else if (dtype == DType::kFixed16) {
    for (std::int64_t k = 0; k < cols; ++k) {
      const std::byte* const unit = panel + k / kFixedBlock * kFixedUnitBytes;
      const std::byte* const pair = unit + kLine + (k % kFixedBlock / 2 * kPanelCols + column) * 4;
      out[k] =
          load<float>(unit + column * 4) * static_cast<float>(load<std::int16_t>(pair + k % 2 * 2));
    }
  } else {
    for (std::int64_t b = 0; b < cols / kQuantBlock; ++b) {
      unpack_any<1>(dtype, panel, b, column, out + b * kQuantBlock);
    }
  }
}

}  // namespace pagemill
