// The directory of a safetensors file (the format is documented in the huggingface/safetensors
// README): u64 header length, a JSON header, the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "loading/stored_tensor.h"

namespace pagemill {

inline constexpr std::uint64_t kMaxSafetensorsHeader =
    100'000'000;  // bytes, the format's own limit

// `file` is named in errors, which also name the tensor or the byte of the header. Tensors come in
// the header's order. kUnsupported for a type that DType lacks.
Result<std::vector<StoredTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                    const std::string& file);

}  // namespace pagemill
