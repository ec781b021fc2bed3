#include "tensor/dtype.h"

#include <array>

#include "base/check.h"

namespace pagemill {
namespace {

// In the order of the enum.
constexpr std::array<DTypeInfo, 17> kInfo = {{
    {"F32", 1, 4},
    {"F16", 1, 2},
    {"BF16", 1, 2},
    {"F64", 1, 8},
    {"I8", 1, 1},
    {"I16", 1, 2},
    {"I32", 1, 4},
    {"I64", 1, 8},
    {"U8", 1, 1},
    {"BOOL", 1, 1},
    {"FIXED16", 128, 260},
    {"Q8_0", 32, 34},
    {"Q4_0", 32, 18},
    {"Q4_1", 32, 20},
    {"Q4_K", 256, 144},
    {"Q5_K", 256, 176},
    {"Q6_K", 256, 210},
}};

}  // namespace

const DTypeInfo& dtype_info(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  PM_CHECK(index < kInfo.size(), "dtype {}", index);
  return kInfo[index];
}

std::size_t dtype_bytes(DType dtype, std::int64_t elements) {
  const DTypeInfo& info = dtype_info(dtype);
  PM_CHECK(elements >= 0 && elements % info.block_elements == 0,
           "{} elements of {}",
           elements,
           info.name);
  return static_cast<std::size_t>(elements / info.block_elements) *
         static_cast<std::size_t>(info.block_bytes);
}

}  // namespace pagemill
