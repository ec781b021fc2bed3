#include "hub/hub_settings.h"

#include <gtest/gtest.h>

#include <map>

#include "base/files_testing.h"

namespace pagemill {
namespace {

using Variables = std::map<std::string, std::string>;

Result<HubSettings> read(const Variables& variables) {
  return read_hub_settings([&](const char* name) -> const char* {
    const auto it = variables.find(name);
    return it == variables.end() ? nullptr : it->second.c_str();
  });
}

TEST(HubSettingsTest, TheCacheIsWhereHuggingfaceHubHasIt) {
  const std::vector<std::pair<Variables, std::string>> cases = {
      {{{"HOME", "/home/me"}}, "/home/me/.cache/huggingface/hub"},
      {{{"HOME", "/home/me"}, {"XDG_CACHE_HOME", "/xdg"}}, "/xdg/huggingface/hub"},
      {{{"XDG_CACHE_HOME", "/xdg"}, {"HF_HOME", "/hf"}}, "/hf/hub"},
      {{{"HF_HOME", "/hf"}, {"HUGGINGFACE_HUB_CACHE", "/old"}}, "/old"},
      {{{"HUGGINGFACE_HUB_CACHE", "/old"}, {"HF_HUB_CACHE", "/new"}}, "/new"},
      {{{"HOME", "/home/me"}, {"HF_HOME", "~/hf"}}, "/home/me/hf/hub"},
      {{{"HOME", "/home/me"}, {"D", "data"}, {"HF_HOME", "/$D/${D}_x/$NONE/${D"}},
       "/data/data_x/$NONE/${D/hub"},
      {{{"HOME", "/home/me"}, {"HF_HOME", ""}}, "/home/me/.cache/huggingface/hub"},
  };
  for (const auto& [variables, expected] : cases) {
    const auto settings = read(variables);
    ASSERT_TRUE(settings.ok());
    EXPECT_EQ(settings->cache_dir, expected);
  }
}

TEST(HubSettingsTest, TheTokenIsFromAVariableOrAFile) {
  const TemporaryFolder folder;
  const std::string file = folder.write("token", " hf_file\n");
  folder.write("other", "hf_other");
  const auto token = [](const Variables& variables) {
    const auto settings = read(variables);
    EXPECT_TRUE(settings.ok());
    return settings->token + "|" + (settings->token.empty() ? "" : settings->token_source);
  };
  const std::string& home = folder.path();
  EXPECT_EQ(token({{"HF_HOME", home}}), "hf_file|" + file);
  EXPECT_EQ(token({{"HF_HOME", home}, {"HF_TOKEN", "hf_a\n"}}), "hf_a|HF_TOKEN");
  EXPECT_EQ(token({{"HF_HOME", home}, {"HUGGING_FACE_HUB_TOKEN", "hf_b"}}),
            "hf_b|HUGGING_FACE_HUB_TOKEN");
  EXPECT_EQ(token({{"HF_HOME", home}, {"HF_TOKEN_PATH", home + "/other"}}),
            "hf_other|" + home + "/other");
  EXPECT_EQ(token({{"HF_HOME", home + "/none"}}), "|");
  EXPECT_EQ(token({{"HF_TOKEN", "hf_a"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}), "|");
}

TEST(HubSettingsTest, SwitchesAreAsThePythonPackageReadsThem) {
  EXPECT_FALSE(read({})->offline);
  for (const char* value : {"1", "on", "Yes", "TRUE"}) {
    EXPECT_TRUE(read({{"HF_HUB_OFFLINE", value}})->offline) << value;
  }
  EXPECT_FALSE(read({{"HF_HUB_OFFLINE", "0"}})->offline);
  EXPECT_TRUE(read({{"TRANSFORMERS_OFFLINE", "1"}})->offline);
  EXPECT_FALSE(read({{"HF_HUB_DISABLE_PROGRESS_BARS", "1"}})->progress_bars);
  EXPECT_EQ(read({})->timeout_s, 10);
  EXPECT_EQ(read({{"HF_HUB_DOWNLOAD_TIMEOUT", "2.5"}})->timeout_s, 2.5);
  EXPECT_EQ(read({})->endpoint, "https://huggingface.co");
  EXPECT_EQ(read({{"HF_ENDPOINT", "http://mirror:1/hf/"}})->endpoint, "http://mirror:1/hf");
}

TEST(HubSettingsTest, AValueThatCannotBeRightIsNamed) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"HF_ENDPOINT", "huggingface.co"},
      {"HF_ENDPOINT", "file:///etc"},
      {"HF_HUB_DOWNLOAD_TIMEOUT", "soon"},
      {"HF_HUB_DOWNLOAD_TIMEOUT", "0"},
      {"HF_HUB_DOWNLOAD_TIMEOUT", "nan"},
      {"HF_TOKEN", "hf_a\r\nX-Evil: 1"},
      {"HF_TOKEN", "hf a"},
  };
  for (const auto& [name, value] : wrong) {
    const auto settings = read({{name, value}});
    ASSERT_FALSE(settings.ok()) << name << "=" << value;
    EXPECT_EQ(settings.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(settings.error().message.starts_with(name)) << settings.error().message;
  }
}

}  // namespace
}  // namespace pagemill
