#include "loading/quantization.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "loading/stored_tensor.h"

namespace pagemill {
namespace {

using nlohmann::json;

constexpr std::string_view kKey = "quantization_config";
constexpr std::string_view kSupported =
    "supported: compressed-tensors, int-quantized, with symmetric 8-bit integer weights by channel "
    "and dynamic, symmetric 8-bit integer activations by token";
constexpr std::size_t kShownJson = 80;  // characters of a value in an error message

// Reads an object at `path` of `file`.
class Section {
 public:
  Section(const json& object, const std::string& file, std::string path)
      : object_(object), file_(file), path_(std::move(path)) {}

  const json& at(const std::string& key) const {
    static const json kNull;
    const auto it = object_.find(key);
    return it == object_.end() ? kNull : *it;
  }

  // What the key must say for the kernels to compute what the checkpoint means.
  Status require(const std::string& key, const json& wanted) const {
    if (at(key) == wanted) return ok_status();
    return refuse(key, wanted.dump());
  }
  // The same of a key that may also be absent or null.
  Status require_if_there(const std::string& key, const json& wanted) const {
    return at(key).is_null() ? ok_status() : require(key, wanted);
  }
  Status require_none(const std::string& key) const {
    const json& value = at(key);
    return value.is_null() || (value.is_object() && value.empty()) ? ok_status()
                                                                   : refuse(key, "null");
  }

  Result<Section> object(const std::string& key) const {
    if (!at(key).is_object()) return refuse(key, "an object");
    return Section(at(key), file_, path_ + "." + key);
  }

  Result<std::vector<std::string>> strings(const std::string& key) const {
    std::vector<std::string> values;
    if (at(key).is_null()) return values;
    if (!at(key).is_array()) return malformed(key, "an array of names");
    for (const json& value : at(key)) {
      if (!value.is_string()) return malformed(key, "an array of names");
      values.push_back(value.get<std::string>());
    }
    return values;
  }

  Error refuse(const std::string& key, const std::string& wanted) const {
    return unsupported(fmt::format("{}; {}", expected(key, wanted), kSupported));
  }
  Error malformed(const std::string& key, const std::string& wanted) const {
    return corrupt(expected(key, wanted));
  }

  const json& value() const { return object_; }

 private:
  std::string expected(const std::string& key, const std::string& wanted) const {
    std::string got = at(key).dump(-1, ' ', /*ensure_ascii=*/true);
    if (got.size() > kShownJson) got = got.substr(0, kShownJson) + "...";
    return fmt::format("{}: {}.{}: expected {}, got {}", file_, path_, key, wanted, got);
  }

  const json& object_;
  const std::string& file_;
  std::string path_;
};

Status check_integers(const Section& section, const char* strategy, bool dynamic) {
  PM_TRY(section.require("num_bits", 8));
  PM_TRY(section.require("type", "int"));
  PM_TRY(section.require("symmetric", true));
  PM_TRY(section.require("strategy", strategy));
  // Absent means false.
  if (dynamic) return section.require("dynamic", true);
  return section.require_if_there("dynamic", false);
}

// One kind of layers and how they are quantized.
Status check_group(const Section& group) {
  PM_TRY(group.strings("targets"));
  PM_ASSIGN(const Section weights, group.object("weights"));
  PM_TRY(check_integers(weights, "channel", false));
  PM_ASSIGN(const Section activations, group.object("input_activations"));
  PM_TRY(check_integers(activations, "token", true));
  PM_TRY(group.require_none("output_activations"));
  return group.require_if_there("format", "int-quantized");
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

Error wrong_tensor(const CheckpointTensor& tensor, const std::string& what) {
  return corrupt(fmt::format("{}: offset {}: tensor {} is {}",
                             tensor.file,
                             tensor.offset,
                             in_quotes(tensor.source_name),
                             what));
}

Status check_scales(const CheckpointTensor& weight, const CheckpointTensor& scales) {
  const std::int64_t rows = weight.view.shape[0];
  const std::vector<std::int64_t>& shape = scales.view.shape;
  const bool one_a_row = !shape.empty() && shape[0] == rows && scales.view.elements() == rows;
  if (one_a_row && is_float(scales.view.dtype)) return ok_status();
  return wrong_tensor(scales,
                      fmt::format("{} {}, expected [{}, 1] of F32, F16 or BF16",
                                  dtype_info(scales.view.dtype).name,
                                  shape_to_string(shape),
                                  rows));
}

}  // namespace

Result<std::optional<Quantization>> parse_quantization(const json& config,
                                                       const std::string& file) {
  const auto it = config.find(kKey);
  if (it == config.end() || it->is_null()) return std::optional<Quantization>();
  if (!it->is_object()) {
    return corrupt(
        fmt::format("{}: {}: expected an object or null, got {}", file, kKey, it->type_name()));
  }
  const Section root(*it, file, std::string(kKey));
  PM_TRY(root.require("quant_method", "compressed-tensors"));
  PM_TRY(root.require("format", "int-quantized"));
  PM_TRY(root.require_none("kv_cache_scheme"));
  PM_TRY(root.require_none("transform_config"));
  if (root.at("sparsity_config") != json{{"format", "dense"}}) {
    PM_TRY(root.require_none("sparsity_config"));
  }
  PM_ASSIGN(const Section groups, root.object("config_groups"));
  if (groups.value().empty()) return root.malformed("config_groups", "at least one group");
  for (const auto& [name, group] : groups.value().items()) {
    PM_ASSIGN(const Section section, groups.object(name));
    PM_TRY(check_group(section));
  }
  Quantization quantization;
  PM_ASSIGN(quantization.ignore, root.strings("ignore"));
  return std::optional(std::move(quantization));
}

Status attach_row_scales(std::span<CheckpointTensor> tensors,
                         const std::optional<Quantization>& quantization,
                         const std::string& config_file) {
  constexpr std::string_view kWeight = ".weight";
  std::map<std::string_view, const CheckpointTensor*> by_name;
  for (const CheckpointTensor& tensor : tensors) by_name[tensor.name] = &tensor;
  for (CheckpointTensor& tensor : tensors) {
    const bool is_matrix = tensor.view.dtype == DType::kI8 && tensor.view.shape.size() == 2;
    if (!is_matrix || !tensor.name.ends_with(kWeight)) continue;
    if (!quantization) {
      return wrong_tensor(
          tensor, fmt::format("I8, but {} has no {}, which must say how", config_file, kKey));
    }
    const std::string module = tensor.name.substr(0, tensor.name.size() - kWeight.size());
    if (std::ranges::count(quantization->ignore, module) > 0) {
      return wrong_tensor(tensor,
                          fmt::format("I8, but {}: {}.ignore lists its module", config_file, kKey));
    }
    const std::string scales = tensor.name + "_scale";
    const auto found = by_name.find(scales);
    if (found == by_name.end()) {
      return wrong_tensor(tensor, fmt::format("I8 and needs {}", in_quotes(scales)));
    }
    PM_TRY(check_scales(tensor, *found->second));
    tensor.row_scales = found->second->view;
  }
  return ok_status();
}

}  // namespace pagemill
