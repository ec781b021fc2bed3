#include "loading/gguf.h"

#include <gtest/gtest.h>

#include <string>

#include "loading/gguf_config.h"
#include "loading/gguf_names.h"
#include "loading/test_files.h"

namespace pagemill {
namespace {

using testing_files::Bytes;
using testing_files::expect_error;

constexpr std::uint32_t kString = 8, kArray = 9, kU32 = 4, kU8 = 0, kF32 = 6, kBool = 7;

Bytes header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
  return Bytes().raw("GGUF").put(version).put(tensors).put(entries);
}

Bytes& u32(Bytes& out, std::string_view key, std::uint32_t value) {
  return out.text(key).put(kU32).put(value);
}

Bytes& tensor(Bytes& out,
              std::string_view name,
              const std::vector<std::uint64_t>& dims,
              std::uint32_t type,
              std::uint64_t offset) {
  out.text(name).put(static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t dim : dims) out.put(dim);
  return out.put(type).put(offset);
}

Result<GgufFile> parse(const Bytes& bytes) {
  return GgufFile::parse(testing_files::as_bytes(bytes.str()), "x.gguf");
}

// Every value type, a nested array and two tensors.
Bytes sample() {
  Bytes out = header(2, 7);
  u32(out, "general.alignment", 64);
  out.text("flag").put(kBool).put<std::uint8_t>(1);
  out.text("name").put(kString).text("tiny");
  out.text("eps").put(kF32).put(0.5f);
  out.text("words").put(kArray).put(kString).put<std::uint64_t>(2).text("a").text("bc");
  out.text("nested").put(kArray).put(kArray).put<std::uint64_t>(1);
  out.put(kU8).put<std::uint64_t>(3).raw("xyz");
  out.text("minus").put<std::uint32_t>(11).put<std::int64_t>(-5);
  tensor(out, "a", {32, 2}, 8, 0);  // Q8_0: 68 bytes
  tensor(out, "b", {3}, 0, 128);
  out.align(64).raw(std::string(140, '\1'));
  return out;
}

TEST(Gguf, ReadsEveryKindOfValue) {
  const Bytes bytes = sample();
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->entries().size(), 7u);
  EXPECT_EQ(**file->integer("general.alignment"), 64);
  EXPECT_EQ(**file->boolean("flag"), true);
  EXPECT_EQ(**file->string("name"), "tiny");
  EXPECT_EQ(**file->number("eps"), 0.5);
  EXPECT_EQ(**file->number("minus"), -5.0);
  EXPECT_EQ(**file->integer("minus"), -5);
  const GgufArray words = **file->array("words");
  EXPECT_EQ(words.count, 2u);
  EXPECT_EQ(words.element, GgufType::kString);
  EXPECT_EQ(words.bytes.size(), 19u);
  EXPECT_EQ((**file->array("nested")).bytes.size(), 4u + 8u + 3u);
  EXPECT_FALSE(file->integer("absent")->has_value());
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].shape, (std::vector<std::int64_t>{2, 32}));
  EXPECT_EQ(file->tensors()[0].bytes, 68u);
  EXPECT_EQ(file->tensors()[1].offset, file->tensors()[0].offset + 128);
  EXPECT_EQ(file->tensors()[0].offset % 64, 0u);
}

TEST(Gguf, AWrongTypeNamesKeyAndOffset) {
  const Bytes bytes = sample();
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok());
  expect_error(
      file->integer("name"), ErrorCode::kCorrupt, {"x.gguf", "'name'", "offset", "string"});
  expect_error(
      file->string("flag"), ErrorCode::kCorrupt, {"'flag'", "expected a string, got bool"});
  expect_error(file->number("words"), ErrorCode::kCorrupt, {"expected a number, got array"});
  expect_error(file->array("eps"), ErrorCode::kCorrupt, {"expected an array, got f32"});
  expect_error(file->boolean("eps"), ErrorCode::kCorrupt, {"expected a bool, got f32"});
}

