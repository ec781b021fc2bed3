// A hostile file must not make a parser allocate what it claims: the peak of live memory is
// measured while each is refused.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

#include "loading/gguf.h"
#include "loading/json_text.h"
#include "loading/safetensors.h"
#include "loading/test_files.h"
#include "loading/torch_file.h"

namespace {

std::atomic<std::size_t> live_bytes{0};
std::atomic<std::size_t> peak_bytes{0};

void* counted(void* block) {
  if (block == nullptr) throw std::bad_alloc();
  const std::size_t live = live_bytes += malloc_usable_size(block);
  std::size_t peak = peak_bytes;
  while (live > peak && !peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return block;
}

void uncounted(void* block) {
  if (block == nullptr) return;
  live_bytes -= malloc_usable_size(block);
  std::free(block);
}

}  // namespace

void* operator new(std::size_t size) { return counted(std::malloc(size == 0 ? 1 : size)); }
void* operator new[](std::size_t size) { return counted(std::malloc(size == 0 ? 1 : size)); }
void operator delete(void* block) noexcept { uncounted(block); }
void operator delete[](void* block) noexcept { uncounted(block); }
void operator delete(void* block, std::size_t) noexcept { uncounted(block); }
void operator delete[](void* block, std::size_t) noexcept { uncounted(block); }

namespace pagemill {
namespace {

using testing_files::as_bytes;
using testing_files::Bytes;
using namespace std::string_literals;

constexpr std::size_t kAllowance = std::size_t{1} << 20;  // beyond the file's own size

template <typename Parse>
void expect_frugal(const std::string& file, const Parse& parse, bool acceptable = false) {
  const std::size_t before = live_bytes;
  peak_bytes = before;
  EXPECT_EQ(parse(file).ok(), acceptable);
  EXPECT_LE(peak_bytes - before, file.size() + kAllowance);
}

TEST(Allocation, TheCounterCounts) {
  const std::size_t before = live_bytes;
  peak_bytes = before;
  { const std::vector<char> block(10'000'000); }
  EXPECT_GE(peak_bytes - before, 10'000'000u);
  EXPECT_EQ(live_bytes, before);
}

TEST(Allocation, Gguf) {
  const auto parse = [](const std::string& file) {
    return GgufFile::parse(as_bytes(file), "x.gguf");
  };
  const auto header = [](std::uint64_t tensors, std::uint64_t entries) {
    return Bytes().raw("GGUF").put<std::uint32_t>(3).put(tensors).put(entries);
  };
  const std::string padding(2'000'000, '\0');
  for (const std::uint64_t claim : {std::uint64_t{50'000}, std::uint64_t{1} << 40, UINT64_MAX}) {
    expect_frugal(header(claim, 0).raw(padding).str(), parse);
    expect_frugal(header(0, claim).raw(padding).str(), parse);
    for (const std::uint32_t element : {0u, 8u, 9u, 10u}) {
      Bytes array = header(0, 1);
      array.text("k").put<std::uint32_t>(9).put(element).put(claim).raw(padding);
      expect_frugal(array.str(), parse, claim == 50'000);  // so many zeros are there
    }
    Bytes text = header(0, 1);
    text.text("k").put<std::uint32_t>(8).put(claim).raw("abc");
    expect_frugal(text.str(), parse);
    Bytes tensor = header(1, 0);
    tensor.text("t").put<std::uint32_t>(2).put<std::uint64_t>(1).put(claim).put<std::uint64_t>(0);
    expect_frugal(tensor.str(), parse);
  }
  expect_frugal(header(0, 1).put<std::uint64_t>(1 << 21).raw(padding).str(), parse);
}

TEST(Allocation, Safetensors) {
  const auto parse = [](const std::string& file) {
    return parse_safetensors(as_bytes(file), "x.safetensors");
  };
  expect_frugal(Bytes().put(UINT64_MAX).raw("{}").str(), parse);
  expect_frugal(Bytes().put<std::uint64_t>(100'000'000).raw("{}").str(), parse);
  expect_frugal(testing_files::safetensors(std::string(1'000'000, '{'), ""), parse);
  expect_frugal(testing_files::safetensors(
                    R"({"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,9]}})",
                    "123456789"),
                parse);
  std::string dims = R"({"t":{"dtype":"F32","shape":[)";
  for (int i = 0; i < 500'000; ++i) dims += "1,";
  expect_frugal(testing_files::safetensors(dims + "1]}}", ""), parse);
}

TEST(Allocation, Torch) {
  const auto parse = [](const std::string& file) {
    return parse_torch_file(as_bytes(file), "x.bin");
  };
  for (const std::string& pickle : {"X\xff\xff\xff\xff"s,
                                    "\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"s,
                                    "\x8b\xff\xff\xff\x7f"s,
                                    "\x8a\xff"s,
                                    "Nr\xff\xff\xff\xff"s,
                                    "N\x94r\xff\xff\xff\x7f"s,
                                    "\x95\xff\xff\xff\xff\xff\xff\xff\xff"s}) {
    expect_frugal(testing_files::zip({{"m/data.pkl", pickle}}), parse);
  }
  std::string zip = testing_files::zip({{"m/data.pkl", "."}});
  zip[zip.size() - 12] = zip[zip.size() - 11] = '\xfe';  // the count of entries
  zip[zip.size() - 14] = zip[zip.size() - 13] = '\xfe';
  expect_frugal(zip, parse);
}

TEST(Allocation, Json) {
  const auto parse = [](const std::string& file) { return parse_json(file, "x.json"); };
  expect_frugal(std::string(1'000'000, '['), parse);
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  expect_frugal(objects, parse);
}

}  // namespace
}  // namespace pagemill
