// One entry of a weight file's directory, and the checks that every format shares.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace pagemill {

struct StoredTensor {
  std::string name;  // the file's own
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;  // row-major, outermost first; {} is a scalar
  std::uint64_t offset = 0;         // bytes from the start of the file
  std::uint64_t bytes = 0;
};

// More dimensions than any weight has, and few enough that a hostile shape costs nothing.
inline constexpr std::size_t kMaxTensorRank = 8;
// A directory longer than this is refused: the largest published models have some 100,000 tensors.
inline constexpr std::size_t kMaxTensors = 1'000'000;

// The product of `shape`, or nothing if a dimension is negative or the product passes 2^62.
std::optional<std::int64_t> checked_elements(std::span<const std::int64_t> shape);

// Bytes of a tensor of `shape`, or nothing where checked_elements has none, where they pass 2^62,
// or where the innermost dimension is not whole blocks of a quantized type.
std::optional<std::uint64_t> checked_bytes(DType dtype, std::span<const std::int64_t> shape);

// "[2, 3]".
std::string shape_to_string(std::span<const std::int64_t> shape);

// `text` in quotes for an error message: shortened, with control characters escaped, since a
// hostile file chooses it.
std::string in_quotes(std::string_view text);

// Refuses two tensors of one name, or, unless `may_share`, two that overlap in the file.
Status check_directory(std::span<const StoredTensor> tensors,
                       const std::string& file,
                       bool may_share);

}  // namespace pagemill
