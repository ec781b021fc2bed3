// The reference: every format but I8 in f32, one multiplication and one addition per element, K
// ascending. Quantized weights are converted a block at a time and meet f32 activations, so the
// result has the bits of the dequantized matrix. I8 meets I8 activations in integers.
#include <cmath>
#include <cstring>

#include "kernels/int16_scale.h"
#include "kernels/panel_layout.h"
#include "kernels/panel_pack.h"
#include "tensor/float_convert.h"

namespace pagemill::scalar {
namespace {

constexpr std::int64_t kTileRows = 16;  // rows that share one conversion of a block

// w: f32 [count][16], x: f32 [count].
void accumulate(const float* w, const float* x, std::int64_t count, float* sums) {
  for (std::int64_t k = 0; k < count; ++k) {
    for (std::int64_t c = 0; c < kPanelCols; ++c) sums[c] += w[k * kPanelCols + c] * x[k];
  }
}

void store(const MatmulArgs& a, std::int64_t row, std::int64_t panel, const float* sums) {
  for (std::int64_t c = 0; c < kPanelCols && panel * kPanelCols + c < a.rows; ++c) {
    const std::int64_t column = panel * kPanelCols + c;
    float* const y = a.y + row * a.ldy + column;
    float value = sums[c];
    if (a.bias != nullptr) value += a.bias[column];
    *y = a.accumulate ? *y + value : value;
  }
}

// One panel by up to kTileRows rows, in blocks of 32 along K: Weights(panel, block, count,
// w[32][16]) and Activations(row, block, count, x[32]) convert them to f32.
template <typename Weights, typename Activations>
void matmul_blocks(const MatmulArgs& a, Weights weights, Activations activations) {
  float w[kQuantBlock * kPanelCols];
  float x[kQuantBlock];
  for (std::int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
    const std::byte* const data = a.weights + static_cast<std::size_t>(panel) * a.panel_bytes;
    for (std::int64_t row = 0; row < a.num_rows; row += kTileRows) {
      const std::int64_t tile = a.num_rows - row < kTileRows ? a.num_rows - row : kTileRows;
      float sums[kTileRows][kPanelCols] = {};
      for (std::int64_t k = 0; k < a.cols; k += kQuantBlock) {
        const std::int64_t count = a.cols - k < kQuantBlock ? a.cols - k : kQuantBlock;
        weights(data, k / kQuantBlock, count, w);
        for (std::int64_t r = 0; r < tile; ++r) {
          activations(a.x + static_cast<std::size_t>(row + r) * a.x_stride, k, count, x);
          accumulate(w, x, count, sums[r]);
        }
      }
      for (std::int64_t r = 0; r < tile; ++r) store(a, row + r, panel, sums[r]);
    }
  }
}

void copy_x(const std::byte* row, std::int64_t k, std::int64_t count, float* x) {
  std::memcpy(x, row + k * 4, static_cast<std::size_t>(count) * 4);
}

void matmul_f32(const MatmulArgs& a) {
  matmul_blocks(
      a,
      [](const std::byte* panel, std::int64_t block, std::int64_t count, float* w) {
        const std::size_t bytes = static_cast<std::size_t>(count) * kPanelCols * 4;
        std::memcpy(w, panel + block * kQuantBlock * kPanelCols * 4, bytes);
      },
      copy_x);
}

void matmul_f16(const MatmulArgs& a) {
  matmul_blocks(
      a,
      [](const std::byte* panel, std::int64_t block, std::int64_t count, float* w) {
        const auto* const halves =
            reinterpret_cast<const std::uint16_t*>(panel + block * kQuantBlock * kPanelCols * 2);
        for (std::int64_t i = 0; i < count * kPanelCols; ++i) w[i] = f16_to_float(halves[i]);
      },
      copy_x);
}

void matmul_bf16(const MatmulArgs& a) {
  matmul_blocks(
      a,
      [](const std::byte* panel, std::int64_t block, std::int64_t count, float* w) {
        const auto* const pairs =
            reinterpret_cast<const std::uint16_t*>(panel + block * kQuantBlock * kPanelCols * 2);
        for (std::int64_t k = 0; k < count; ++k) {
          for (std::int64_t c = 0; c < kPanelCols; ++c) {
            w[k * kPanelCols + c] = bf16_to_float(pairs[(k / 2 * kPanelCols + c) * 2 + k % 2]);
          }
        }
      },
      copy_x);
}

template <DType kType>
void matmul_quant(const MatmulArgs& a) {
  matmul_blocks(
      a,
      [](const std::byte* panel, std::int64_t block, std::int64_t, float* w) {
        unpack_block(kType, panel, block, w);
      },
      copy_x);
}

constexpr int kPlace[4] = {0, 2, 1, 3};  // of each element of 4, in Q16Block and for I8

void matmul_int8(const MatmulArgs& a) {
  for (std::int64_t panel = a.panel_begin; panel < a.panel_end; ++panel) {
    const std::byte* const data = a.weights + static_cast<std::size_t>(panel) * a.panel_bytes;
    const auto* const quants = reinterpret_cast<const std::int8_t*>(data + kInt8Quants);
    for (std::int64_t row = 0; row < a.num_rows; ++row) {
      const std::byte* const x = a.x + static_cast<std::size_t>(row) * a.x_stride;
      const auto* const q = reinterpret_cast<const std::int16_t*>(x + kInt8RowQuants);
      std::int32_t sums[kPanelCols] = {};
      for (std::int64_t k = 0; k < a.cols; ++k) {
        const std::int32_t shared = q[k / 4 * 4 + kPlace[k % 4]];
        for (std::int64_t c = 0; c < kPanelCols; ++c) {
          sums[c] += shared * quants[(k / 4 * kPanelCols + c) * 4 + k % 4];
        }
      }
      float scale_x = 0;
      float scales[kPanelCols];
      std::memcpy(&scale_x, x, sizeof(scale_x));
      std::memcpy(scales, data, sizeof(scales));
      for (std::int64_t c = 0; c < kPanelCols; ++c) {
        scales[c] = static_cast<float>(sums[c]) * scale_x * scales[c];
      }
      store(a, row, panel, scales);
    }
  }
}

}  // namespace

MatmulFn matmul_fn(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return matmul_f32;
    case DType::kF16:
      return matmul_f16;
    case DType::kBF16:
      return matmul_bf16;
    case DType::kI8:
      return matmul_int8;
    case DType::kQ8_0:
      return matmul_quant<DType::kQ8_0>;
    case DType::kQ4_0:
      return matmul_quant<DType::kQ4_0>;
    case DType::kQ4_1:
      return matmul_quant<DType::kQ4_1>;
    case DType::kQ4_K:
      return matmul_quant<DType::kQ4_K>;
    case DType::kQ5_K:
      return matmul_quant<DType::kQ5_K>;
    case DType::kQ6_K:
      return matmul_quant<DType::kQ6_K>;
    default:
      return nullptr;
  }
}

