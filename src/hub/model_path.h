// From what a user types for MODEL to a path on this machine.
#pragma once

#include <string>

#include "base/result.h"
#include "hub/download_progress.h"

namespace pagemill {

// ${PAGEMILL_HOME}, or ~/.cache/pagemill.
std::string pagemill_home();

struct ModelPathOptions {
  std::string revision = "main";  // of a model on the Hub: a branch, a tag, a commit, refs/pr/N
  std::string gguf_file;          // the path of a GGUF file in the repository or directory
};

// An existing file or directory is itself. "demo" is the demo model under pagemill_home(). Anything
// else is a model on the Hugging Face Hub, "org/name" or, of its GGUF files, "org/name:QUANT": it
// is found in the Hub's cache or fetched into it (hub/repo_download.h), as the environment
// variables of huggingface_hub say. on_download: null shows the progress on stderr. The error says
// what was looked for and what would be right.
Result<std::string> resolve_model_path(const std::string& model,
                                       const ModelPathOptions& options = {},
                                       const OnDownload& on_download = nullptr);

}  // namespace pagemill
