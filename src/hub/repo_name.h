// Names of models and of their revisions on the Hugging Face Hub, as a user types them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill {

struct RepoName {
  std::string id;     // "org/name", or "name" for the Hub's oldest models
  std::string quant;  // "Q4_K_M" of "org/name:Q4_K_M"; empty: none was asked for
};

// By the rules of huggingface_hub's validate_repo_id: up to two parts of letters, digits, '-', '_'
// and '.', 96 characters at most. kInvalidArgument says which rule the name breaks.
Result<RepoName> parse_repo_name(std::string_view text);

// A branch, a tag, a commit or "refs/pr/N"; it becomes a path in the cache. kInvalidArgument
// ("revision") otherwise.
Status check_revision(std::string_view revision);

// A file of a repository, by its path there: relative, with nothing that could lead out of the
// folder that it is put in.
bool is_safe_file_name(std::string_view name);

// 40 hexadecimal digits: a revision that never changes.
bool is_commit(std::string_view revision);
bool is_hex(std::string_view text);

}  // namespace pagemill
