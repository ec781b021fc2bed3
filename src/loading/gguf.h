// GGUF files, versions 2 and 3 (ggml's specification, docs/gguf.md): typed metadata and the tensor
// directory. Nothing is copied out of the file but tensor names, and nothing is allocated by what a
// header claims: arrays and strings are views.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "loading/stored_tensor.h"

namespace pagemill {

// The numbers of the file format.
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
std::string_view gguf_type_name(GgufType type);

// A view of an array's elements as they stand in the file, already checked to lie inside it.
struct GgufArray {
  GgufType element = GgufType::kU8;
  std::uint64_t count = 0;
  std::span<const std::byte> bytes;  // a string element: u64 length, then that many bytes
};

using GgufValue =
    std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

struct GgufEntry {
  std::string_view key;
  GgufType type = GgufType::kU8;
  GgufValue value;
  std::uint64_t offset = 0;  // of the value, bytes from the start of the file
};

// Valid as long as the bytes that it was parsed from.
class GgufFile {
 public:
  // `name` is the file's, for messages. Errors are kCorrupt or kUnsupported, and name the file, the
  // key or tensor, and the offset.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  std::uint32_t version() const { return version_; }
  std::span<const GgufEntry> entries() const { return entries_; }     // in the order of the file
  std::span<const StoredTensor> tensors() const { return tensors_; }  // in the order of the file
  const GgufEntry* find(std::string_view key) const;                  // null if absent

  // The value converted; nothing if the key is absent; an error if it has another type. Integers of
  // any width convert where they fit, and to double.
  Result<std::optional<std::int64_t>> integer(std::string_view key) const;
  Result<std::optional<double>> number(std::string_view key) const;
  Result<std::optional<bool>> boolean(std::string_view key) const;
  Result<std::optional<std::string_view>> string(std::string_view key) const;
  Result<std::optional<GgufArray>> array(std::string_view key) const;

 private:
  friend class GgufParser;
  Error wrong_type(const GgufEntry& entry, std::string_view wanted) const;

  std::string name_;
  std::uint32_t version_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<std::uint32_t> by_key_;  // indices of entries_, sorted by key
  std::vector<StoredTensor> tensors_;
};

}  // namespace pagemill
