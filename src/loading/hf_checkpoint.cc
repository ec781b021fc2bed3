#include "loading/hf_checkpoint.h"

#include <array>
#include <filesystem>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "loading/hf_config.h"
#include "loading/json_text.h"
#include "loading/mapped_checkpoint.h"
#include "loading/quantization.h"
#include "loading/safetensors.h"
#include "loading/shard_index.h"
#include "loading/torch_file.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;
using ShardMap = std::map<std::string, std::string>;  // tensor name to file name

constexpr std::size_t kMaxIndexBytes = std::size_t{256} << 20;

struct WeightFormat {
  CheckpointFormat format;
  std::string_view index;
  std::string_view single;
  std::string_view extension;
  Result<std::vector<StoredTensor>> (*parse)(std::span<const std::byte>, const std::string&);
};

// In order of preference.
constexpr std::array<WeightFormat, 2> kWeightFormats = {{
    {CheckpointFormat::kSafetensors,
     "model.safetensors.index.json",
     "model.safetensors",
     ".safetensors",
     parse_safetensors},
    {CheckpointFormat::kTorch,
     "pytorch_model.bin.index.json",
     "pytorch_model.bin",
     ".bin",
     parse_torch_file},
}};

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

Result<ShardMap> read_shard_index(const fs::path& path, std::string_view extension) {
  PM_ASSIGN(const MappedFile file, MappedFile::open(path));
  if (file.size() > kMaxIndexBytes) {
    return corrupt(fmt::format(
        "{}: {} bytes; at most {} are read", path.string(), file.size(), kMaxIndexBytes));
  }
  return parse_shard_index(
      {reinterpret_cast<const char*>(file.data()), file.size()}, extension, path);
}

// Adds the tensors of one file: all, or, with an index, those that it places there.
Status add_weights(MappedCheckpoint& checkpoint,
                   const WeightFormat& format,
                   const fs::path& path,
                   const ShardMap* shards) {
  PM_ASSIGN(MappedFile file, MappedFile::open(path));
  PM_ASSIGN(std::vector<StoredTensor> tensors, format.parse(file.bytes(), path));
  if (shards != nullptr) {
    const std::string shard = path.filename();
    std::erase_if(tensors, [&](const StoredTensor& tensor) {
      const auto it = shards->find(tensor.name);
      return it == shards->end() || it->second != shard;
    });
  }
  std::vector<std::string> names;
  names.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) names.push_back(tensor.name);
  checkpoint.add_file(std::move(file), std::move(tensors), std::move(names));
  return ok_status();
}

Status add_shards(MappedCheckpoint& checkpoint, const WeightFormat& format, const fs::path& index) {
  PM_ASSIGN(const ShardMap shards, read_shard_index(index, format.extension));
  std::set<std::string> files;
  for (const auto& [tensor, shard] : shards) files.insert(shard);
  for (const std::string& shard : files) {
    PM_TRY(add_weights(checkpoint, format, index.parent_path() / shard, &shards));
  }
  PM_TRY(checkpoint.index());
  for (const auto& [tensor, shard] : shards) {
    if (checkpoint.find(tensor) == nullptr) {
      return corrupt(fmt::format("{}: tensor {} is not in {}, where {} places it",
                                 checkpoint.path(),
                                 in_quotes(tensor),
                                 shard,
                                 index.filename().string()));
    }
  }
  return ok_status();
}

Result<std::unique_ptr<MappedCheckpoint>> open_weights(const fs::path& directory) {
  for (const WeightFormat& format : kWeightFormats) {
    const fs::path index = directory / format.index;
    const fs::path single = directory / format.single;
    if (!is_file(index) && !is_file(single)) continue;
    auto checkpoint = std::make_unique<MappedCheckpoint>(format.format, directory);
    if (is_file(index)) {
      PM_TRY(add_shards(*checkpoint, format, index));
    } else {
      PM_TRY(add_weights(*checkpoint, format, single, nullptr));
      PM_TRY(checkpoint->index());
    }
    return checkpoint;
  }
  std::string wanted;
  for (const WeightFormat& format : kWeightFormats) {
    wanted += fmt::format("{}{}, {}", wanted.empty() ? "" : ", ", format.index, format.single);
  }
  return not_found(fmt::format("{}: no weights; looked for {}", directory.string(), wanted));
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> open_hf_checkpoint(const std::string& directory) {
  const fs::path root(directory);
  const std::string config_path = root / "config.json";
  PM_ASSIGN(nlohmann::json config, read_json_object(config_path));
  PM_ASSIGN(config, normalize_config(std::move(config), config_path));
  PM_ASSIGN(const std::optional<Quantization> quantization,
            parse_quantization(config, config_path));
  nlohmann::json generation_config = nlohmann::json::object();
  if (const fs::path path = root / "generation_config.json"; is_file(path)) {
    PM_ASSIGN(generation_config, read_json_object(path));
  }
  PM_ASSIGN(auto checkpoint, open_weights(root));
  PM_TRY(attach_row_scales(checkpoint->mutable_tensors(), quantization, config_path));
  checkpoint->set_config(std::move(config), std::move(generation_config));
  return std::unique_ptr<Checkpoint>(std::move(checkpoint));
}

}  // namespace pagemill