TEST(Gguf, WithstandsDamage) {
  const Bytes bytes = sample();
  const auto intact = parse(bytes);
  ASSERT_TRUE(intact.ok());
  const StoredTensor last = intact->tensors()[1];
  testing_files::withstands_damage(
      [](std::span<const std::byte> data) -> Result<std::vector<StoredTensor>> {
        PM_ASSIGN(const GgufFile file, GgufFile::parse(data, "damaged.file"));
        return std::vector<StoredTensor>(file.tensors().begin(), file.tensors().end());
      },
      bytes.str(),
      last.offset + last.bytes);
}

TEST(Gguf, RefusesOtherFilesAndVersions) {
  expect_error(parse(Bytes().raw("GGML....")), ErrorCode::kCorrupt, {"x.gguf", "not a GGUF file"});
  expect_error(parse(header(0, 0, 1)), ErrorCode::kUnsupported, {"version 1", "2 and 3"});
  expect_error(parse(header(0, 0, 0x03000000)), ErrorCode::kUnsupported, {"big-endian"});
  EXPECT_TRUE(parse(header(0, 0, 2)).ok());
}

TEST(Gguf, RefusesHostileCounts) {
  expect_error(parse(header(1ull << 62, 0)), ErrorCode::kCorrupt, {"offset 8", "tensors claimed"});
  expect_error(parse(header(0, 1ull << 62)), ErrorCode::kCorrupt, {"offset 16", "entries claimed"});
  Bytes key = header(0, 1);
  key.put<std::uint64_t>(UINT64_MAX).raw("abcdefghijkl");
  expect_error(parse(key), ErrorCode::kCorrupt, {"key of metadata entry 0", "at most 4096"});
  Bytes value = header(0, 1);
  value.text("k").put(kString).put<std::uint64_t>(UINT64_MAX - 7);
  expect_error(parse(value), ErrorCode::kCorrupt, {"key 'k'", "bytes"});
  Bytes array = header(0, 1);
  array.text("k").put(kArray).put(kU32).put<std::uint64_t>(1ull << 62);
  expect_error(parse(array), ErrorCode::kCorrupt, {"key 'k'", "type u32", "are left"});
  Bytes deep = header(0, 1);
  deep.text("k").put(kArray);
  for (int i = 0; i < 1000; ++i) deep.put(kArray).put<std::uint64_t>(1);
  expect_error(parse(deep), ErrorCode::kCorrupt, {"key 'k'", "nested deeper than 4"});
  Bytes type = header(0, 1);
  type.text("k").put<std::uint32_t>(13).put<std::uint64_t>(1);
  expect_error(parse(type), ErrorCode::kCorrupt, {"key 'k'", "unknown value type 13"});
  Bytes flag = header(0, 1);
  flag.text("k").put(kBool).put<std::uint8_t>(2);
  expect_error(parse(flag), ErrorCode::kCorrupt, {"key 'k'", "0 or 1, not 2"});
}

TEST(Gguf, RefusesTwoEqualKeysAndNames) {
  Bytes keys = header(0, 2);
  u32(u32(keys, "k", 1), "k", 2);
  expect_error(parse(keys), ErrorCode::kCorrupt, {"key 'k' occurs twice"});
  Bytes names = header(2, 0);
  tensor(tensor(names, "t", {8}, 0, 0), "t", {8}, 0, 32).align(32).raw(std::string(64, ' '));
  expect_error(parse(names), ErrorCode::kCorrupt, {"tensor 't' occurs twice"});
}

Bytes one_tensor(const std::vector<std::uint64_t>& dims, std::uint32_t type, std::uint64_t offset) {
  Bytes out = header(1, 0);
  tensor(out, "t", dims, type, offset).align(32).raw(std::string(128, ' '));
  return out;
}

