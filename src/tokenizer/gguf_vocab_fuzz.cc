// libFuzzer: a GGUF file's bytes as a tokenizer.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int kFile = memfd_create("gguf", 0);
  PM_CHECK(kFile >= 0, "no memory file");
  PM_CHECK(ftruncate(kFile, 0) == 0, "ftruncate");
  PM_CHECK(pwrite(kFile, data, size, 0) == static_cast<ssize_t>(size), "pwrite");
  auto loaded = pagemill::Tokenizer::from_gguf("/proc/self/fd/" + std::to_string(kFile));
  if (!loaded.ok()) return 0;
  auto ids = (*loaded)->encode("a page of 12 <s> ☃", true);
  if (ids.ok()) (void)(*loaded)->decode(*ids, false);
  return 0;
}
