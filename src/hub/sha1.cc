#include "hub/sha1.h"

#include <algorithm>
#include <bit>

namespace pagemill {

void Sha1::compress() {
  std::array<std::uint32_t, 80> w;
  for (int t = 0; t < 16; ++t) {
    const std::uint8_t* p = &buffer_[4 * t];
    w[t] = std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
  }
  for (int t = 16; t < 80; ++t) w[t] = std::rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
  auto [a, b, c, d, e] = state_;
  for (int t = 0; t < 80; ++t) {
    const std::uint32_t mixed = t < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                                : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                                : t < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                         : (b ^ c ^ d) + 0xca62c1d6;
    const std::uint32_t next = std::rotl(a, 5) + mixed + e + w[t];
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  }
  const std::array<std::uint32_t, 5> added = {a, b, c, d, e};
  for (std::size_t i = 0; i < added.size(); ++i) state_[i] += added[i];
  num_buffered_ = 0;
}

Sha1& Sha1::update(std::span<const std::uint8_t> data) {
  num_bytes_ += data.size();
  while (!data.empty()) {
    const std::size_t taken = std::min(data.size(), buffer_.size() - num_buffered_);
    std::copy_n(data.begin(), taken, buffer_.begin() + num_buffered_);
    num_buffered_ += taken;
    data = data.subspan(taken);
    if (num_buffered_ == buffer_.size()) compress();
  }
  return *this;
}

std::array<std::uint8_t, 20> Sha1::finish() {
  const std::uint64_t num_bits = num_bytes_ * 8;
  const std::uint8_t one = 0x80, zero = 0;
  update({&one, 1});
  while (num_buffered_ != 56) update({&zero, 1});
  std::array<std::uint8_t, 8> length;
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::uint8_t>(num_bits >> (56 - 8 * i));
  update(length);
  std::array<std::uint8_t, 20> digest;
  for (int i = 0; i < 20; ++i) {
    digest[i] = static_cast<std::uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  }
  return digest;
}

}  // namespace pagemill
