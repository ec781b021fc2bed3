// SHA-256 (FIPS 180-4), with the x86 SHA extensions where the machine has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace pagemill {

struct Digest {
  std::array<std::uint8_t, 32> bytes{};

  bool operator==(const Digest&) const = default;
  // The digest's first bytes: as good a hash for a table as any.
  std::uint64_t prefix64() const {
    std::uint64_t value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
};

class Sha256 {
 public:
  Sha256();
  Sha256& update(std::span<const std::uint8_t> data);
  // The digest of everything given to update(); the object is spent.
  Digest finish();

 private:
  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t num_buffered_ = 0;
  std::uint64_t num_bytes_ = 0;
};

namespace internal {
// Folds num_blocks blocks of 64 bytes into the state. The accelerated one needs
// sha256_accelerated().
void sha256_portable(std::uint32_t* state, const std::uint8_t* data, std::size_t num_blocks);
void sha256_x86(std::uint32_t* state, const std::uint8_t* data, std::size_t num_blocks);
bool sha256_accelerated();
}  // namespace internal

}  // namespace pagemill