TEST(Gguf, RefusesImpossibleTensors) {
  EXPECT_TRUE(parse(one_tensor({32}, 0, 0)).ok());
  expect_error(
      parse(one_tensor({33}, 0, 0)), ErrorCode::kCorrupt, {"'t'", "132 bytes", "end past"});
  expect_error(parse(one_tensor({8}, 0, 1)), ErrorCode::kCorrupt, {"'t'", "not a multiple of 32"});
  expect_error(parse(one_tensor({8}, 0, 1ull << 63)), ErrorCode::kCorrupt, {"'t'", "end past"});
  expect_error(parse(one_tensor({}, 0, 0)), ErrorCode::kCorrupt, {"'t'", "0 dimensions"});
  expect_error(parse(one_tensor({1, 1, 1, 1, 1}, 0, 0)), ErrorCode::kCorrupt, {"5 dimensions"});
  expect_error(parse(one_tensor({0}, 0, 0)), ErrorCode::kCorrupt, {"'t'", "dimension 0 is 0"});
  expect_error(parse(one_tensor({1ull << 63}, 0, 0)), ErrorCode::kCorrupt, {"dimension 0 is -"});
  expect_error(
      parse(one_tensor({1ull << 32, 1ull << 32}, 0, 0)), ErrorCode::kCorrupt, {"too large"});
  expect_error(parse(one_tensor({1ull << 61}, 0, 0)), ErrorCode::kCorrupt, {"too large"});
  expect_error(parse(one_tensor({48}, 8, 0)), ErrorCode::kCorrupt, {"32 elements (Q8_0)"});
  expect_error(
      parse(one_tensor({32}, 6, 0)), ErrorCode::kUnsupported, {"'t'", "Q5_0", "supported: F32"});
  expect_error(parse(one_tensor({32}, 999, 0)), ErrorCode::kUnsupported, {"999 (unknown)"});
  Bytes overlap = header(2, 0);
  tensor(tensor(overlap, "t", {16}, 0, 0), "u", {8}, 0, 32).align(32).raw(std::string(64, ' '));
  expect_error(parse(overlap), ErrorCode::kCorrupt, {"'t'", "'u'", "overlap"});
}

TEST(Gguf, RefusesAnOddAlignment) {
  for (const std::uint32_t alignment : {0u, 48u, 1u << 30}) {
    Bytes out = header(0, 1);
    u32(out, "general.alignment", alignment);
    expect_error(parse(out), ErrorCode::kCorrupt, {"general.alignment", "power of two"});
  }
}

TEST(Gguf, HostileNamesAreEscapedInMessages) {
  Bytes out = header(0, 1);
  out.text("a\n\x1b[31m'").put(kBool).put<std::uint8_t>(9);
  expect_error(parse(out), ErrorCode::kCorrupt, {"'a\\x0a\\x1b[31m\\x27'"});
}

