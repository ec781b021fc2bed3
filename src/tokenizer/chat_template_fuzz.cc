// libFuzzer: a chat template's source, rendered on one conversation.
#include <cstdint>
#include <string>

#include "base/files_testing.h"
#include "tokenizer/tokenizer.h"

namespace {

std::shared_ptr<const pagemill::Tokenizer> tiny_tokenizer() {
  const pagemill::TemporaryFolder folder;
  folder.write("tokenizer.json",
               R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})");
  folder.write("tokenizer_config.json", R"({"bos_token": "a", "eos_token": "b"})");
  auto loaded = pagemill::Tokenizer::from_directory(folder.path());
  PM_CHECK(loaded.ok(), "{}", loaded.error().message);
  return *loaded;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto kTokenizer = tiny_tokenizer();
  std::string source(reinterpret_cast<const char*>(data), size);
  auto compiled = pagemill::ChatTemplate::compile(std::move(source), *kTokenizer);
  if (!compiled.ok()) return 0;
  (void)(*compiled)->render(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "héllo\n"}],
          "tools": [{"name": "f", "n": 1.5, "list": [null, true]}], "add_generation_prompt": true})");
  return 0;
}
