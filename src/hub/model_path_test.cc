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
    for (const char* name : {"PAGEMILL_HOME", "HOME"}) {
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

TEST_F(ModelPathTest, AnythingElseIsNotFoundAndNamed) {
  for (const std::string& model :
       {std::string("no-such-model"), (folder_ / "gone.gguf").string(), std::string()}) {
    const auto found = resolve_model_path(model);
    ASSERT_FALSE(found.ok());
    EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
    EXPECT_NE(found.error().message.find("'" + model + "'"), std::string::npos);
  }
}

}  // namespace
}  // namespace pagemill
