#include "hub/model_path.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace pagemill {
namespace {

namespace fs = std::filesystem;

// A folder of its own as PAGEMILL_HOME and HOME, the environment restored afterwards.
class ModelPathTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / (std::string("model_path_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    for (const char* name : {"PAGEMILL_HOME", "HOME"}) {
      const char* value = getenv(name);
      saved_.emplace_back(name, value == nullptr ? std::optional<std::string>() : value);
    }
  }
  void TearDown() override {
    for (const auto& [name, value] : saved_) {
      value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
    }
    fs::remove_all(folder_);
  }
  void touch(const fs::path& path) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "x";
  }

  fs::path folder_;
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

  const fs::path file = folder_ / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  touch(file);
  const auto found = resolve_model_path("demo");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, file.string());
}

TEST_F(ModelPathTest, AFileOrADirectoryIsItself) {
  touch(folder_ / "model.gguf");
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
