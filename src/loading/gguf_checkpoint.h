// A GGUF file as a Checkpoint.
#pragma once

#include <memory>
#include <string>

#include "loading/checkpoint.h"

namespace pagemill {

Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::string& path);

}  // namespace pagemill
