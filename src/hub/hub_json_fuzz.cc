// libFuzzer: what the Hub says of a repository, and the index of shards that it sends.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "hub/file_choice.h"
#include "hub/hub_client.h"
#include "hub/repo_name.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace pagemill;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto shards = shards_of_index(text, "fuzz.index.json"); shards.ok()) {
    for (const auto& name : *shards) PM_CHECK(is_safe_file_name(name), "{}", name);
  }
  const auto info = parse_repo_info(text, "fuzz");
  if (!info.ok()) return 0;
  PM_CHECK(is_commit(info->commit));
  for (const auto& name : info->files) PM_CHECK(is_safe_file_name(name), "{}", name);
  for (const FileWish& wish : {FileWish{}, FileWish{"Q4_0", ""}}) {
    const auto choice = choose_files(info->files, wish, "fuzz");
    if (!choice.ok()) continue;
    for (const auto& name : choice->files) PM_CHECK(is_safe_file_name(name), "{}", name);
  }
  return 0;
}
