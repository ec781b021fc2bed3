#include "hub/model_path.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/files_testing.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

// A folder of its own as PAGEMILL_HOME and HOME, the environment restored afterwards.
class ModelPathTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"PAGEMILL_HOME", "HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE"}) {
      const char* value = getenv(name);
      saved_.emplace_back(name, value == nullptr ? std::optional<std::string>() : value);
    }
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
    }
  }

  const TemporaryFolder temporary_;
  const fs::path folder_ = temporary_.path();
  std::vector<std::pair<std::string, std::optional<std::string>>> saved_;
};

TEST_F(ModelPathTest, HomeIsWhatTheEnvironmentSays) {
  setenv("PAGEMILL_HOME", "/some/where", 1);
  EXPECT_EQ(pagemill_home(), "/some/where");
  setenv("PAGEMILL_HOME", "", 1);
  setenv("HOME", "/home/user", 1);
  EXPECT_EQ(pagemill_home(), "/home/user/.cache/pagemill");
  unsetenv("PAGEMILL_HOME");
  EXPECT_EQ(pagemill_home(), "/home/user/.cache/pagemill");
}

TEST_F(ModelPathTest, DemoIsUnderHome) {
  setenv("PAGEMILL_HOME", folder_.c_str(), 1);
  const auto missing = resolve_model_path("demo");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find(folder_.string()), std::string::npos);
  EXPECT_NE(missing.error().message.find("fetch_demo.py"), std::string::npos);

  const std::string file = temporary_.write("models/SmolLM2-135M-Instruct.Q4_1.gguf", "x");
  const auto found = resolve_model_path("demo");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, file);
}

TEST_F(ModelPathTest, AFileOrADirectoryIsItself) {
  temporary_.write("model.gguf", "x");
  for (const fs::path& path : {folder_, folder_ / "model.gguf"}) {
    const auto found = resolve_model_path(path.string());
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(*found, path.string());
  }
}

TEST_F(ModelPathTest, AGgufFileOfADirectory) {
  const std::string file = temporary_.write("sub/model.gguf", "x");
  EXPECT_EQ(*resolve_model_path(folder_, {.revision = {}, .gguf_file = "sub/model.gguf"}), file);
  const auto missing = resolve_model_path(folder_, {.revision = {}, .gguf_file = "gone.gguf"});
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.error().message.find("gone.gguf"), std::string::npos);
}

TEST_F(ModelPathTest, WhatIsNoNameOnTheHubIsNotFoundAndNamed) {
  for (const std::string& model : {(folder_ / "gone").string(),
                                   std::string("gone.gguf"),
                                   std::string("a/b/c"),
                                   std::string()}) {
    const auto found = resolve_model_path(model);
    ASSERT_FALSE(found.ok());
    EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
    EXPECT_NE(found.error().message.find("'" + model + "': no such file"), std::string::npos)
        << found.error().message;
  }
}

TEST_F(ModelPathTest, ANameOnTheHubIsFoundInItsCache) {
  setenv("HF_HUB_OFFLINE", "1", 1);
  setenv("HF_HUB_CACHE", folder_.c_str(), 1);
  const std::string repo = "models--org--name/", commit(40, 'c');
  temporary_.write(repo + "refs/main", commit);
  temporary_.write(repo + "snapshots/" + commit + "/config.json", "{}");
  const auto partial = resolve_model_path("org/name");
  ASSERT_FALSE(partial.ok());
  EXPECT_EQ(partial.error().code, ErrorCode::kNotFound);
  EXPECT_NE(partial.error().message.find("HF_HUB_OFFLINE"), std::string::npos);
  EXPECT_NE(partial.error().message.find("model.safetensors"), std::string::npos);

  const std::string weights =
      temporary_.write(repo + "snapshots/" + commit + "/model.safetensors", "x");
  const std::string snapshot = fs::path(weights).parent_path();
  EXPECT_EQ(*resolve_model_path("org/name"), snapshot);
  EXPECT_EQ(*resolve_model_path("org/name", {.revision = commit, .gguf_file = {}}), snapshot);
  EXPECT_FALSE(resolve_model_path("org/name", {.revision = "v2", .gguf_file = {}}).ok());
  const auto wrong = resolve_model_path("org/name", {.revision = "../x", .gguf_file = {}});
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().param, "revision");
}

}  // namespace
}  // namespace pagemill
