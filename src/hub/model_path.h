// From what a user types for MODEL to a path on this machine.
#pragma once

#include <string>

#include "base/result.h"

namespace pagemill {

// ${PAGEMILL_HOME}, or ~/.cache/pagemill.
std::string pagemill_home();

// "demo": the demo model under pagemill_home(). Anything else: an existing file or directory.
// kNotFound says what was looked for and what would be right.
Result<std::string> resolve_model_path(const std::string& model);

}  // namespace pagemill
