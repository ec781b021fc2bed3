// Every element type to f32, one element at a time: the reference for the vector kernels, and for
// what is small or rare (norm weights, inspection).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace pagemill {

// `elements` consecutive elements from `src` (any alignment) to `out`; a multiple of the format's
// block size. Quantized formats as ggml defines them (the formulas stand in dtype.h): one rounding
// per float operation, in the order written there, no fused multiply-add. Integers and F64 round to
// nearest; BOOL gives 0 or 1.
void dequantize_row(DType dtype, const std::byte* src, std::int64_t elements, float* out);

}  // namespace pagemill
