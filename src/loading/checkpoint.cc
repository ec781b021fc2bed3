#include "loading/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "loading/gguf_checkpoint.h"
#include "loading/hf_checkpoint.h"
#include "loading/stored_tensor.h"

namespace pagemill {

Result<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return not_found(fmt::format("{}: no such file or directory", path));
  }
  if (std::filesystem::is_directory(status)) return open_hf_checkpoint(path);
  for (const std::string_view extension : {".safetensors", ".bin", ".pt", ".pth"}) {
    if (path.ends_with(extension)) {
      return invalid_argument(
          fmt::format("{}: give its folder, which must hold config.json, not the file", path));
    }
  }
  return open_gguf_checkpoint(path);
}

Result<const CheckpointTensor*> require_tensor(const Checkpoint& checkpoint,
                                               std::string_view name,
                                               std::span<const std::int64_t> shape) {
  const CheckpointTensor* const tensor = checkpoint.find(name);
  if (tensor == nullptr) {
    return corrupt(fmt::format("{}: tensor '{}' is missing; expected shape {}",
                               checkpoint.path(),
                               name,
                               shape_to_string(shape)));
  }
  if (!std::ranges::equal(tensor->view.shape, shape)) {
    return corrupt(fmt::format("{}: offset {}: tensor {} has shape {}, expected {}",
                               tensor->file,
                               tensor->offset,
                               in_quotes(tensor->source_name),
                               shape_to_string(tensor->view.shape),
                               shape_to_string(shape)));
  }
  return tensor;
}

}  // namespace pagemill
