#include "hub/model_path.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

namespace pagemill {
namespace {

constexpr const char* kDemoFile = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

}  // namespace

std::string pagemill_home() {
  if (const char* home = std::getenv("PAGEMILL_HOME"); home != nullptr && *home != '\0')
    return home;
  const char* user_home = std::getenv("HOME");
  return std::string(user_home != nullptr ? user_home : ".") + "/.cache/pagemill";
}

Result<std::string> resolve_model_path(const std::string& model) {
  std::error_code ignored;
  if (model == "demo") {
    const std::string path = (std::filesystem::path(pagemill_home()) / kDemoFile).string();
    if (std::filesystem::exists(path, ignored)) return path;
    return not_found(
        fmt::format("the demo model is not there: expected {}; fetch it with "
                    "scripts/fetch_demo.py",
                    path));
  }
  if (std::filesystem::exists(model, ignored)) return model;
  return not_found(
      fmt::format("MODEL '{}': no such file or directory; expected a .gguf file, a Hugging Face "
                  "directory or 'demo'",
                  model));
}

}  // namespace pagemill
