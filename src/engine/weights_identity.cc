#include "engine/weights_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/sha256.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kSample = 64 << 10, kStride = 16 << 20;

void add(Sha256& hash, const std::string& bytes) {
  hash.update({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

// The beginning, the end, and a sample every kStride bytes.
Status add_file(Sha256& hash, const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  const auto changed = fs::last_write_time(path, error).time_since_epoch().count();
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return io_error(fmt::format("{}: cannot read it", path.string()));
  add(hash, fmt::format("{}:{}:{};", path.filename().string(), size, changed));
  std::string sample;
  for (std::uintmax_t at = 0; at < size; at += kStride) {
    const std::uintmax_t begin = std::min(at, size - std::min(size, kSample));
    sample.resize(std::min(kSample, size - begin));
    file.seekg(static_cast<std::streamoff>(begin));
    file.read(sample.data(), static_cast<std::streamsize>(sample.size()));
    if (!file) return io_error(fmt::format("{}: cannot read it", path.string()));
    add(hash, sample);
  }
  return ok_status();
}

}  // namespace

Result<std::string> weights_identity(const std::string& path) {
  std::vector<fs::path> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const auto& entry : fs::directory_iterator(path, error)) {
      if (entry.is_regular_file(error)) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else {
    files.emplace_back(path);
  }
  Sha256 hash;
  for (const fs::path& file : files) PM_TRY(add_file(hash, file));
  std::string text;
  for (const std::uint8_t byte : hash.finish().bytes) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace pagemill
