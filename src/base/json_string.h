// JSON strings, for what writes JSON below the libraries that do.
#pragma once

#include <string>
#include <string_view>

namespace pagemill {

// Appends `text` (UTF-8) in quotes, with what JSON wants escaped.
void append_json_string(std::string_view text, std::string* out);

}  // namespace pagemill
