#include "engine/memory_budget.h"

#include <gtest/gtest.h>

namespace pagemill {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

// 2 layers, 2 heads of 16, K and V: 256 bytes a token in bf16, 512 in f32.
std::vector<KvSpec> one_group() {
  return {{.kind = KvKind::kFull,
           .layers = {0, 1},
           .num_kv_heads = 2,
           .head_size = 16,
           .bytes_per_token = 256}};
}

TEST(MemoryBudget, CountsBlocksOfAllLayers) {
  EngineOptions options;
  options.kv_cache_memory_bytes = kMiB;
  options.max_num_seqs = 1000;
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 1024);
  ASSERT_TRUE(budget.ok()) << budget.error().message;
  EXPECT_EQ(budget->bytes_per_block, 16 * 256);
  EXPECT_EQ(budget->num_blocks, 256);
  EXPECT_EQ(budget->kv_cache_bytes, kMiB);
  EXPECT_EQ(budget->max_model_len, 1024);
  const auto wide = plan_memory(options, one_group(), DType::kF32, 1024);
  ASSERT_TRUE(wide.ok());
  EXPECT_EQ(wide->bytes_per_block, 2 * budget->bytes_per_block);
  EXPECT_EQ(wide->num_blocks, 128);
}

TEST(MemoryBudget, TakesNoMoreThanItsSequencesCanUse) {
  EngineOptions options;
  options.max_num_seqs = 3;
  options.kv_cache_memory_bytes = 1000 * kMiB;
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 100);
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->num_blocks, 3 * 7 + 1);  // 100 tokens: 7 blocks; and the null block
}

TEST(MemoryBudget, ByDefaultAShareOfWhatIsFree) {
  EngineOptions options;
  options.max_num_seqs = 1 << 20;
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 1 << 20);
  ASSERT_TRUE(budget.ok());
  EXPECT_GT(budget->free_bytes, 0);
  const double share =
      static_cast<double>(budget->kv_cache_bytes) / static_cast<double>(budget->free_bytes);
  EXPECT_LE(share, kDefaultKvShare);
  EXPECT_GT(share, kDefaultKvShare * 0.99);
}

TEST(MemoryBudget, LowersTheModelsLengthToWhatFits) {
  EngineOptions options;
  options.kv_cache_memory_bytes = kMiB;  // 256 blocks
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 100000);
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->max_model_len, 255 * 16);
}

TEST(MemoryBudget, RefusesALengthThatWasAskedForAndDoesNotFit) {
  EngineOptions options;
  options.kv_cache_memory_bytes = kMiB;
  options.max_model_len = 5000;
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 100000);
  ASSERT_FALSE(budget.ok());
  EXPECT_EQ(budget.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(budget.error().param, "kv_cache_memory");
  for (const char* number : {"1048576", "5000", "4096", "314", "1286144"}) {
    EXPECT_NE(budget.error().message.find(number), std::string::npos)
        << number << ": " << budget.error().message;
  }
}

TEST(MemoryBudget, RefusesAPoolWithoutOneUsableBlock) {
  EngineOptions options;
  options.kv_cache_memory_bytes = 4096;  // the null block alone
  EXPECT_FALSE(plan_memory(options, one_group(), DType::kBF16, 64).ok());
}

TEST(MemoryBudget, EveryGroupNeedsItsBlocks) {
  EngineOptions options;
  options.max_num_seqs = 2;
  options.kv_cache_memory_bytes = 1000 * kMiB;
  std::vector<KvSpec> two = one_group();
  two.push_back(two.front());
  two.back().layers = {2, 3};
  const auto budget = plan_memory(options, two, DType::kBF16, 64);
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->num_blocks, 2 * 2 * 4 + 1);
}

TEST(MemoryBudget, NumBlocksOverride) {
  EngineOptions options;
  options.num_blocks_override = 12;
  const auto budget = plan_memory(options, one_group(), DType::kBF16, 4096);
  ASSERT_TRUE(budget.ok());
  EXPECT_EQ(budget->num_blocks, 12);
  EXPECT_EQ(budget->max_model_len, 11 * 16);
}

TEST(AvailableMemory, IsPositive) { EXPECT_GT(available_memory_bytes(), kMiB); }

}  // namespace
}  // namespace pagemill
