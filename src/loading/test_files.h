// For tests: files built in memory, and the damage that every parser must withstand.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/files_testing.h"
#include "base/result.h"
#include "loading/stored_tensor.h"

namespace pagemill::testing_files {

// Little-endian bytes in the making.
class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    data_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& raw(std::string_view bytes) {
    data_ += bytes;
    return *this;
  }
  // A string as GGUF has it.
  Bytes& text(std::string_view bytes) { return put<std::uint64_t>(bytes.size()).raw(bytes); }
  Bytes& align(std::size_t to) {
    data_.resize((data_.size() + to - 1) / to * to);
    return *this;
  }
  std::size_t size() const { return data_.size(); }
  const std::string& str() const { return data_; }

 private:
  std::string data_;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

inline std::string golden(const std::string& name) { return PM_GOLDEN_DIR "/loading/" + name; }

// A safetensors file: header and data.
inline std::string safetensors(std::string_view header, std::string_view data) {
  return Bytes().text(header).raw(data).str();
}

// A zip archive of stored entries.
inline std::string zip(const std::vector<std::pair<std::string, std::string>>& entries) {
  Bytes out, directory;
  for (const auto& [name, content] : entries) {
    const auto offset = static_cast<std::uint32_t>(out.size());
    const auto bytes = static_cast<std::uint32_t>(content.size());
    const auto name_bytes = static_cast<std::uint16_t>(name.size());
    out.put<std::uint32_t>(0x04034b50).raw(std::string(14, '\0')).put(bytes).put(bytes);
    out.put(name_bytes).put<std::uint16_t>(0).raw(name).raw(content);
    directory.put<std::uint32_t>(0x02014b50).raw(std::string(16, '\0')).put(bytes).put(bytes);
    directory.put(name_bytes).raw(std::string(12, '\0')).put(offset).raw(name);
  }
  const auto offset = static_cast<std::uint32_t>(out.size());
  const auto count = static_cast<std::uint16_t>(entries.size());
  out.raw(directory.str())
      .put<std::uint32_t>(0x06054b50)
      .put<std::uint32_t>(0)
      .put(count)
      .put(count);
  out.put(static_cast<std::uint32_t>(directory.size())).put(offset).put<std::uint16_t>(0);
  return out.str();
}

// Expects an error of `code` whose message has every one of `parts`.
template <typename T>
void expect_error(const Result<T>& result, ErrorCode code, const std::vector<std::string>& parts) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  for (const std::string& part : parts) {
    EXPECT_NE(result.error().message.find(part), std::string::npos)
        << "'" << part << "' is not in: " << result.error().message;
  }
}

// `parse` takes bytes and gives Result<vector<StoredTensor>>. Whatever it accepts must lie inside.
template <typename Parse>
bool accepts(const Parse& parse, const std::string& file) {
  // A block of exactly this size, so that AddressSanitizer sees a read past its end.
  const std::vector<std::byte> exact(as_bytes(file).begin(), as_bytes(file).end());
  const Result<std::vector<StoredTensor>> tensors = parse(std::span<const std::byte>(exact));
  if (!tensors.ok()) {
    EXPECT_NE(tensors.error().message.find("damaged.file"), std::string::npos)
        << "no file name in: " << tensors.error().message;
    return false;
  }
  for (const StoredTensor& tensor : *tensors) {
    EXPECT_LE(tensor.offset, exact.size());
    EXPECT_LE(tensor.bytes, exact.size() - tensor.offset);
    EXPECT_EQ(checked_bytes(tensor.dtype, tensor.shape), tensor.bytes);
  }
  return true;
}

// Cuts the file at every byte and alters every byte in several ways; nothing may crash, and a file
// cut before `needed` bytes must be refused.
template <typename Parse>
void withstands_damage(const Parse& parse, const std::string& file, std::size_t needed) {
  ASSERT_TRUE(accepts(parse, file));
  for (std::size_t length = 0; length < file.size(); ++length) {
    ASSERT_FALSE(accepts(parse, file.substr(0, length)) && length < needed) << "cut at " << length;
  }
  std::size_t refused = 0;
  for (std::size_t i = 0; i < file.size(); ++i) {
    for (const int change : {0x01, 0x80, 0xff, 0x20}) {
      std::string altered = file;
      altered[i] = static_cast<char>(altered[i] ^ change);
      refused += accepts(parse, altered) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 50u);
}

}  // namespace pagemill::testing_files
