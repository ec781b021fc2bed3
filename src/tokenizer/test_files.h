// Fixtures and temporary files for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/files_testing.h"
#include "tokenizer/tokenizer.h"

namespace pagemill::testing {

inline std::string golden_path(const std::string& name) {
  return std::string(PM_GOLDEN_DIR "/tokenizer/") + name;
}

inline nlohmann::json read_json(const std::string& path) {
  return nlohmann::json::parse(read_file(path));
}

// A fixture by its folder's name.
inline std::shared_ptr<const Tokenizer> load_fixture(const std::string& name) {
  std::string gguf = golden_path(name + "/vocab.gguf");
  auto loaded = std::filesystem::exists(gguf) ? Tokenizer::from_gguf(gguf)
                                              : Tokenizer::from_directory(golden_path(name));
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  return *loaded;
}

// Every kind of tokenizer that has a fixture.
inline constexpr const char* kFixtures[] = {"byte_level",
                                            "gpt2_files",
                                            "spm_bpe",
                                            "spm_unigram",
                                            "spm_no_prefix",
                                            "spm_gguf",
                                            "metaspace",
                                            "wordpiece",
                                            "word_suffix"};

}  // namespace pagemill::testing
