// What tells one model's weights from another's, for KV blocks that outlive the process.
#pragma once

#include <string>

#include "base/result.h"

namespace pagemill {

// A digest of the names, sizes, times of change and samples of the contents of a model's files (a
// file, or those of a directory). The same files give the same text wherever they lie; reading them
// whole would take longer than starting. kIo where they can't be read.
Result<std::string> weights_identity(const std::string& path);

}  // namespace pagemill
