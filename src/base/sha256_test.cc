#include "base/sha256.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace pagemill {
namespace {

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string hex(const Digest& digest) {
  std::string text;
  char two[3];
  for (const std::uint8_t byte : digest.bytes) {
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

// The examples of FIPS 180-2, appendix B, and the empty message.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hex(Sha256().finish()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(Sha256().update(bytes_of("abc")).finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(Sha256()
                    .update(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))
                    .finish()),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hex(Sha256().update(bytes_of(std::string(1000000, 'a'))).finish()),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesAndPathsAgree) {
  std::mt19937 random(7);
  std::vector<std::uint8_t> data(1000);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random());
  for (std::size_t length = 0; length < 300; ++length) {
    const std::span<const std::uint8_t> whole(data.data(), length);
    const std::size_t cut = length == 0 ? 0 : random() % length;
    EXPECT_EQ(Sha256().update(whole).finish(),
              Sha256().update(whole.first(cut)).update(whole.subspan(cut)).finish());
  }
  if (!internal::sha256_accelerated()) return;  // the portable path has been tested above
  for (std::size_t num_blocks = 0; num_blocks < 15; ++num_blocks) {
    std::uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    internal::sha256_portable(a, data.data(), num_blocks);
    internal::sha256_x86(b, data.data(), num_blocks);
    EXPECT_TRUE(std::equal(a, a + 8, b));
  }
}

}  // namespace
}  // namespace pagemill
