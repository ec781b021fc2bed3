#include "hub/model_path.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <utility>

#include "hub/hub_settings.h"
#include "hub/repo_download.h"
#include "hub/repo_name.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDemoFile = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr std::array<std::string_view, 5> kFileEndings = {
    ".gguf", ".safetensors", ".bin", ".pt", ".pth"};

Error no_such_file(const std::string& model, const std::string& why) {
  return not_found(
      fmt::format("MODEL '{}': no such file or directory; expected a .gguf file, a Hugging Face "
                  "directory, 'demo', or org/name of the Hugging Face Hub{}",
                  model,
                  why));
}

bool is_named_like_a_file(const std::string& model) {
  for (const std::string_view ending : kFileEndings) {
    if (model.ends_with(ending)) return true;
  }
  return false;
}

Result<std::string> demo_path() {
  const std::string path = fs::path(pagemill_home()) / kDemoFile;
  std::error_code ignored;
  if (fs::exists(path, ignored)) return path;
  return not_found(
      fmt::format("the demo model is not there: expected {}; fetch it with "
                  "scripts/fetch_demo.py",
                  path));
}

Result<std::string> local_path(const std::string& model, const std::string& gguf_file) {
  if (gguf_file.empty()) return model;
  const std::string path = fs::path(model) / gguf_file;
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path;
  return not_found(fmt::format("{}: no such file (--gguf-file names one in MODEL)", path));
}

Result<std::string> hub_path(const std::string& model,
                             const ModelPathOptions& options,
                             const OnDownload& on_download) {
  const auto name = parse_repo_name(model);
  if (!name.ok() || is_named_like_a_file(model)) {
    return no_such_file(model, name.ok() ? "" : fmt::format(" ({})", name.error().message));
  }
  PM_TRY(check_revision(options.revision));
  PM_ASSIGN(const HubSettings settings,
            read_hub_settings([](const char* variable) { return std::getenv(variable); }));
  const OnDownload progress =
      on_download ? on_download
                  : print_downloads(settings.progress_bars && isatty(STDERR_FILENO) != 0);
  auto path = download_model(
      settings, {name->id, options.revision, {name->quant, options.gguf_file}}, progress);
  if (path.ok()) return path;
  Error error = std::move(path).error();
  error.message = fmt::format(
      "MODEL '{}' is no file or directory here, and on the Hub: {}", model, error.message);
  return error;
}

}  // namespace

std::string pagemill_home() {
  if (const char* home = std::getenv("PAGEMILL_HOME"); home != nullptr && *home != '\0')
    return home;
  const char* user_home = std::getenv("HOME");
  return std::string(user_home != nullptr ? user_home : ".") + "/.cache/pagemill";
}

Result<std::string> resolve_model_path(const std::string& model,
                                       const ModelPathOptions& options,
                                       const OnDownload& on_download) {
  if (model == "demo") return demo_path();
  std::error_code ignored;
  if (fs::exists(model, ignored)) return local_path(model, options.gguf_file);
  return hub_path(model, options, on_download);
}

}  // namespace pagemill
