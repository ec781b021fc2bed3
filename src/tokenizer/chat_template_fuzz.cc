// libFuzzer: a chat template's source, rendered on one conversation.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tokenizer/tokenizer.h"

namespace {

std::shared_ptr<const pagemill::Tokenizer> tiny_tokenizer() {
  std::string folder =
      (std::filesystem::temp_directory_path() / "pm_chat_template_fuzz_XXXXXX").string();
  PM_CHECK(mkdtemp(folder.data()) != nullptr, "no temporary folder");
  std::ofstream(folder + "/tokenizer.json")
      << R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})";
  std::ofstream(folder + "/tokenizer_config.json") << R"({"bos_token": "a", "eos_token": "b"})";
  auto loaded = pagemill::Tokenizer::from_directory(folder);
  std::filesystem::remove_all(folder);
  PM_CHECK(loaded.ok(), "{}", loaded.error().message);
  return *loaded;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer = tiny_tokenizer();
  std::string source(reinterpret_cast<const char*>(data), size);
  auto compiled = pagemill::ChatTemplate::compile(std::move(source), *tokenizer);
  if (!compiled.ok()) return 0;
  (void)(*compiled)->render(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "héllo\n"}],
          "tools": [{"name": "f", "n": 1.5, "list": [null, true]}], "add_generation_prompt": true})");
  return 0;
}
