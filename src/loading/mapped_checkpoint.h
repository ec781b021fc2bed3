// The one implementation of Checkpoint: files mapped, tensors by name. Each format fills it in.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loading/checkpoint.h"
#include "loading/stored_tensor.h"
#include "tensor/mapped_file.h"

namespace pagemill {

class MappedCheckpoint final : public Checkpoint {
 public:
  MappedCheckpoint(CheckpointFormat format, std::string path)
      : format_(format), path_(std::move(path)) {}

  CheckpointFormat format() const override { return format_; }
  const std::string& path() const override { return path_; }
  const nlohmann::json& config() const override { return config_; }
  const nlohmann::json& generation_config() const override { return generation_config_; }
  std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  const CheckpointTensor* find(std::string_view name) const override;
  bool rotary_interleaved() const override { return rotary_interleaved_; }
  void release(const CheckpointTensor& tensor) const override;

  void set_config(nlohmann::json config, nlohmann::json generation_config);
  void set_rotary_interleaved(bool interleaved) { rotary_interleaved_ = interleaved; }

  // Takes the file over and lists `tensors` of it, `names` being Hugging Face's, one each.
  void add_file(MappedFile file, std::vector<StoredTensor> tensors, std::vector<std::string> names);
  std::span<CheckpointTensor> mutable_tensors() { return tensors_; }
  // After the last file: sorts the names; an error where two tensors share one.
  Status index();

 private:
  CheckpointFormat format_;
  std::string path_;
  nlohmann::json config_ = nlohmann::json::object();
  nlohmann::json generation_config_ = nlohmann::json::object();
  bool rotary_interleaved_ = false;
  std::vector<MappedFile> files_;
  std::vector<CheckpointTensor> tensors_;
  std::vector<std::uint32_t> file_of_;  // of each tensor, index into files_
  std::vector<std::uint32_t> by_name_;  // indices of tensors_, sorted by name
};

}  // namespace pagemill
