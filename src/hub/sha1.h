// SHA-1 (FIPS 180-4): only because git names what it stores by it. It keeps off accidents, not
// enemies; large files come with a SHA-256.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pagemill {

class Sha1 {
 public:
  Sha1& update(std::span<const std::uint8_t> data);
  // The digest of everything given to update(); the object is spent.
  std::array<std::uint8_t, 20> finish();

 private:
  void compress();

  std::array<std::uint32_t, 5> state_{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t num_buffered_ = 0;
  std::uint64_t num_bytes_ = 0;
};

}  // namespace pagemill
