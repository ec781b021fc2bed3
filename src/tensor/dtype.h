// Element types and block-quantized formats of tensors, and their sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pagemill {

// The quantized formats are ggml's (GGUF v3): a block of `block_elements` consecutive elements
// along the innermost dimension shares its scales.
enum class DType : std::uint8_t {
  kF32,
  kF16,
  kBF16,
  kF64,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kBool,
  // Block fixed point, the kernels' own (no file has it): 128 x int16 (-4095..4095), f32 d; w = d *
  // q
  kFixed16,
  kQ8_0,  // 32 elements: f16 d, 32 x int8;                              w = d * q
  kQ4_0,  // 32: f16 d, 16 bytes of nibbles (element i low, i+16 high);  w = d * (q - 8)
  kQ4_1,  // 32: f16 d, f16 m, 16 bytes of nibbles;                      w = d * q + m
  kQ4_K,  // 256: f16 d, f16 dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles
  kQ5_K,  // 256: as Q4_K with 32 bytes of high bits before the nibbles
  kQ6_K,  // 256: 128 bytes low nibbles, 64 bytes high pairs, 16 x int8 scales, f16 d
};

struct DTypeInfo {
  std::string_view name;        // as printed and as in --dtype: "F32", "BF16", "Q4_K"
  std::int32_t block_elements;  // 1 for the plain types
  std::int32_t block_bytes;
};

const DTypeInfo& dtype_info(DType dtype);
inline bool is_quantized(DType dtype) { return dtype >= DType::kQ8_0; }

// Bytes of `elements` elements; `elements` must be a multiple of the block size.
std::size_t dtype_bytes(DType dtype, std::int64_t elements);

}  // namespace pagemill
