// model.safetensors.index.json and pytorch_model.bin.index.json: which shard holds which tensor.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill {

// Tensor name to file name, which is a plain name in the index's own folder, ending in `extension`
// (".safetensors"). `file` is named in errors.
Result<std::map<std::string, std::string>> parse_shard_index(std::string_view text,
                                                             std::string_view extension,
                                                             const std::string& file);

}  // namespace pagemill
