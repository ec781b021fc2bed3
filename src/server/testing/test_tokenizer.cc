#include "server/testing/test_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/files_testing.h"

namespace pagemill {
namespace {

using nlohmann::json;

constexpr const char* kTemplate =
    "{%- for m in messages -%}"
    "{%- if m.role == 'refused' -%}{{ raise_exception('this role is refused') }}{%- endif -%}"
    "{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>' + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

std::string utf8(unsigned code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | (code_point >> 6)),
          static_cast<char>(0x80 | (code_point & 0x3F))};
}

// The printable stand-ins that byte-level BPE gives to bytes (GPT-2's table).
json byte_vocabulary() {
  json vocabulary = json::object();
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    vocabulary[utf8(printable ? byte : next++)] = byte;
  }
  return vocabulary;
}

json special(TokenId id, const char* content) {
  return {{"id", id},
          {"content", content},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", true}};
}

json tokenizer_json() {
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", false},
                           {"use_regex", false}};
  json out;
  out["version"] = "1.0";
  out["truncation"] = out["padding"] = out["normalizer"] = out["post_processor"] = nullptr;
  out["added_tokens"] = {special(kTestEos, "<|endoftext|>"),
                         special(kTestImStart, "<|im_start|>"),
                         special(kTestImEnd, "<|im_end|>")};
  out["pre_tokenizer"] = out["decoder"] = byte_level;
  out["model"] = {{"type", "BPE"},
                  {"dropout", nullptr},
                  {"unk_token", nullptr},
                  {"fuse_unk", false},
                  {"byte_fallback", false},
                  {"ignore_merges", false},
                  {"vocab", byte_vocabulary()},
                  {"merges", json::array()},
                  {"continuing_subword_prefix", nullptr},
                  {"end_of_word_suffix", nullptr}};
  return out;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_test_tokenizer() {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", tokenizer_json().dump());
  folder.write("tokenizer_config.json",
               json{{"eos_token", "<|endoftext|>"}, {"bos_token", nullptr}}.dump());
  auto tokenizer = Tokenizer::from_directory(folder.path());
  PM_CHECK(tokenizer.ok(), "{}", tokenizer.error().message);
  return *tokenizer;
}

std::shared_ptr<const ChatTemplate> make_test_chat_template(const Tokenizer& tokenizer) {
  auto compiled = ChatTemplate::compile(kTemplate, tokenizer);
  PM_CHECK(compiled.ok(), "{}", compiled.error().message);
  return *compiled;
}

}  // namespace pagemill
