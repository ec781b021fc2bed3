// Chained hashes that name the contents of full KV blocks for the prefix cache.
//
// hash[i] = SHA-256(hash[i-1], tokens of block i); hash[-1] is the sequence's root, which covers
// whatever else the bits depend on or that must keep tenants apart. A shorter hash would let one
// tenant's prompt collide with another's and read its text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "kv/kv_spec.h"

namespace pagemill {

// The root of one engine's hashes: weights digest, KV dtype and layout (`identity`), block size and
// KV groups.
Digest engine_root(std::string_view identity,
                   std::int32_t block_size,
                   std::span<const KvSpec> groups);
// The root of one request's hashes. `adapter` is empty for the base model.
Digest sequence_root(const Digest& engine_root,
                     std::string_view adapter,
                     std::string_view cache_salt);
// tokens: one full block.
Digest hash_block(const Digest& parent, std::span<const TokenId> tokens);
// Appends the hashes of the full blocks of `tokens` that `hashes` lacks. block_size > 0.
void extend_hashes(std::vector<Digest>& hashes,
                   const Digest& root,
                   std::span<const TokenId> tokens,
                   std::int32_t block_size);

}  // namespace pagemill
