#include "loading/torch_file.h"

#include <gtest/gtest.h>

#include <string>

#include "loading/state_dict_pickle.h"
#include "loading/test_files.h"
#include "loading/zip_reader.h"

namespace pagemill {
namespace {

using testing_files::as_bytes;
using testing_files::Bytes;
using testing_files::expect_error;
using namespace std::string_literals;

Result<std::vector<PickledTensor>> unpickle(const std::string& pickle) {
  return read_state_dict(as_bytes(pickle), "x.bin", 100);
}

std::string text(std::string_view value) {
  return Bytes().raw("X").put(static_cast<std::uint32_t>(value.size())).raw(value).str();
}

std::string tuple(const std::string& elements) { return "(" + elements + "t"; }

// A tensor expression; `shape` and `stride` are pickled tuples.
std::string tensor(const std::string& shape,
                   const std::string& stride,
                   int offset = 0,
                   int elements = 6,
                   const std::string& type = "FloatStorage") {
  const std::string storage = tuple(text("storage") + "ctorch\n" + type + "\n" + text("0") +
                                    text("cpu") + "K" + static_cast<char>(elements)) +
                              "Q";
  return "ctorch._utils\n_rebuild_tensor_v2\n" +
         tuple(storage + "K" + static_cast<char>(offset) + shape + stride +
               "\x89"s  // requires_grad
               "ccollections\nOrderedDict\n)R") +
         "R";
}
const std::string k23 = tuple("K\x02K\x03"), k31 = tuple("K\x03K\x01");

std::string state_dict(const std::string& entries) { return "\x80\x02}(" + entries + "u."; }

std::string archive(const std::string& pickle, std::size_t storage_bytes = 24) {
  return testing_files::zip({{"m/data.pkl", pickle},
                             {"m/byteorder", "little"},
                             {"m/data/0", std::string(storage_bytes, 'x')}});
}

Result<std::vector<StoredTensor>> parse(const std::string& file) {
  return parse_torch_file(as_bytes(file), "x.bin");
}

TEST(TorchFile, PlacesTensorsInTheirStorage) {
  const std::string file = archive(state_dict(text("w") + tensor(k23, k31) + text("v") +
                                              tensor(tuple("K\x02"), tuple("K\x01"), 4)));
  const auto tensors = parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].name, "w");
  EXPECT_EQ((*tensors)[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[0].bytes, 24u);
  EXPECT_EQ(file.substr((*tensors)[0].offset, 24), std::string(24, 'x'));
  EXPECT_EQ((*tensors)[1].offset, (*tensors)[0].offset + 16);
}

TEST(TorchFile, WithstandsDamage) {
  const std::string file = archive(state_dict(text("w") + tensor(k23, k31)));
  testing_files::withstands_damage(
      [](std::span<const std::byte> data) { return parse_torch_file(data, "damaged.file"); },
      file,
      file.size());
}

TEST(TorchFile, WithstandsDamageToWhatTorchWrote) {
  const std::string file = read_file(testing_files::golden("torch_f16/pytorch_model.bin"));
  testing_files::withstands_damage(
      [](std::span<const std::byte> data) { return parse_torch_file(data, "damaged.file"); },
      file,
      file.size());
}

TEST(TorchFile, RefusesTensorsOutsideTheirStorage) {
  const auto with = [](const std::string& expression, std::size_t storage_bytes = 24) {
    return parse(archive(state_dict(text("w") + expression), storage_bytes));
  };
  expect_error(with(tensor(k23, k31), 20), ErrorCode::kCorrupt, {"'w'", "claims 6", "holds 5"});
  expect_error(with(tensor(k23, k31, 1)), ErrorCode::kCorrupt, {"'w'", "from element 1"});
  expect_error(with(tensor(k23, k31, 255)), ErrorCode::kCorrupt, {"'w'", "from element 255"});
  expect_error(with(tensor(tuple("J\xff\xff\xff\xff"s), tuple("K\x01"))),
               ErrorCode::kCorrupt,
               {"'w'", "[-1]"});
  const std::string huge = "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40"s;  // 2^62
  expect_error(
      with(tensor(tuple(huge + huge), tuple(huge + "K\x01"))), ErrorCode::kCorrupt, {"too large"});
  expect_error(with(tensor(k23, tuple("K\x01K\x02"))),
               ErrorCode::kUnsupported,
               {"'w'", "[1, 2]", "not contiguous"});
  expect_error(with(tensor(k23, tuple("K\x01"))), ErrorCode::kCorrupt, {"differ in length"});
  EXPECT_TRUE(with(tensor(tuple("K\x01K\x06"), tuple("K\x63K\x01"))).ok());  // stride of 1 row
}

TEST(TorchFile, RefusesOtherArchives) {
  expect_error(parse("PK but no zip"), ErrorCode::kCorrupt, {"x.bin", "no zip end record"});
  expect_error(parse("hello"), ErrorCode::kCorrupt, {"not a torch.save archive"});
  expect_error(parse(testing_files::zip({{"m/other", ""}})), ErrorCode::kCorrupt, {"data.pkl"});
  expect_error(parse(testing_files::zip({{"a/data.pkl", ""}, {"b/data.pkl", ""}})),
               ErrorCode::kCorrupt,
               {"two pickles"});
  expect_error(parse(testing_files::zip({{"a/data.pkl", "."}, {"a/byteorder", "big"}})),
               ErrorCode::kUnsupported,
               {"byte order 'big'"});
  expect_error(
      parse(testing_files::zip({{"a/data.pkl", state_dict(text("w") + tensor(k23, k31))}})),
      ErrorCode::kCorrupt,
      {"'w'", "storage '0' is missing"});
  for (const auto& [name, code, why] :
       {std::tuple{"torch_legacy.bin", ErrorCode::kUnsupported, "before 1.6"},
        std::tuple{"torch_module.bin", ErrorCode::kUnsupported, "torch.nn.modules.linear.Linear"},
        std::tuple{"torch_transposed.bin", ErrorCode::kUnsupported, "not contiguous"}}) {
    expect_error(parse(read_file(testing_files::golden(name))), code, {why});
  }
}

TEST(Pickle, RefusesCodeByNameAndOffset) {
  const std::string attack = "cos\nsystem\n" + tuple(text("touch /tmp/owned")) + "R.";
  expect_error(unpickle(attack), ErrorCode::kUnsupported, {"x.bin", "offset 100", "'os.system'"});
  expect_error(unpickle("\x80\x04" + text("builtins") + text("eval") + "\x93."),
               ErrorCode::kUnsupported,
               {"'builtins.eval'"});
  for (const char* const global : {"c__builtin__\nexec\n",
                                   "ctorch.storage\n_load_from_bytes\n",
                                   "ctorch\nload\n",
                                   "ctorch\nFloatStorage.__reduce__\n"}) {
    EXPECT_EQ(unpickle(global).error().code, ErrorCode::kUnsupported) << global;
  }
  // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, BUILD on a tensor, PERSID, buffers: unknown here.
  for (const std::string& op : {"(ios\nsystem\n."s,
                                "(o."s,
                                "N)\x81."s,
                                "\x92."s,
                                "\x82\x01."s,
                                "Pabc\n."s,
                                "\x97."s,
                                "2."s,
                                "0."s}) {
    expect_error(unpickle(op), ErrorCode::kCorrupt, {"x.bin", "offset 10"});
  }
}

TEST(Pickle, KnownGlobalsAreNotCalledAtWill) {
  expect_error(unpickle("ctorch\nFloatStorage\n)R."), ErrorCode::kCorrupt, {"torch.FloatStorage"});
  expect_error(unpickle("ccollections\nOrderedDict\n" + tuple("]") + "R."),
               ErrorCode::kCorrupt,
               {"OrderedDict with arguments"});
  expect_error(
      unpickle("ctorch._utils\n_rebuild_parameter\n)R."), ErrorCode::kCorrupt, {"parameter"});
  expect_error(unpickle("N)R."), ErrorCode::kCorrupt, {"a call of a None"});
  expect_error(unpickle("ccollections\nOrderedDict\nNR."), ErrorCode::kCorrupt, {"arguments"});
  expect_error(unpickle("}Nb."), ErrorCode::kCorrupt, {"setting the state of a dict from a None"});
  expect_error(unpickle("NQ."), ErrorCode::kCorrupt, {"persistent id"});
  EXPECT_TRUE(unpickle("}}b.").ok());
}

TEST(Pickle, RefusesAStackOutOfStep) {
  for (const std::string& pickle :
       {""s,   "."s,   "}"s,     "}}."s,     "}(."s,    "t."s,    "(}(ub."s,
        "a."s, "]s."s, "}Ns."s,  "}(Nu."s,   "R."s,     "\x85."s, "]N]Nu."s,
        "Q."s, "b."s,  "\x93."s, "NN\x93."s, "q\x01."s, "\x94."s, "(}t(NR."s}) {
    EXPECT_FALSE(unpickle(pickle).ok()) << pickle;
  }
}

TEST(Pickle, RefusesBombs) {
  expect_error(unpickle("\x8b\xff\xff\xff\x7f"s), ErrorCode::kCorrupt, {"opcode 0x8b"});  // LONG4
  expect_error(unpickle("\x8a\xff"s), ErrorCode::kCorrupt, {"255 bytes; at most 8"});
  expect_error(unpickle("X\xff\xff\xff\xff"s), ErrorCode::kCorrupt, {"4294967295 bytes"});
  expect_error(
      unpickle("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"s), ErrorCode::kCorrupt, {"0 are left"});
  expect_error(unpickle("Nr\xff\xff\xff\xff"s), ErrorCode::kCorrupt, {"memo index 4294967295"});
  expect_error(unpickle("j\xff\xff\xff\xff"s), ErrorCode::kCorrupt, {"never stored"});
  expect_error(unpickle("Nq\x05h\x04."), ErrorCode::kCorrupt, {"memo index 4 was never stored"});
  EXPECT_FALSE(unpickle(std::string(2'000'000, '(')).ok());
  EXPECT_FALSE(unpickle(std::string(2'000'000, ']') + ".").ok());
  // Nested tuples, a million deep, as a value: named, not walked.
  expect_error(unpickle(state_dict(text("w") + "N" + std::string(1'000'000, '\x85'))),
               ErrorCode::kCorrupt,
               {"'w'", "tuple, not a tensor"});
  // A list that holds itself, and a dict that is its own value.
  EXPECT_FALSE(unpickle("]q\x01h\x01"
                        "a.")
                   .ok());
  EXPECT_FALSE(unpickle("}q\x01" + text("a") + "h\x01s.").ok());
  // Each tuple twice the last: 2^64 leaves in a hundred bytes if anything expanded it.
  std::string doubling = "N";
  for (int i = 0; i < 64; ++i) doubling += "q\x01h\x01\x86"s;
  EXPECT_FALSE(unpickle(state_dict(text("w") + doubling)).ok());
}

TEST(Pickle, RefusesOddStateDicts) {
  expect_error(unpickle("]."), ErrorCode::kCorrupt, {"holds a list, not a dict"});
  expect_error(
      unpickle(state_dict("NN")), ErrorCode::kCorrupt, {"a key of the state dict is a None"});
  expect_error(unpickle(state_dict(text("w") + "K\x01")), ErrorCode::kCorrupt, {"'w'", "a int"});
  const std::string rebuild = "ctorch._utils\n_rebuild_tensor_v2\n";
  expect_error(unpickle(state_dict(text("w") + rebuild + ")R")), ErrorCode::kCorrupt, {"'w'"});
  expect_error(unpickle(state_dict(text("w") + rebuild + tuple(")QK\x01))") + "R")),
               ErrorCode::kCorrupt,
               {"'w'", "its storage is not"});
  expect_error(unpickle(state_dict(text("w") + tensor("]", "]"))), ErrorCode::kCorrupt, {"shape"});
  expect_error(unpickle(state_dict(text("w") + tensor(tuple("N"), tuple("N")))),
               ErrorCode::kCorrupt,
               {"a None in its shape"});
}

TEST(Pickle, ReadsIntegersOfAnyWidth) {
  const auto dims = [](const std::string& integer) -> std::int64_t {
    const std::string pickle = state_dict(text("w") + tensor(tuple(integer), tuple("K\x01")));
    const auto tensors = unpickle(pickle);
    return tensors.ok() ? tensors->at(0).shape.at(0) : -999;
  };
  EXPECT_EQ(dims("K\xff"), 255);
  EXPECT_EQ(dims("M\x01\x02"), 513);
  EXPECT_EQ(dims("J\xfe\xff\xff\xff"), -2);
  EXPECT_EQ(dims("\x8a\x00"s), 0);
  EXPECT_EQ(dims("\x8a\x01\x80"s), -128);
  EXPECT_EQ(dims("\x8a\x02\x80\x00"s), 128);
  EXPECT_EQ(dims("\x8a\x05\x00\x00\x00\x00\x01"s), 1LL << 32);
}

TEST(Zip, ReadsZip64) {
  // One entry whose sizes and offset stand in the zip64 field, and a zip64 end record.
  Bytes out;
  out.put<std::uint32_t>(0x04034b50).raw(std::string(14, '\0')).put(~0u).put(~0u);
  out.put<std::uint16_t>(1).put<std::uint16_t>(0).raw("a").raw("hello");
  const std::uint64_t directory = out.size();
  out.put<std::uint32_t>(0x02014b50).raw(std::string(16, '\0')).put(~0u).put(~0u);
  out.put<std::uint16_t>(1)
      .put<std::uint16_t>(4 + 5 + 28)
      .raw(std::string(10, '\0'))
      .put(~0u)
      .raw("a");
  out.put<std::uint16_t>(9).put<std::uint16_t>(1).raw("?");  // another field first
  out.put<std::uint16_t>(1).put<std::uint16_t>(24);
  out.put<std::uint64_t>(5).put<std::uint64_t>(5).put<std::uint64_t>(0).raw("    ");
  Bytes file = out;
  const std::uint64_t end64 = file.size();
  file.put<std::uint32_t>(0x06064b50).put<std::uint64_t>(44).raw(std::string(12, '\0'));
  file.put<std::uint64_t>(1).put<std::uint64_t>(1).put(end64 - directory).put(directory);
  file.put<std::uint32_t>(0x07064b50).put<std::uint32_t>(0).put(end64).put<std::uint32_t>(1);
  file.put<std::uint32_t>(0x06054b50).put<std::uint32_t>(0).put(~0u).put(~0u).put(~0u);
  file.put<std::uint16_t>(0);
  const auto entries = parse_zip(as_bytes(file.str()), "x.zip");
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ(file.str().substr((*entries)[0].offset, (*entries)[0].bytes), "hello");
}

TEST(Zip, RefusesWhatItCannotView) {
  const std::string good = testing_files::zip({{"a", "hello"}});
  const auto changed = [&](std::size_t offset, char value) {
    std::string file = good;
    file[offset] = value;
    return parse_zip(as_bytes(file), "x.zip");
  };
  const std::size_t directory = 30 + 1 + 5;
  expect_error(changed(directory + 10, 8), ErrorCode::kUnsupported, {"'a'", "compressed"});
  expect_error(changed(directory + 8, 1), ErrorCode::kUnsupported, {"'a'", "encrypted"});
  expect_error(changed(directory + 42, 9), ErrorCode::kCorrupt, {"'a'", "local header"});
  expect_error(changed(30, 'b'), ErrorCode::kCorrupt, {"'a'", "'b'"});
  std::string many = good;
  many[good.size() - 14] = many[good.size() - 12] = 99;  // both counts of entries
  expect_error(
      parse_zip(as_bytes(many), "x.zip"), ErrorCode::kCorrupt, {"99 zip entries claimed", "x.zip"});
  expect_error(changed(good.size() - 12, 2), ErrorCode::kUnsupported, {"several files"});
  const std::string twice = testing_files::zip({{"a", "1"}, {"a", "2"}});
  expect_error(parse_zip(as_bytes(twice), "x.zip"), ErrorCode::kCorrupt, {"'a' occurs twice"});
  const std::string with_folder = testing_files::zip({{"f/", ""}, {"f/a", "2"}});
  EXPECT_EQ(parse_zip(as_bytes(with_folder), "x.zip")->size(), 1u);
  EXPECT_TRUE(parse_zip(as_bytes(testing_files::zip({})), "x.zip")->empty());
}

}  // namespace
}  // namespace pagemill
