#include "loading/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "loading/state_dict_pickle.h"
#include "loading/zip_reader.h"

namespace pagemill {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";

bool starts_with(std::span<const std::byte> bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

const ZipEntry* find_entry(std::span<const ZipEntry> entries, std::string_view name) {
  const auto it = std::lower_bound(
      entries.begin(), entries.end(), name, [](const ZipEntry& e, std::string_view n) {
        return e.name < n;
      });
  return it != entries.end() && it->name == name ? &*it : nullptr;
}

std::string_view content(std::span<const std::byte> bytes, const ZipEntry& entry) {
  return {reinterpret_cast<const char*>(bytes.data()) + entry.offset,
          static_cast<std::size_t>(entry.bytes)};
}

// Row-major without gaps. A dimension of one element may have any stride.
bool is_contiguous(const PickledTensor& tensor) {
  std::int64_t expected = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] != 1 && tensor.stride[i] != expected) return false;
    if (__builtin_mul_overflow(expected, tensor.shape[i], &expected)) return false;
  }
  return true;
}

class TorchFileParser {
 public:
  TorchFileParser(std::span<const std::byte> bytes, const std::string& file)
      : bytes_(bytes), file_(file) {}

  Result<std::vector<StoredTensor>> run() {
    PM_TRY(check_format());
    PM_ASSIGN(entries_, parse_zip(bytes_, file_));
    PM_ASSIGN(const ZipEntry pickle, find_pickle());
    PM_TRY(check_byte_order());
    PM_ASSIGN(const auto pickled,
              read_state_dict(bytes_.subspan(static_cast<std::size_t>(pickle.offset),
                                             static_cast<std::size_t>(pickle.bytes)),
                              file_,
                              pickle.offset));
    std::vector<StoredTensor> tensors;
    for (const PickledTensor& tensor : pickled) {
      PM_ASSIGN(StoredTensor stored, place(tensor));
      tensors.push_back(std::move(stored));
    }
    PM_TRY(check_directory(tensors, file_, true));
    return tensors;
  }

 private:
  Status check_format() const {
    // Before 1.6, torch.save wrote several pickles in a row, the first one this magic number.
    constexpr std::string_view kLegacy("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
                                       14);
    if (starts_with(bytes_, kLegacy)) {
      return unsupported(
          fmt::format("{}: offset 0: written by PyTorch before 1.6 (not a zip archive); load and "
                      "save it with a "
                      "newer PyTorch, or convert it to safetensors",
                      file_));
    }
    if (!starts_with(bytes_, "PK")) {
      return corrupt(fmt::format("{}: offset 0: not a torch.save archive (a zip file)", file_));
    }
    return ok_status();
  }

  // "<prefix>/data.pkl"; the prefix is whatever the file was called.
  Result<ZipEntry> find_pickle() {
    std::optional<ZipEntry> found;
    for (const ZipEntry& entry : entries_) {
      if (!entry.name.ends_with(kPickleName)) continue;
      const std::string_view prefix = entry.name.substr(0, entry.name.size() - kPickleName.size());
      if (prefix.find('/') != prefix.npos) continue;
      if (found) {
        return corrupt(fmt::format(
            "{}: two pickles, {} and {}", file_, in_quotes(found->name), in_quotes(entry.name)));
      }
      found = entry;
      prefix_ = prefix;
    }
    if (!found) return corrupt(fmt::format("{}: the archive has no '*/data.pkl'", file_));
    return *found;
  }

  Status check_byte_order() const {
    const ZipEntry* const order = find_entry(entries_, prefix_ + "/byteorder");
    if (order == nullptr || content(bytes_, *order) == "little") return ok_status();
    return unsupported(fmt::format("{}: offset {}: byte order {}; supported: 'little'",
                                   file_,
                                   order->offset,
                                   in_quotes(content(bytes_, *order))));
  }

  template <typename... Args>
  Error bad(const PickledTensor& tensor, fmt::format_string<Args...> format, Args&&... args) const {
    return corrupt(fmt::format("{}: tensor {}: {}",
                               file_,
                               in_quotes(tensor.name),
                               fmt::format(format, std::forward<Args>(args)...)));
  }

  Result<StoredTensor> place(const PickledTensor& tensor) const {
    const ZipEntry* const storage =
        find_entry(entries_, fmt::format("{}/data/{}", prefix_, tensor.storage));
    if (storage == nullptr)
      return bad(tensor, "its storage {} is missing", in_quotes(tensor.storage));
    const auto bytes = checked_bytes(tensor.dtype, tensor.shape);
    if (!bytes) return bad(tensor, "shape {} is too large", shape_to_string(tensor.shape));
    if (!is_contiguous(tensor)) {
      Error error = bad(tensor,
                        "stride {} of shape {} is not contiguous; save it after .contiguous(), or "
                        "convert the model to safetensors",
                        shape_to_string(tensor.stride),
                        shape_to_string(tensor.shape));
      error.code = ErrorCode::kUnsupported;
      return error;
    }
    const auto width = static_cast<std::uint64_t>(dtype_info(tensor.dtype).block_bytes);
    const std::uint64_t held = storage->bytes / width;
    if (tensor.storage_elements < 0 || static_cast<std::uint64_t>(tensor.storage_elements) > held) {
      return bad(tensor,
                 "its storage claims {} elements, the archive holds {} at offset {}",
                 tensor.storage_elements,
                 held,
                 storage->offset);
    }
    const auto start = static_cast<std::uint64_t>(tensor.storage_offset);
    if (tensor.storage_offset < 0 || start > held || *bytes / width > held - start) {
      return bad(tensor,
                 "shape {} from element {} does not lie in its storage of {} elements at offset {}",
                 shape_to_string(tensor.shape),
                 tensor.storage_offset,
                 held,
                 storage->offset);
    }
    return StoredTensor{std::string(tensor.name),
                        tensor.dtype,
                        tensor.shape,
                        storage->offset + start * width,
                        *bytes};
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::vector<ZipEntry> entries_;
  std::string prefix_;
};

}  // namespace

Result<std::vector<StoredTensor>> parse_torch_file(std::span<const std::byte> bytes,
                                                   const std::string& file) {
  return TorchFileParser(bytes, file).run();
}

}  // namespace pagemill
