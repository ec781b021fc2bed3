// A cursor over bytes that never reads past their end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace pagemill {

// Little-endian, any alignment. Each read returns false, and moves nothing, where too few bytes are
// left.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes, std::size_t offset = 0)
      : bytes_(bytes), offset_(offset) {}

  std::size_t offset() const { return offset_; }
  std::size_t remaining() const { return bytes_.size() - offset_; }

  template <typename T>
  [[nodiscard]] bool read(T& out) {
    static_assert(std::is_arithmetic_v<T>);
    if (remaining() < sizeof(T)) return false;
    std::memcpy(&out, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return true;
  }

  [[nodiscard]] bool read_text(std::uint64_t length, std::string_view& out) {
    if (remaining() < length) return false;
    out = {reinterpret_cast<const char*>(bytes_.data() + offset_),
           static_cast<std::size_t>(length)};
    offset_ += out.size();
    return true;
  }

  // Up to and without the newline, which is passed over.
  [[nodiscard]] bool read_line(std::string_view& out) {
    if (remaining() == 0) return false;
    const void* const end = std::memchr(bytes_.data() + offset_, '\n', remaining());
    if (end == nullptr) return false;
    const auto length =
        static_cast<std::size_t>(static_cast<const std::byte*>(end) - (bytes_.data() + offset_));
    if (!read_text(length, out)) return false;
    ++offset_;
    return true;
  }

  [[nodiscard]] bool skip(std::uint64_t length) {
    if (remaining() < length) return false;
    offset_ += static_cast<std::size_t>(length);
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t offset_;  // <= bytes_.size()
};

}  // namespace pagemill
