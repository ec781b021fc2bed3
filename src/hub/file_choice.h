// Which of a repository's files an engine reads: neither optimizer states nor ONNX, Flax or
// TensorFlow, and never the same weights in two formats.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pagemill {

// What a user asked for beside the repository. Both empty: whatever fits.
struct FileWish {
  std::string quant;      // of a GGUF repository: "Q4_K_M"
  std::string gguf_file;  // the path of a GGUF file in the repository
};

struct FileChoice {
  // To be fetched in this order: what a model's folder needs beside weights, then the weights.
  std::vector<std::string> files;
  // Not empty: the weights are the shards that this file (one of `files`) lists.
  std::string shard_index;
  // Not empty: the model is this one file, not a folder.
  std::string gguf_file;
};

// `names`: the repository's files, in any order. `repo` is for messages, which list what there is:
// kNotFound if nothing fits, kInvalidArgument if several GGUF files do.
Result<FileChoice> choose_files(const std::vector<std::string>& names,
                                const FileWish& wish,
                                const std::string& repo);

// The files named in the weight_map of a model.safetensors.index.json or
// pytorch_model.bin.index.json, each once; `file` is for messages. kCorrupt if it is no such index.
Result<std::vector<std::string>> shards_of_index(std::string_view json, const std::string& file);

}  // namespace pagemill
