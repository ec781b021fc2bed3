#include "loading/gguf_checkpoint.h"

#include <utility>
#include <vector>

#include "loading/gguf.h"
#include "loading/gguf_config.h"
#include "loading/gguf_names.h"
#include "loading/mapped_checkpoint.h"

namespace pagemill {

Result<std::unique_ptr<Checkpoint>> open_gguf_checkpoint(const std::string& path) {
  PM_ASSIGN(MappedFile mapped, MappedFile::open(path));
  PM_ASSIGN(const GgufFile file, GgufFile::parse(mapped.bytes(), path));
  PM_ASSIGN(auto config, gguf_config(file));
  PM_ASSIGN(auto generation_config, gguf_generation_config(file));
  auto checkpoint = std::make_unique<MappedCheckpoint>(CheckpointFormat::kGguf, path);
  // ggml's llama graph rotates neighbouring elements, and its converter permutes the rows of Q and
  // K for that; the other architectures keep Hugging Face's halves.
  const auto architecture = file.string("general.architecture");
  checkpoint->set_rotary_interleaved(architecture.ok() && *architecture == "llama");
  checkpoint->set_config(std::move(config), std::move(generation_config));
  std::vector<StoredTensor> tensors(file.tensors().begin(), file.tensors().end());
  std::vector<std::string> names;
  names.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) names.push_back(huggingface_tensor_name(tensor.name));
  checkpoint->add_file(std::move(mapped), std::move(tensors), std::move(names));
  PM_TRY(checkpoint->index());
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace pagemill
