// How packed weights and prepared activations lie in memory, the same for every ISA.
//
// A packed matrix is a sequence of panels of 16 output columns (rows of the weight), each holding
// all of K for its columns, one column a lane. Columns past N are zero. Everything starts on a
// cache line.
//
//   F32    [K][16]
//   F16    [K][16], and 16 zeros after an odd K
//   BF16   [ceil(K/2)][16][2]; the last of an odd K is paired with zero
//   FIXED16  units of 128 along K: scales f32 [16], then as BF16 [64][16][2] of int16; the last
//   unit
//          is of 64 where that holds what is left. Filled up with zeros
//   I8     scales f32 [16], -128 * (the sum of the column's integers) i32 [16], then
//          [ceil(K/4)][16][4] of int8, filled up with zeros
//   Q*     units of 64 (Q8_0, Q4_0, Q4_1) or 256 (K-quants) along K: scales first, then the blocks
//   of
//          32. A block is cut into 8 groups of 4 along K, so that a group is 16 lanes of 4 bytes:
//          two operands of an int16 dot product, the even bytes and the odd ones. Quants are stored
//          unsigned; kOffset is to be subtracted.
//     bytes    [8 groups][16][4]
//     nibbles  [4][16][4]: low nibbles are groups 0-3, high nibbles groups 4-7
//     bits     [16][4]:    bit g of byte i is of element i of group g
//     pairs    [2][16][4]: bits 2p, 2p+1 of byte i of line v are of element i of group 4v+p
//
//   Q8_0   d f16 [2][16],                                        bytes  [2]
//   Q4_0   d f16 [2][16],                                        nibbles[2]
//   Q4_1   d f16 [2][16], m f16 [2][16],                         nibbles[2]
//   Q4_K   d f16 [16], dmin f16 [16], sc u8 [8][16], m u8 [8][16], nibbles[8]
//   Q5_K   as Q4_K,                                              {nibbles, bits}[8]
//   Q6_K   d f16 [16], 32 bytes unused, sc i8 [8][2][16],        {nibbles, pairs}[8]
//
// Prepared activations are rows of f32 (for BF16 weights rounded to bf16, and by kAvx512Bf16 stored
// in 16 bits) with a zero after an odd K, or of Q16Block, or for FIXED16 int16 [K, filled up to
// a multiple of 64] followed by f32 scales [units]. For I8: the f32 scale, then q [K, filled up to
// a multiple of 4 with zeros] as AVX-512 wants it, bytes of q + 128, or as the others do, int16
// with of each 4 the elements 0, 2, 1, 3.
//
// Only constants and plain structs here: this header is compiled for every ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace pagemill {

inline constexpr std::int64_t kPanelCols = 16;
inline constexpr std::int64_t kQuantBlock = 32;  // elements along K
inline constexpr std::int64_t kLine = 64;        // bytes

// A block of 32 activations as int16, with all that the formats need of it. The largest sum of
// products, 32 * 255 * 32767, is far from overflowing an int32, and those with 4-bit weights are
// exact in f32 as well.
struct alignas(32) Q16Block {
  std::int16_t q[32];       // -32767..32767; of each 4, the elements 0, 2, 1, 3
  float scale;              // max|x| / 32767
  float scaled_sum;         // scale * (sum of q), for formats with a minimum
  std::int32_t sum_x8;      // -8 * sum of q: takes back the offset of Q4_0's quants
  std::int32_t sum_x128;    // -128 * sum of q: Q8_0's
  std::int32_t sum_x32[2];  // -32 * sum of each half of q: Q6_K's, which has a scale per 16
  std::int32_t unused[2];
};
static_assert(sizeof(Q16Block) == 96);

// FIXED16: a sum of 128 products, 128 * kFixedMax^2, just fits an int32.
inline constexpr std::int64_t kFixedBlock = 128;  // elements along K
inline constexpr std::int64_t kFixedHalf = 64;    // the last block may be one
inline constexpr float kFixedMax = 4095.0f;       // of weights and of activations
inline constexpr std::int64_t kFixedUnitBytes = kLine + kFixedBlock * kPanelCols * 2;

constexpr std::int64_t fixed_blocks(std::int64_t cols) {
  return (cols + kFixedBlock - 1) / kFixedBlock;
}
constexpr std::int64_t fixed_padded_cols(std::int64_t cols) {
  return (cols + kFixedHalf - 1) / kFixedHalf * kFixedHalf;
}

// I8: sums of products of -128..127 by -127..127 fit an int32 up to kInt8MaxCols.
inline constexpr float kInt8Max = 127.0f;  // of activations
inline constexpr std::int64_t kInt8MaxCols = 131'072;
inline constexpr std::int64_t kInt8Quants = 2 * kLine;  // offset of the integers within a panel
inline constexpr std::int64_t kInt8RowQuants = 4;       // and within a row of activations, bytes

