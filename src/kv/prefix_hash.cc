#include "kv/prefix_hash.h"

namespace pagemill {
namespace {

template <typename T>
std::span<const std::uint8_t> bytes_of(std::span<const T> values) {
  return {reinterpret_cast<const std::uint8_t*>(values.data()), values.size_bytes()};
}

void add_number(Sha256& sha, std::uint64_t value) {
  sha.update(bytes_of(std::span<const std::uint64_t>(&value, 1)));
}

// With its length, so that no two lists of fields give the same bytes.
void add_string(Sha256& sha, std::string_view text) {
  add_number(sha, text.size());
  sha.update(bytes_of(std::span<const char>(text)));
}

}  // namespace

Digest engine_root(std::string_view identity,
                   std::int32_t block_size,
                   std::span<const KvSpec> groups) {
  Sha256 sha;
  add_string(sha, "pagemill prefix cache 1");
  add_string(sha, identity);
  add_number(sha, block_size);
  add_number(sha, groups.size());
  for (const KvSpec& group : groups) {
    add_number(sha, static_cast<std::uint64_t>(group.kind));
    add_number(sha, group.window);
    add_number(sha, group.num_kv_heads);
    add_number(sha, group.head_size);
    add_number(sha, group.layers.size());
    for (const std::int32_t layer : group.layers) add_number(sha, layer);
  }
  return sha.finish();
}

Digest sequence_root(const Digest& engine_root,
                     std::string_view adapter,
                     std::string_view cache_salt) {
  Sha256 sha;
  sha.update(engine_root.bytes);
  add_string(sha, adapter);
  add_string(sha, cache_salt);
  return sha.finish();
}

Digest hash_block(const Digest& parent, std::span<const TokenId> tokens) {
  return Sha256().update(parent.bytes).update(bytes_of(tokens)).finish();
}

void extend_hashes(std::vector<Digest>& hashes,
                   const Digest& root,
                   std::span<const TokenId> tokens,
                   std::int32_t block_size) {
  const std::size_t num_full = tokens.size() / block_size;
  while (hashes.size() < num_full) {
    const Digest& parent = hashes.empty() ? root : hashes.back();
    hashes.push_back(hash_block(parent, tokens.subspan(hashes.size() * block_size, block_size)));
  }
}

}  // namespace pagemill
