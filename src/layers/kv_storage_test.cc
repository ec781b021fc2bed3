#include "layers/kv_storage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace pagemill {
namespace {

constexpr std::int32_t kBlockSize = 16, kNumBlocks = 5;

// Two groups of different shapes; the second holds layer 1.
std::vector<KvSpec> two_groups() {
  return {{.layers = {0, 2}, .num_kv_heads = 2, .head_size = 16},
          {.layers = {1}, .num_kv_heads = 1, .head_size = 8}};
}

KvStorage make(DType dtype) {
  auto storage = KvStorage::create(two_groups(), dtype, kBlockSize, kNumBlocks);
  EXPECT_TRUE(storage.ok());
  return std::move(storage).value();
}

std::int32_t group_of(std::int32_t layer) { return layer == 1 ? 1 : 0; }

// Every byte of every block says where it is, so that a misplaced write shows.
void fill(KvStorage& storage, std::byte salt) {
  for (std::int32_t layer = 0; layer < 3; ++layer) {
    const std::size_t bytes = storage.layout(group_of(layer)).block_bytes();
    for (std::int32_t block = 0; block < kNumBlocks; ++block) {
      std::memset(storage.keys(layer) + bytes * block,
                  std::to_integer<int>(salt) + layer * 20 + block,
                  bytes);
      std::memset(storage.values(layer) + bytes * block,
                  std::to_integer<int>(salt) + layer * 20 + block + 10,
                  bytes);
    }
  }
}

int value_at(const std::byte* base, std::size_t offset) {
  return std::to_integer<int>(base[offset]);
}

class KvStorageTest : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, KvStorageTest, testing::Values(DType::kBF16, DType::kF32));

TEST_P(KvStorageTest, BytesPerBlock) {
  const std::size_t element = GetParam() == DType::kF32 ? 4 : 2;
  const std::size_t elements =
      2 * kBlockSize * (2 * 2 * 16 + 1 * 1 * 8);  // K and V; layers, heads, head_size
  EXPECT_EQ(KvStorage::bytes_per_block(two_groups(), GetParam(), kBlockSize), elements * element);
}

TEST_P(KvStorageTest, CopiesABlockInItsGroupAlone) {
  KvStorage storage = make(GetParam());
  EXPECT_EQ(storage.num_groups(), 2);
  fill(storage, std::byte{1});
  storage.copy_block(0, 1, 4);
  for (std::int32_t layer = 0; layer < 3; ++layer) {
    const std::size_t bytes = storage.layout(group_of(layer)).block_bytes();
    for (std::int32_t block = 0; block < kNumBlocks; ++block) {
      const int source = layer != 1 && block == 4 ? 1 : block;
      for (std::size_t at : {bytes * block, bytes * block + bytes - 1}) {
        EXPECT_EQ(value_at(storage.keys(layer), at), 1 + layer * 20 + source)
            << layer << ' ' << block;
        EXPECT_EQ(value_at(storage.values(layer), at), 11 + layer * 20 + source)
            << layer << ' ' << block;
      }
    }
  }
}

TEST_P(KvStorageTest, PoisonIsNotANumberAndStaysInItsBlock) {
  KvStorage storage = make(GetParam());
  fill(storage, std::byte{1});
  storage.poison_block(1, 2);
  const std::size_t bytes = storage.layout(1).block_bytes();
  for (std::byte* base : {storage.keys(1), storage.values(1)}) {
    const std::byte* block = base + bytes * 2;
    const std::size_t size = GetParam() == DType::kF32 ? 4 : 2;
    for (std::size_t at = 0; at < bytes; at += size) {
      std::uint32_t bits = 0;  // a bf16 is the upper half of an f32
      std::memcpy(reinterpret_cast<std::byte*>(&bits) + (4 - size), block + at, size);
      float value = 0;
      std::memcpy(&value, &bits, sizeof(value));
      ASSERT_TRUE(std::isnan(value));
    }
    EXPECT_NE(value_at(base, bytes * 2 - 1), 0xff);
    EXPECT_NE(value_at(base, bytes * 3), 0xff);
  }
  EXPECT_NE(value_at(storage.keys(0), storage.layout(0).block_bytes() * 2), 0xff);
}

TEST_P(KvStorageTest, MovingKeepsTheBytes) {
  KvStorage first = make(GetParam());
  fill(first, std::byte{1});
  KvStorage second = std::move(first);
  EXPECT_EQ(value_at(second.values(2), 0), 51);
  KvStorage third = make(GetParam());
  third = std::move(second);
  EXPECT_EQ(value_at(third.values(2), 0), 51);
}

TEST(KvStorage, ALargePoolCostsAddressesOnly) {
  const auto storage =
      KvStorage::create(two_groups(), DType::kBF16, kBlockSize, 1 << 20);  // 4 GiB and more
  EXPECT_TRUE(storage.ok()) << storage.error().message;
}

TEST(KvStorage, MoreThanTheSystemHasIsAnErrorWithTheNumbers) {
  std::vector<KvSpec> huge = {{.layers = {0}, .num_kv_heads = 1 << 10, .head_size = 1 << 10}};
  const auto storage =
      KvStorage::create(huge, DType::kF32, 256, std::numeric_limits<std::int32_t>::max());
  ASSERT_FALSE(storage.ok());
  EXPECT_EQ(storage.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(storage.error().param, "kv_cache_memory");
  EXPECT_NE(storage.error().message.find("2147483647 blocks"), std::string::npos)
      << storage.error().message;
}

TEST(KvStorage, ABlockReadAndWrittenElsewhereIsACopy) {
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    KvStorage read = make(dtype), copied = make(dtype);
    fill(read, std::byte{1});
    fill(copied, std::byte{1});
    for (std::int32_t group = 0; group < 2; ++group) {
      std::vector<std::byte> bytes(read.block_bytes(group));
      read.read_block(group, 3, bytes);
      read.write_block(group, 1, bytes);
      copied.copy_block(group, 3, 1);
    }
    for (std::int32_t layer = 0; layer < 3; ++layer) {
      const std::size_t bytes = read.layout(group_of(layer)).block_bytes() * kNumBlocks;
      EXPECT_EQ(std::memcmp(read.keys(layer), copied.keys(layer), bytes), 0);
      EXPECT_EQ(std::memcmp(read.values(layer), copied.values(layer), bytes), 0);
    }
  }
}

}  // namespace
}  // namespace pagemill