void prepare_bf16(const float* x, std::int64_t cols, std::byte* out) {
  auto* const rounded = reinterpret_cast<float*>(out);
  for (std::int64_t k = 0; k < cols; ++k) rounded[k] = bf16_to_float(float_to_bf16(x[k]));
  if (cols % 2 != 0) rounded[cols] = 0;
}

void prepare_q16(const float* x, std::int64_t cols, std::byte* out) {
  auto* const blocks = reinterpret_cast<Q16Block*>(out);
  for (std::int64_t b = 0; b < cols / kQuantBlock; ++b) {
    const float* const xb = x + b * kQuantBlock;
    float max = 0;
    bool has_nan = false;
    for (int i = 0; i < 32; ++i) {
      max = std::fabs(xb[i]) > max ? std::fabs(xb[i]) : max;
      has_nan |= std::isnan(xb[i]);
    }
    Q16Block& block = blocks[b];
    const bool finite = max <= kInt16MaxFinite && !has_nan;
    const float factor = int16_factor(max, finite, kQ16Max);
    std::int32_t sums[2] = {0, 0};
    for (int i = 0; i < 32; ++i) {
      const float scaled = finite ? xb[i] * factor : 0.0f;
      const auto q = static_cast<std::int16_t>(std::lrintf(scaled));
      block.q[i / 4 * 4 + kPlace[i % 4]] = q;
      sums[i / 16] += q;
    }
    finish_q16(block, max, finite, sums[0], sums[1]);
  }
}

void prepare_int8(const float* x, std::int64_t cols, std::byte* out) {
  float max = 0;
  bool has_nan = false;
  for (std::int64_t k = 0; k < cols; ++k) {
    max = std::fabs(x[k]) > max ? std::fabs(x[k]) : max;
    has_nan |= std::isnan(x[k]);
  }
  const bool finite = max <= kInt16MaxFinite && !has_nan;
  const float scale = int16_scale(max, finite, kInt8Max);
  const float factor = int16_factor(max, finite, kInt8Max);
  std::memcpy(out, &scale, sizeof(scale));
  auto* const q = reinterpret_cast<std::int16_t*>(out + kInt8RowQuants);
  for (std::int64_t k = 0; k < int8_lines(cols) * 4; ++k) {
    const float scaled = finite && k < cols ? x[k] * factor : 0.0f;
    q[k / 4 * 4 + kPlace[k % 4]] = static_cast<std::int16_t>(std::lrintf(scaled));
  }
}

}  // namespace pagemill::scalar