constexpr std::int64_t int8_lines(std::int64_t cols) { return (cols + 3) / 4; }

template <DType kType>
struct PanelFormat;

struct Unit64 {
  static constexpr int kUnitBlocks = 2;
  static constexpr bool kHasMin = false;
};
struct Unit256 {
  static constexpr int kUnitBlocks = 8;
  static constexpr int kScales = 64;  // offset in bytes within the unit
};

template <>
struct PanelFormat<DType::kQ8_0> : Unit64 {
  static constexpr int kQuants = 64;       // offset of the first block's quants, bytes
  static constexpr int kBlockBytes = 512;  // from one block's quants to the next's
  static constexpr int kOffset = 128;
};
template <>
struct PanelFormat<DType::kQ4_0> : Unit64 {
  static constexpr int kQuants = 64;
  static constexpr int kBlockBytes = 256;
  static constexpr int kOffset = 8;
};
template <>
struct PanelFormat<DType::kQ4_1> : Unit64 {
  static constexpr bool kHasMin = true;
  static constexpr int kQuants = 128;
  static constexpr int kMins = 64;
  static constexpr int kBlockBytes = 256;
  static constexpr int kOffset = 0;
};
template <>
struct PanelFormat<DType::kQ4_K> : Unit256 {
  static constexpr bool kHasMin = true;
  static constexpr int kQuants = 64 + 128 + 128;
  static constexpr int kMins = 64 + 128;
  static constexpr int kBlockBytes = 256;
  static constexpr int kOffset = 0;
};
template <>
struct PanelFormat<DType::kQ5_K> : PanelFormat<DType::kQ4_K> {
  static constexpr int kBlockBytes = 256 + 64;
};
template <>
struct PanelFormat<DType::kQ6_K> : Unit256 {
  static constexpr bool kHasMin = false;
  static constexpr int kQuants = 64 + 256;
  static constexpr int kBlockBytes = 256 + 128;
  static constexpr int kOffset = 32;
};

template <DType kType>
constexpr std::int64_t unit_bytes() {
  using Format = PanelFormat<kType>;
  return Format::kQuants + Format::kUnitBlocks * Format::kBlockBytes;
}

// One call of a matmul kernel: rows [0, num_rows) of x by panels [panel_begin, panel_end).
struct MatmulArgs {
  const std::byte* weights;  // panel 0
  std::size_t panel_bytes;
  std::int64_t panel_begin;
  std::int64_t panel_end;
  std::int64_t rows;  // N, output columns
  std::int64_t cols;  // K
  const std::byte* x;
  std::size_t x_stride;  // bytes
  std::int64_t num_rows;
  float* y;  // of row 0, column 0
  std::int64_t ldy;
  const float* bias;  // or null
  bool accumulate;
};
using MatmulFn = void (*)(const MatmulArgs&);

// Null where the ISA has no kernel of the format.
namespace scalar {
MatmulFn matmul_fn(DType dtype);
void prepare_bf16(const float* x, std::int64_t cols, std::byte* out);
void prepare_q16(const float* x, std::int64_t cols, std::byte* out);
void prepare_int8(const float* x, std::int64_t cols, std::byte* out);
}  // namespace scalar
namespace avx2 {
MatmulFn matmul_fn(DType dtype);
MatmulFn matmul_quant_fn(DType dtype);
MatmulFn matmul_int8_fn();
void prepare_bf16(const float* x, std::int64_t cols, std::byte* out);
void prepare_q16(const float* x, std::int64_t cols, std::byte* out);
// May write zeros up to a multiple of 16 values.
void prepare_int8(const float* x, std::int64_t cols, std::byte* out);
}  // namespace avx2
namespace avx512 {
MatmulFn matmul_fn(DType dtype);
MatmulFn matmul_quant_fn(DType dtype);
MatmulFn matmul_kquant_fn(DType dtype);
MatmulFn matmul_fixed16_fn();
MatmulFn matmul_int8_fn();
// Blocks of 128 values x (the last filled up with zeros) as q = round(x * kFixedMax / max|x|) and
// the scale max|x| / kFixedMax: a weight's blocks as DType::kFixed16 has them, or activations. A
// block with a value that is not finite has zeros and the scale NaN.
void quantize_fixed16_weights(const float* x, std::int64_t cols, std::byte* out);
void prepare_fixed16(const float* x, std::int64_t cols, std::byte* out);
// Rounded and not widened again, two to a word: what avx512bf16's BF16 product takes.
void prepare_bf16_pairs(const float* x, std::int64_t cols, std::byte* out);
void prepare_q16(const float* x, std::int64_t cols, std::byte* out);
void prepare_int8(const float* x, std::int64_t cols, std::byte* out);
}  // namespace avx512
namespace avx512bf16 {
MatmulFn matmul_fn(DType dtype);
}  // namespace avx512bf16

}  // namespace pagemill
