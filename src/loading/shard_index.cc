#include "loading/shard_index.h"

#include <utility>

#include "loading/json_text.h"
#include "loading/stored_tensor.h"

namespace pagemill {
namespace {

// No separators, no NUL, nothing hidden: a shard can't lead out of the model's folder.
bool is_plain_name(std::string_view name, std::string_view extension) {
  return name.size() > extension.size() && name.size() <= 255 && name.ends_with(extension) &&
         name.front() != '.' && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
}

}  // namespace

Result<std::map<std::string, std::string>> parse_shard_index(std::string_view text,
                                                             std::string_view extension,
                                                             const std::string& file) {
  PM_ASSIGN(const nlohmann::json index, parse_json(text, file));
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object()) {
    return corrupt(fmt::format("{}: it needs an object 'weight_map'", file));
  }
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string() || !is_plain_name(shard.get_ref<const std::string&>(), extension)) {
      return corrupt(fmt::format(
          "{}: weight_map[{}]: {} is not the name of a '{}' file in the same folder",
          file,
          in_quotes(tensor),
          shard.is_string() ? in_quotes(shard.get_ref<const std::string&>()) : shard.type_name(),
          extension));
    }
    shards.emplace(tensor, shard.get<std::string>());
  }
  if (shards.empty()) return corrupt(fmt::format("{}: 'weight_map' is empty", file));
  return shards;
}

}  // namespace pagemill
