#include "loading/zip_reader.h"

#include <algorithm>
#include <optional>

#include "loading/byte_reader.h"
#include "loading/stored_tensor.h"

namespace pagemill {
namespace {

constexpr std::uint32_t kLocalSignature = 0x04034b50;
constexpr std::uint32_t kCentralSignature = 0x02014b50;
constexpr std::uint32_t kEndSignature = 0x06054b50;
constexpr std::uint32_t kEnd64Signature = 0x06064b50;
constexpr std::uint32_t kLocator64Signature = 0x07064b50;
constexpr std::size_t kEndBytes = 22;
constexpr std::size_t kLocator64Bytes = 20;
constexpr std::size_t kCentralBytes = 46;
constexpr std::size_t kMaxComment = 0xffff;
constexpr std::uint16_t kZip64Field = 1;
constexpr std::uint16_t kEncryptedFlag = 1;

struct Directory {
  std::uint64_t count = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

class ZipParser {
 public:
  ZipParser(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  Result<std::vector<ZipEntry>> run() {
    PM_ASSIGN(const Directory directory, find_directory());
    std::vector<ZipEntry> entries;
    ByteReader reader(bytes_.subspan(0, directory.offset + directory.bytes), directory.offset);
    for (std::uint64_t i = 0; i < directory.count; ++i) {
      PM_ASSIGN(const ZipEntry entry, central_entry(reader));
      if (!entry.name.ends_with('/')) entries.push_back(entry);
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return a.name < b.name;
    });
    const auto twice = std::adjacent_find(
        entries.begin(), entries.end(), [](auto& a, auto& b) { return a.name == b.name; });
    if (twice != entries.end()) {
      return fail(twice->offset, "zip entry {} occurs twice", in_quotes(twice->name));
    }
    return entries;
  }

 private:
  template <typename... Args>
  Error fail(std::uint64_t offset, fmt::format_string<Args...> format, Args&&... args) const {
    return corrupt(fmt::format(
        "{}: offset {}: {}", file_, offset, fmt::format(format, std::forward<Args>(args)...)));
  }
  template <typename... Args>
  Error refuse(std::uint64_t offset, fmt::format_string<Args...> format, Args&&... args) const {
    Error error = fail(offset, format, std::forward<Args>(args)...);
    error.code = ErrorCode::kUnsupported;
    return error;
  }

  // The end record stands last, but for a comment of its own stated length.
  std::optional<std::size_t> find_end() const {
    if (bytes_.size() < kEndBytes) return std::nullopt;
    const std::size_t last = bytes_.size() - kEndBytes;
    for (std::size_t back = 0; back <= std::min(last, kMaxComment); ++back) {
      ByteReader reader(bytes_, last - back);
      std::uint32_t signature = 0;
      std::uint16_t comment = 0;
      if (reader.read(signature) && signature == kEndSignature && reader.skip(16) &&
          reader.read(comment) && comment == back) {
        return last - back;
      }
    }
    return std::nullopt;
  }

  Result<Directory> find_directory() const {
    const auto end = find_end();
    if (!end) {
      return fail(bytes_.size(),
                  "no zip end record; is the file complete, and a torch.save archive?");
    }
    ByteReader reader(bytes_, *end + 4);
    std::uint16_t disk = 0, directory_disk = 0, count_here = 0, count = 0;
    std::uint32_t size = 0, offset = 0;
    PM_CHECK(reader.read(disk) && reader.read(directory_disk) && reader.read(count_here) &&
             reader.read(count) && reader.read(size) && reader.read(offset));
    Directory directory{count, offset, size};
    if (count == 0xffff || size == 0xffffffff || offset == 0xffffffff) {
      PM_ASSIGN(directory, find_directory64(*end));
    } else if (disk != 0 || directory_disk != 0 || count_here != count) {
      return refuse(*end, "a zip archive split over several files");
    }
    if (directory.offset > *end || directory.bytes > *end - directory.offset) {
      return fail(*end,
                  "a zip directory of {} bytes at {} does not lie before its end record",
                  directory.bytes,
                  directory.offset);
    }
    if (directory.count > directory.bytes / kCentralBytes) {
      return fail(*end,
                  "{} zip entries claimed in a directory of {} bytes",
                  directory.count,
                  directory.bytes);
    }
    return directory;
  }