TEST(GgufNames, MapToHuggingFace) {
  EXPECT_EQ(huggingface_tensor_name("token_embd.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(huggingface_tensor_name("output_norm.weight"), "model.norm.weight");
  EXPECT_EQ(huggingface_tensor_name("output.weight"), "lm_head.weight");
  const std::string layer = "model.layers.17.";
  for (const auto& [gguf, huggingface] :
       std::vector<std::pair<std::string, std::string>>{{"attn_norm", "input_layernorm"},
                                                        {"attn_q", "self_attn.q_proj"},
                                                        {"attn_k", "self_attn.k_proj"},
                                                        {"attn_v", "self_attn.v_proj"},
                                                        {"attn_output", "self_attn.o_proj"},
                                                        {"attn_q_norm", "self_attn.q_norm"},
                                                        {"attn_k_norm", "self_attn.k_norm"},
                                                        {"ffn_norm", "post_attention_layernorm"},
                                                        {"ffn_gate", "mlp.gate_proj"},
                                                        {"ffn_up", "mlp.up_proj"},
                                                        {"ffn_down", "mlp.down_proj"}}) {
    EXPECT_EQ(huggingface_tensor_name("blk.17." + gguf + ".weight"),
              layer + huggingface + ".weight");
    EXPECT_EQ(huggingface_tensor_name("blk.17." + gguf + ".bias"), layer + huggingface + ".bias");
  }
  for (const char* const same : {"rope_freqs.weight",
                                 "blk.x.attn_q.weight",
                                 "blk..attn_q.weight",
                                 "blk.1.weight",
                                 "",
                                 ".",
                                 "blk.1.attn_q.scale",
                                 "token_embd"}) {
    EXPECT_EQ(huggingface_tensor_name(same), same);
  }
}

// A minimal llama; `extra` entries follow, `skip` leaves a key out.
Bytes model(std::string_view arch, std::string_view skip, std::uint64_t extra, const Bytes& more) {
  const std::vector<std::pair<std::string, std::uint32_t>> keys = {{"block_count", 2},
                                                                   {"context_length", 128},
                                                                   {"embedding_length", 64},
                                                                   {"feed_forward_length", 96},
                                                                   {"attention.head_count", 4},
                                                                   {"vocab_size", 10}};
  Bytes body;
  std::uint64_t count = 2 + extra;
  body.text("general.architecture").put(kString).text(arch);
  for (const auto& [key, value] : keys) {
    if (key == skip) continue;
    u32(body, std::string(arch) + "." + key, value);
    ++count;
  }
  body.text(std::string(arch) + ".attention.layer_norm_rms_epsilon").put(kF32).put(1e-5f);
  return header(0, count).raw(body.str()).raw(more.str());
}

Result<nlohmann::json> config(const Bytes& bytes) {
  const auto file = parse(bytes);
  if (!file.ok()) return file.error();
  return gguf_config(*file);
}

TEST(GgufConfig, FillsInDefaults) {
  const auto made = config(model("llama", "", 0, Bytes()));
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ((*made)["num_key_value_heads"], 4);
  EXPECT_EQ((*made)["head_dim"], 16);
  EXPECT_EQ((*made)["rope_theta"], 10000.0);
  EXPECT_TRUE((*made)["rope_scaling"].is_null());
  EXPECT_EQ((*made)["tie_word_embeddings"], true);
  EXPECT_EQ((*made)["architectures"][0], "LlamaForCausalLM");
}

TEST(GgufConfig, ReadsScalingWindowAndPartialRotation) {
  Bytes more;
  more.text("llama.rope.scaling.type").put(kString).text("linear");
  more.text("llama.rope.scaling.factor").put(kF32).put(4.0f);
  u32(u32(more, "llama.attention.sliding_window", 32), "llama.rope.dimension_count", 8);
  const auto made = config(model("llama", "", 4, more));
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ((*made)["rope_scaling"]["rope_type"], "linear");
  EXPECT_EQ((*made)["rope_scaling"]["factor"], 4.0);
  EXPECT_EQ((*made)["sliding_window"], 32);
  EXPECT_EQ((*made)["architectures"][0], "MistralForCausalLM");
  EXPECT_EQ((*made)["partial_rotary_factor"], 0.5);
}

TEST(GgufConfig, NamesWhatIsMissingOrWrong) {
  expect_error(config(model("gemma", "", 0, Bytes())),
               ErrorCode::kUnsupported,
               {"'gemma'", "supported: llama, qwen2"});
  expect_error(config(header(0, 0)), ErrorCode::kCorrupt, {"general.architecture"});
  for (const char* const key : {"block_count", "embedding_length", "attention.head_count"}) {
    expect_error(config(model("llama", key, 0, Bytes())), ErrorCode::kCorrupt, {"x.gguf", key});
  }
  const auto with = [](std::string_view key, std::uint32_t value) {
    Bytes more;
    u32(more, key, value);
    return config(model("llama", "", 1, more));
  };
  expect_error(with("llama.attention.head_count_kv", 3), ErrorCode::kCorrupt, {"divisor of 4"});
  expect_error(
      with("llama.attention.key_length", 0), ErrorCode::kCorrupt, {"key_length", "offset"});
  expect_error(with("llama.rope.dimension_count", 18), ErrorCode::kCorrupt, {"at most 16"});
  expect_error(with("llama.rope.freq_base", 0), ErrorCode::kCorrupt, {"finite and positive"});
  expect_error(with("llama.expert_count", 8), ErrorCode::kUnsupported, {"expert_count"});
  expect_error(with("split.count", 3), ErrorCode::kUnsupported, {"split.count"});
  Bytes longrope;
  longrope.text("llama.rope.scaling.type").put(kString).text("longrope");
  expect_error(config(model("llama", "", 1, longrope)),
               ErrorCode::kUnsupported,
               {"longrope", "supported: none, linear, yarn"});
}

}  // namespace
}  // namespace pagemill
