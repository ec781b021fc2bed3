// libFuzzer: a torch.save archive; input that is no zip archive is taken as its bare pickle.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "loading/state_dict_pickle.h"
#include "loading/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  if (size < 2 || data[0] != 'P' || data[1] != 'K') {
    (void)pagemill::read_state_dict(bytes, "fuzz.pkl", 0);
    return 0;
  }
  const auto tensors = pagemill::parse_torch_file(bytes, "fuzz.bin");
  if (!tensors.ok()) return 0;
  for (const pagemill::StoredTensor& tensor : *tensors) {
    PM_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
  }
  return 0;
}
