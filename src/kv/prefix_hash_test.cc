#include "kv/prefix_hash.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace pagemill {
namespace {

TEST(PrefixHash, CoversEverythingThatMatters) {
  const std::vector<KvSpec> groups(1);
  std::vector<KvSpec> windowed(1);
  windowed[0].kind = KvKind::kWindowed;
  windowed[0].window = 64;
  const Digest root = engine_root("weights", 16, groups);
  EXPECT_NE(root, engine_root("other weights", 16, groups));
  EXPECT_NE(root, engine_root("weights", 32, groups));
  EXPECT_NE(root, engine_root("weights", 16, windowed));
  EXPECT_NE(sequence_root(root, "", ""), sequence_root(root, "", "salt"));
  EXPECT_NE(sequence_root(root, "a", "b"), sequence_root(root, "ab", ""));

  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<Digest> hashes;
  extend_hashes(hashes, root, std::span(tokens).first(5), 4);
  ASSERT_EQ(hashes.size(), 1u);
  extend_hashes(hashes, root, tokens, 4);
  ASSERT_EQ(hashes.size(), 2u);
  EXPECT_EQ(hashes[1], hash_block(hashes[0], std::span(tokens).subspan(4, 4)));
  // The same tokens after another prefix are another block.
  EXPECT_NE(hashes[1], hash_block(root, std::span(tokens).subspan(4, 4)));
}

}  // namespace
}  // namespace pagemill
