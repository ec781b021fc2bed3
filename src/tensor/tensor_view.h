// A typed, shaped, read-only view of bytes that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace pagemill {

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t>
      shape;  // row-major, outermost first: a weight is [out_features, in_features]
  const std::byte* data = nullptr;  // contiguous; alignment is not guaranteed

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (std::int64_t d : shape) n *= d;
    return n;
  }
  std::size_t bytes() const { return dtype_bytes(dtype, elements()); }
};

}  // namespace pagemill
