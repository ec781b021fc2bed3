#include "layers/kv_disk_tier.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/files_testing.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBytes = 5000;

Digest key_of(int value) {
  Digest key;
  std::memcpy(key.bytes.data(), &value, sizeof value);
  return key;
}

std::vector<std::byte> content_of(int value) {
  std::mt19937 random(static_cast<unsigned>(value));
  std::vector<std::byte> bytes(kBytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

class KvDisk : public ::testing::Test {
 protected:
  std::unique_ptr<KvDiskTier> open(std::size_t max_queued_bytes = 256u << 20) {
    auto tier = KvDiskTier::open(folder_.path() + "/kv", max_queued_bytes);
    EXPECT_TRUE(tier.ok());
    return std::move(tier).value();
  }
  // The block's contents are right, or there are none.
  static bool load(KvDiskTier& tier, int value, std::int32_t group = 0) {
    std::vector<std::byte> bytes(kBytes);
    if (!tier.load(group, key_of(value), bytes)) return false;
    EXPECT_EQ(bytes, content_of(value)) << "a wrong block was served";
    return true;
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder_.path() + "/kv")) {
      paths.push_back(entry.path());
    }
    return paths;
  }

  TemporaryFolder folder_;
};

TEST_F(KvDisk, GivesBackWhatWasSaved) {
  const auto tier = open();
  EXPECT_FALSE(load(*tier, 1));
  tier->save(0, key_of(1), content_of(1));
  EXPECT_TRUE(load(*tier, 1)) << "queued or written, it is there";
  tier->flush();
  EXPECT_TRUE(load(*tier, 1));
  EXPECT_FALSE(load(*tier, 1, 1)) << "another group";
  EXPECT_FALSE(load(*tier, 2));
  tier->forget(0, key_of(1));
  EXPECT_FALSE(load(*tier, 1));
  tier->flush();
  EXPECT_TRUE(files().empty());
  EXPECT_EQ(tier->stats().saved_bytes, kBytes);
  EXPECT_EQ(tier->stats().loaded_bytes, 2 * kBytes);
}

TEST_F(KvDisk, ARestartFindsThemTheOldestFirst) {
  {
    const auto tier = open();
    auto written = fs::file_time_type::clock::now() - std::chrono::minutes(1);
    for (int i : {3, 1, 2}) {
      tier->save(i % 2, key_of(i), content_of(i));
      tier->flush();
      // Said, not waited for: a file system's clock may tick slowly.
      written += std::chrono::seconds(1);
      for (const fs::path& file : files()) {
        const bool just_saved = file.filename().string().starts_with("0" + std::to_string(i));
        if (just_saved) fs::last_write_time(file, written);
      }
    }
  }
  folder_.write("kv/notes.txt", "not ours");
  folder_.write("kv/" + std::string(64, 'g') + "-0.kv", "no digits");
  const auto tier = open();
  const auto found = tier->scan();
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].key, key_of(3));
  EXPECT_EQ(found[0].group, 1);
  EXPECT_EQ(found[1].key, key_of(1));
  EXPECT_EQ(found[2].key, key_of(2));
  EXPECT_TRUE(load(*tier, 3, 1));
}

TEST_F(KvDisk, ATornOrChangedFileIsAMiss) {
  const auto tier = open();
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{88}, kBytes + 87}) {
    tier->save(0, key_of(1), content_of(1));
    tier->flush();
    ASSERT_EQ(files().size(), 1u);
    fs::resize_file(files()[0], size);
    EXPECT_FALSE(load(*tier, 1)) << size << " bytes";
    EXPECT_TRUE(files().empty()) << "it is removed";
  }
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    tier->save(0, key_of(1), content_of(1));
    tier->flush();
    const std::size_t at = i < 44 ? static_cast<std::size_t>(i) * 2 : random() % (kBytes + 88);
    std::fstream file(files()[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char flipped = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(flipped);
    file.close();
    EXPECT_FALSE(load(*tier, 1)) << "byte " << at;
  }
  EXPECT_EQ(tier->stats().broken_files, 54u);
}

TEST_F(KvDisk, AFileUnderAnothersNameIsAMiss) {
  const auto tier = open();
  tier->save(0, key_of(1), content_of(1));
  tier->flush();
  const fs::path one = files()[0];
  tier->save(0, key_of(2), content_of(2));
  tier->flush();
  for (const fs::path& path : files()) {
    if (path != one) fs::copy_file(one, path, fs::copy_options::overwrite_existing);
  }
  EXPECT_FALSE(load(*tier, 2));
  EXPECT_TRUE(load(*tier, 1));
}

TEST_F(KvDisk, AFullDiskCostsOnlyTheBlock) {
  const auto tier = open();
  tier->save(0, key_of(1), content_of(1));
  tier->flush();
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1000, before.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  tier->save(0, key_of(2), content_of(2));
  tier->save(0, key_of(3), content_of(3));
  tier->flush();
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(tier->stats().failed_saves, 2u);
  EXPECT_TRUE(load(*tier, 1));
  EXPECT_FALSE(load(*tier, 2));
  EXPECT_EQ(files().size(), 1u) << "nothing half written is left";
}

TEST_F(KvDisk, TheQueueIsBounded) {
  const auto tier = open(3 * kBytes);
  for (int i = 0; i < 200; ++i) tier->save(0, key_of(i), content_of(i));
  tier->flush();
  const KvDiskTierStats stats = tier->stats();
  EXPECT_EQ(stats.saved_bytes / kBytes + stats.dropped_saves, 200u);
  int found = 0;
  for (int i = 0; i < 200; ++i) found += load(*tier, i);
  EXPECT_EQ(found, static_cast<int>(stats.saved_bytes / kBytes));
}

TEST_F(KvDisk, WhatAKilledWriterLeftIsRemovedOnceItIsOld) {
  open();
  const std::string old = folder_.write("kv/1-1.tmp", "half"),
                    fresh = folder_.write("kv/1-2.tmp", "");
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(1));
  open();
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(fresh)) << "another process may be writing it";
}

TEST_F(KvDisk, TwoOnOneDirectoryNeverServeAWrongBlock) {
  constexpr int kRounds = 400;
  const auto work = [this](unsigned seed) {
    const auto tier = open();
    std::mt19937 random(seed);
    int found = 0;
    for (int i = 0; i < kRounds; ++i) {
      const int value = static_cast<int>(random() % 10);
      switch (random() % 4) {
        case 0:
          tier->forget(0, key_of(value));
          break;
        case 1:
          tier->save(0, key_of(value), content_of(value));
          break;
        default:
          found += load(*tier, value);
      }
    }
    EXPECT_GT(found, 0);
  };
  std::thread other(work, 1);
  work(2);
  other.join();
}

TEST(KvDiskOpen, NamesWhatIsWrong) {
  TemporaryFolder folder;
  const std::string file = folder.write("file", "x");
  const auto tier = KvDiskTier::open(file + "/kv");
  ASSERT_FALSE(tier.ok());
  EXPECT_EQ(tier.error().code, ErrorCode::kIo);
  EXPECT_NE(tier.error().message.find(file), std::string::npos);
}

}  // namespace
}  // namespace pagemill
