// The stored (uncompressed) entries of a zip archive, zip64 included (PKWARE's APPNOTE 6.3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pagemill {

struct ZipEntry {
  std::string_view name;
  std::uint64_t offset = 0;  // of the content, bytes from the start of the file
  std::uint64_t bytes = 0;
};

// Views of `bytes`, sorted by name. `file` is named in errors. kUnsupported for compressed,
// encrypted or split archives; folders are left out.
Result<std::vector<ZipEntry>> parse_zip(std::span<const std::byte> bytes, const std::string& file);

}  // namespace pagemill
