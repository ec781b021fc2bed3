// libFuzzer: config.json, its quantization_config, and the index of shards.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "loading/hf_config.h"
#include "loading/json_text.h"
#include "loading/quantization.h"
#include "loading/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)pagemill::parse_shard_index(text, ".safetensors", "fuzz.index.json");
  auto parsed = pagemill::parse_json(text, "fuzz.json");
  if (!parsed.ok()) return 0;
  const auto config = pagemill::normalize_config(std::move(*parsed), "fuzz.json");
  if (!config.ok()) return 0;
  PM_CHECK(config->at("rope_theta").is_number());
  PM_CHECK(config->at("rope_scaling").is_null() || config->at("rope_scaling").is_object());
  (void)config->dump();
  (void)pagemill::parse_quantization(*config, "fuzz.json");
  return 0;
}
