#include "loading/safetensors.h"

#include <gtest/gtest.h>

#include <string>

#include "loading/test_files.h"

namespace pagemill {
namespace {

using testing_files::as_bytes;
using testing_files::Bytes;
using testing_files::expect_error;

Result<std::vector<StoredTensor>> parse(const std::string& file) {
  return parse_safetensors(as_bytes(file), "x.safetensors");
}
Result<std::vector<StoredTensor>> parse(std::string_view header, std::size_t data_bytes) {
  return parse(testing_files::safetensors(header, std::string(data_bytes, '\0')));
}

constexpr std::string_view kSample =
    R"({"__metadata__":{"format":"pt"},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"shape":[],"dtype":"BF16","data_offsets":[24,26]},)"
    R"("c":{"dtype":"BOOL","shape":[0],"data_offsets":[26,26]}}  )";

TEST(Safetensors, ReadsTheDirectory) {
  const auto tensors = parse(kSample, 26);
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, DType::kF32);
  EXPECT_EQ((*tensors)[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[0].offset, 8 + kSample.size());
  EXPECT_EQ((*tensors)[1].shape, std::vector<std::int64_t>{});
  EXPECT_EQ((*tensors)[1].bytes, 2u);
  EXPECT_EQ((*tensors)[2].bytes, 0u);
  EXPECT_TRUE(parse("{}", 0).ok());
}

TEST(Safetensors, WithstandsDamage) {
  const std::string file = testing_files::safetensors(kSample, std::string(26, 'x'));
  testing_files::withstands_damage(
      [](std::span<const std::byte> data) { return parse_safetensors(data, "damaged.file"); },
      file,
      file.size());
}

TEST(Safetensors, RefusesHostileLengths) {
  expect_error(parse("short"), ErrorCode::kCorrupt, {"x.safetensors", "too few"});
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{100'000'001}, UINT64_MAX}) {
    expect_error(parse(Bytes().put(length).raw("{}").str()), ErrorCode::kCorrupt, {"offset 0"});
  }
}

TEST(Safetensors, NamesTheTensorAtFault) {
  const auto one = [](std::string_view fields) {
    return parse("{\"t\":{" + std::string(fields) + "}}", 8);
  };
  EXPECT_TRUE(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])").ok());
  const auto refused = [&](std::string_view fields, const std::string& why) {
    expect_error(one(fields), ErrorCode::kCorrupt, {"x.safetensors", "'t'", why});
  };
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[0,9])", "do not lie in the 8 bytes");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", "do not lie");
  refused(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])", "does not take the 8 bytes");
  refused(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])", "does not take");
  refused(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])", "a dimension of");
  refused(R"("dtype":"F32","shape":[-1],"data_offsets":[0,8])", "negative");
  refused(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,8])", "not a whole one");
  refused(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])", "8 dimensions");
  refused(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])", "an array");
  refused(R"("dtype":"F32","shape":2,"data_offsets":[0,8])", "a number");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])", "more than two");
  refused(R"("dtype":"F32","shape":[2],"data_offsets":[0])", "two numbers");
  refused(R"("dtype":"F32","shape":[2])", "'data_offsets' is missing");
  refused(R"("dtype":"F32","data_offsets":[0,8])", "'shape' is missing");
  refused(R"("shape":[2],"data_offsets":[0,8])", "'dtype' is missing");
  refused(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])", "occurs twice");
  refused(R"("dtype":null)", "null");
  refused(R"("shape":{"a":1})", "an object");
  refused(R"("more":1)", "unknown field 'more'");
  expect_error(one(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])"),
               ErrorCode::kUnsupported,
               {"'t'", "'F8_E4M3'", "supported: F32, F16, BF16"});
}

TEST(Safetensors, RefusesSharedNamesAndBytes) {
  const std::string tensor = R"({"dtype":"U8","shape":[4],"data_offsets":[)";
  expect_error(parse("{\"t\":" + tensor + "0,4]},\"t\":" + tensor + "4,8]}}", 8),
               ErrorCode::kCorrupt,
               {"'t' occurs twice"});
  expect_error(parse("{\"t\":" + tensor + "0,4]},\"u\":" + tensor + "3,7]}}", 8),
               ErrorCode::kCorrupt,
               {"'t'", "'u'", "overlap"});
  expect_error(parse(R"({"__metadata__":{},"__metadata__":{}})", 0),
               ErrorCode::kCorrupt,
               {"__metadata__", "twice"});
  expect_error(
      parse(R"({"__metadata__":{"a":"1","a":"2"}})", 0), ErrorCode::kCorrupt, {"'a' occurs twice"});
}

TEST(Safetensors, RefusesWhatIsNoHeader) {
  expect_error(parse("[]", 0), ErrorCode::kCorrupt, {"offset 8", "not an object"});
  expect_error(
      parse("{\"a\":1}", 0), ErrorCode::kCorrupt, {"'a'", "a number instead of an object"});
  expect_error(parse("{\"a\":", 0), ErrorCode::kCorrupt, {"offset", "not valid JSON"});
  expect_error(parse("{} x", 0), ErrorCode::kCorrupt, {"not valid JSON"});
  expect_error(parse("", 0), ErrorCode::kCorrupt, {"not valid JSON"});
  EXPECT_FALSE(parse(std::string(1'000'000, '['), 0).ok());
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  EXPECT_FALSE(parse(deep, 0).ok());
}

}  // namespace
}  // namespace pagemill
