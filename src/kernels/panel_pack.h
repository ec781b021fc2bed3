// Packing weights into panels, and reading packed weights back (panel_layout.h says how they lie).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/panel_layout.h"
#include "tensor/dtype.h"

namespace pagemill {

// Whether matrices can be stored as `dtype`.
bool is_panel_dtype(DType dtype);

std::size_t panel_bytes(DType dtype, std::int64_t cols);

// Packs one panel of `dtype`, not I8, from 16 rows of the same dtype; a null row is zeros. `cols`
// is a multiple of the format's block. Sources need no alignment.
void pack_panel(DType dtype,
                const std::array<const std::byte*, kPanelCols>& rows,
                std::int64_t cols,
                std::byte* panel);

// The same of int8 rows, `scales` being what their integers are to be multiplied by.
void pack_int8_panel(const std::array<const std::byte*, kPanelCols>& rows,
                     const std::array<float, kPanelCols>& scales,
                     std::int64_t cols,
                     std::byte* panel);

// The 16 columns of block `block` (32 elements along K) of a quantized panel as f32 [32][16]: the
// bits that dequantize_row gives.
void unpack_block(DType dtype, const std::byte* panel, std::int64_t block, float* out);

// Column `column` (0..15) of a panel as f32 [cols].
void unpack_column(
    DType dtype, const std::byte* panel, std::int64_t column, std::int64_t cols, float* out);

}  // namespace pagemill
