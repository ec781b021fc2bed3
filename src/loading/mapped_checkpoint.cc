#include "loading/mapped_checkpoint.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace pagemill {

const CheckpointTensor* MappedCheckpoint::find(std::string_view name) const {
  const auto it = std::lower_bound(
      by_name_.begin(), by_name_.end(), name, [&](std::uint32_t index, std::string_view wanted) {
        return tensors_[index].name < wanted;
      });
  return it != by_name_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

void MappedCheckpoint::release(const CheckpointTensor& tensor) const {
  const std::size_t index = static_cast<std::size_t>(&tensor - tensors_.data());
  PM_CHECK(index < tensors_.size(), "tensor {} is not of this checkpoint", tensor.name);
  files_[file_of_[index]].advise_dont_need(tensor.offset, tensor.view.bytes());
}

void MappedCheckpoint::set_config(nlohmann::json config, nlohmann::json generation_config) {
  config_ = std::move(config);
  generation_config_ = std::move(generation_config);
}

void MappedCheckpoint::add_file(MappedFile file,
                                std::vector<StoredTensor> tensors,
                                std::vector<std::string> names) {
  PM_CHECK(tensors.size() == names.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    StoredTensor& stored = tensors[i];
    PM_CHECK(stored.offset <= file.size() && stored.bytes <= file.size() - stored.offset,
             "{} of {}",
             stored.name,
             file.path());
    tensors_.push_back({std::move(names[i]),
                        std::move(stored.name),
                        {stored.dtype, std::move(stored.shape), file.data() + stored.offset},
                        file.path(),
                        stored.offset,
                        std::nullopt});
    file_of_.push_back(static_cast<std::uint32_t>(files_.size()));
  }
  files_.push_back(std::move(file));
}

Status MappedCheckpoint::index() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(), [&](auto a, auto b) {
    return tensors_[a].name < tensors_[b].name;
  });
  for (std::size_t i = 1; i < by_name_.size(); ++i) {
    const CheckpointTensor& a = tensors_[by_name_[i - 1]];
    const CheckpointTensor& b = tensors_[by_name_[i]];
    if (a.name == b.name) {
      return corrupt(fmt::format("{}: tensor {} (offset {}) is also in {} (offset {})",
                                 a.file,
                                 in_quotes(a.name),
                                 a.offset,
                                 b.file,
                                 b.offset));
    }
  }
  return ok_status();
}

}  // namespace pagemill
