#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include "base/files_testing.h"
#include "tensor/aligned_buffer.h"
#include "tensor/mapped_file.h"

namespace pagemill {
namespace {

std::uintptr_t address(const AlignedBuffer& buffer) {
  return reinterpret_cast<std::uintptr_t>(buffer.data());
}

TEST(AlignedBuffer, SmallOnesSitOnACacheLine) {
  for (std::size_t size : {1u, 63u, 64u, 65u, 4096u, 100'001u}) {
    AlignedBuffer buffer(size, AlignedBuffer::Fill::kZero);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(address(buffer) % AlignedBuffer::kAlignment, 0u);
    const auto bytes = buffer.as<std::uint8_t>();
    EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](auto b) { return b == 0; }));
    std::fill(bytes.begin(), bytes.end(), 0xff);
  }
}

TEST(AlignedBuffer, LargeOnesSitOnAHugePageAndAreZero) {
  const std::size_t size = AlignedBuffer::kHugePage + 12'345;
  AlignedBuffer buffer(size);
  EXPECT_EQ(address(buffer) % AlignedBuffer::kHugePage, 0u);
  const auto words = buffer.as<std::uint64_t>();
  EXPECT_EQ(words.size(), size / 8);
  EXPECT_EQ(words.front(), 0u);
  EXPECT_EQ(words.back(), 0u);
  words.back() = 1;
}

TEST(AlignedBuffer, MovesItsBytes) {
  AlignedBuffer a(100);
  const std::byte* const data = a.data();
  AlignedBuffer b(std::move(a));
  EXPECT_EQ(b.data(), data);
  AlignedBuffer c(50);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.size(), 100u);
  EXPECT_TRUE(b.empty());  // NOLINT(bugprone-use-after-move): a moved-from buffer is empty
  EXPECT_EQ(b.data(), nullptr);
}

TEST(AlignedBuffer, AnAbsurdSizeIsAnError) {
  for (std::size_t size : {std::size_t{1} << 61, SIZE_MAX - 5}) {
    const auto buffer = AlignedBuffer::allocate(size);
    ASSERT_FALSE(buffer.ok());
    EXPECT_EQ(buffer.error().code, ErrorCode::kResourceExhausted);
  }
  EXPECT_TRUE(AlignedBuffer::allocate(0)->empty());
}

class MappedFileTest : public testing::Test {
 protected:
  const TemporaryFolder folder_;
  const std::string path_ = folder_.path() + "/file";
};

TEST_F(MappedFileTest, ShowsTheBytesAlsoAfterTheirPagesWereGivenBack) {
  const std::string content(20'000, 'x');
  std::ofstream(path_) << content;
  auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->size(), content.size());
  EXPECT_EQ(file->path(), path_);
  file->advise_dont_need(1, 19'000);
  file->advise_dont_need(0, 10);
  file->advise_dont_need(20'000, 0);
  MappedFile moved(std::move(*file));
  EXPECT_TRUE(std::all_of(
      moved.bytes().begin(), moved.bytes().end(), [](std::byte b) { return b == std::byte{'x'}; }));
  EXPECT_DEATH(moved.advise_dont_need(1, 20'000), "20000");
}

TEST_F(MappedFileTest, NamesWhatItCannotOpen) {
  const auto missing = MappedFile::open(path_);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find(path_), std::string::npos);
  const auto folder = MappedFile::open(testing::TempDir());
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.error().code, ErrorCode::kIo);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(MappedFile::open(path_).ok());  // and does not wait for a writer
}

TEST_F(MappedFileTest, AnEmptyFileIsEmpty) {
  std::ofstream(path_).close();
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->size(), 0u);
  file->advise_dont_need(0, 0);
}

}  // namespace
}  // namespace pagemill
