// A restricted unpickler: reads the state dict that torch.save wrote, and executes nothing.
//
// Pickle is a program for a stack machine (CPython's Lib/pickletools.py documents the opcodes).
// Only the opcodes and the globals that a dict of tensors needs are known here, and a global is a
// name, not code: calling one builds a description of a tensor. Everything else is refused by name
// and offset.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace pagemill {

// A view of the pickle's bytes, but for the numbers.
struct PickledTensor {
  std::string_view name;
  DType dtype = DType::kF32;
  std::string_view storage;           // the key of the storage's entry in the archive
  std::int64_t storage_elements = 0;  // as the pickle claims
  std::int64_t storage_offset = 0;    // elements
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> stride;  // elements, one per dimension
};

inline constexpr std::uint64_t kMaxPickleBytes = std::uint64_t{64} << 20;
inline constexpr std::size_t kMaxPickleValues = 8'000'000;

// `base` is the offset of `pickle` in `file`, both for messages.
Result<std::vector<PickledTensor>> read_state_dict(std::span<const std::byte> pickle,
                                                   const std::string& file,
                                                   std::uint64_t base);

}  // namespace pagemill
