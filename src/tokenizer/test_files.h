// Fixtures and temporary files for the tests of this folder.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tokenizer/tokenizer.h"

namespace pagemill::testing {

inline std::string golden_path(const std::string& name) {
  return std::string(PM_GOLDEN_DIR "/tokenizer/") + name;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
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

// The demo model's file, or empty where it was not fetched.
inline std::string demo_gguf() {
  std::string path;
  if (const char* given = std::getenv("PAGEMILL_DEMO_GGUF")) {
    path = given;
  } else if (const char* home = std::getenv("PAGEMILL_HOME")) {
    path = std::string(home) + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  } else if (const char* user = std::getenv("HOME")) {
    path = std::string(user) + "/.cache/pagemill/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  }
  return std::filesystem::exists(path) ? path : "";
}

// A folder that is removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "pm_tokenizer_XXXXXX").string();
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  // Writes a file and returns its path.
  std::string write(const std::string& name, const std::string& content) const {
    std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::string path_;
};

}  // namespace pagemill::testing
