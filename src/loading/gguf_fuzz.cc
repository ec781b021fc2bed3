// libFuzzer: GGUF metadata, tensor directory and the configuration made from them.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "loading/gguf.h"
#include "loading/gguf_config.h"
#include "loading/gguf_names.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file =
      pagemill::GgufFile::parse({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
  if (!file.ok()) return 0;
  for (const pagemill::StoredTensor& tensor : file->tensors()) {
    PM_CHECK(tensor.offset <= size && tensor.bytes <= size - tensor.offset);
    (void)pagemill::huggingface_tensor_name(tensor.name);
  }
  const auto config = pagemill::gguf_config(*file);
  if (config.ok()) (void)config->dump();
  (void)pagemill::gguf_generation_config(*file);
  return 0;
}