  Result<Directory> find_directory64(std::size_t end) const {
    if (end < kLocator64Bytes) return fail(end, "the zip64 locator is missing");
    ByteReader locator(bytes_, end - kLocator64Bytes);
    std::uint32_t signature = 0, disk = 0;
    std::uint64_t offset = 0;
    PM_CHECK(locator.read(signature) && locator.read(disk) && locator.read(offset));
    if (signature != kLocator64Signature) return fail(end, "the zip64 locator is missing");
    if (disk != 0) return refuse(end, "a zip archive split over several files");
    if (offset > end) return fail(end, "the zip64 end record at {} is outside the file", offset);
    ByteReader reader(bytes_, static_cast<std::size_t>(offset));
    std::uint64_t here = 0;
    Directory directory;
    if (!reader.read(signature) || signature != kEnd64Signature || !reader.skip(20) ||
        !reader.read(here) || !reader.read(directory.count) || !reader.read(directory.bytes) ||
        !reader.read(directory.offset) || here != directory.count) {
      return fail(offset, "the zip64 end record is damaged");
    }
    return directory;
  }

  Result<ZipEntry> central_entry(ByteReader& reader) const {
    const std::uint64_t start = reader.offset();
    std::uint32_t signature = 0, packed32 = 0, unpacked32 = 0, local32 = 0;
    std::uint16_t flags = 0, method = 0, name_bytes = 0, extra_bytes = 0, comment_bytes = 0;
    ZipEntry entry;
    if (!reader.read(signature) || signature != kCentralSignature || !reader.skip(4) ||
        !reader.read(flags) || !reader.read(method) || !reader.skip(8) || !reader.read(packed32) ||
        !reader.read(unpacked32) || !reader.read(name_bytes) || !reader.read(extra_bytes) ||
        !reader.read(comment_bytes) || !reader.skip(8) || !reader.read(local32) ||
        !reader.read_text(name_bytes, entry.name)) {
      return fail(start, "the zip directory is damaged");
    }
    const std::uint64_t extra_end = reader.offset() + extra_bytes;
    std::uint64_t packed = packed32, unpacked = unpacked32, local = local32;
    if (unpacked32 == 0xffffffff || packed32 == 0xffffffff || local32 == 0xffffffff) {
      ByteReader extra(bytes_.subspan(0, std::min<std::uint64_t>(extra_end, bytes_.size())),
                       reader.offset());
      if (!find_zip64_field(extra) || (unpacked32 == 0xffffffff && !extra.read(unpacked)) ||
          (packed32 == 0xffffffff && !extra.read(packed)) ||
          (local32 == 0xffffffff && !extra.read(local))) {
        return fail(start, "zip entry {}: its zip64 sizes are missing", in_quotes(entry.name));
      }
    }
    if (!reader.skip(std::uint64_t{extra_bytes} + comment_bytes)) {
      return fail(start, "the zip directory is damaged");
    }
    if ((flags & kEncryptedFlag) != 0) {
      return refuse(start, "zip entry {} is encrypted", in_quotes(entry.name));
    }
    if (method != 0 || packed != unpacked) {
      return refuse(
          start, "zip entry {} is compressed; torch.save stores plainly", in_quotes(entry.name));
    }
    entry.bytes = packed;
    PM_ASSIGN(entry.offset, content_offset(entry, local));
    return entry;
  }

  // Moves to the content of the zip64 field among the extra fields.
  static bool find_zip64_field(ByteReader& extra) {
    std::uint16_t id = 0, bytes = 0;
    while (extra.read(id) && extra.read(bytes)) {
      if (id == kZip64Field) return true;
      if (!extra.skip(bytes)) return false;
    }
    return false;
  }

  // The local header's name and extra field may differ in length from the directory's.
  Result<std::uint64_t> content_offset(const ZipEntry& entry, std::uint64_t local) const {
    const std::string name = in_quotes(entry.name);
    if (local > bytes_.size()) return fail(local, "zip entry {} is outside the file", name);
    ByteReader reader(bytes_, static_cast<std::size_t>(local));
    std::uint32_t signature = 0;
    std::uint16_t name_bytes = 0, extra_bytes = 0;
    std::string_view local_name;
    if (!reader.read(signature) || signature != kLocalSignature || !reader.skip(22) ||
        !reader.read(name_bytes) || !reader.read(extra_bytes) ||
        !reader.read_text(name_bytes, local_name) || !reader.skip(extra_bytes)) {
      return fail(local, "zip entry {}: its local header is damaged", name);
    }
    if (local_name != entry.name) {
      return fail(local, "zip entry {}: its local header says {}", name, in_quotes(local_name));
    }
    if (entry.bytes > reader.remaining()) {
      return fail(local,
                  "zip entry {} of {} bytes ends past the file's {}",
                  name,
                  entry.bytes,
                  bytes_.size());
    }
    return reader.offset();
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
};

}  // namespace

Result<std::vector<ZipEntry>> parse_zip(std::span<const std::byte> bytes, const std::string& file) {
  return ZipParser(bytes, file).run();
}

}  // namespace pagemill
