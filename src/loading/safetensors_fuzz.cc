// libFuzzer: the header of a safetensors file.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "loading/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tensors = pagemill::parse_safetensors({reinterpret_cast<const std::byte*>(data), size},
                                                   "fuzz.safetensors");
  if (!tensors.ok()) return 0;
  for (const pagemill::StoredTensor& tensor : *tensors) {
    PM_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  return 0;
}
