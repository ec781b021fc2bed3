#include "loading/hf_config.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pagemill {
namespace {

using nlohmann::json;

constexpr double kDefaultRopeTheta = 10'000.0;  // of LlamaConfig, MistralConfig and Qwen2Config

Error bad_key(const std::string& file,
              const std::string& key,
              const char* wanted,
              const json& got) {
  return corrupt(fmt::format("{}: {}: expected {}, got {}", file, key, wanted, got.type_name()));
}

// The object at `key`, or null where it is absent or null.
Result<json> optional_object(const json& config, const std::string& key, const std::string& file) {
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return json(nullptr);
  if (!it->is_object()) return bad_key(file, key, "an object or null", *it);
  return *it;
}

// `scaling` as classic readers want it: null for no scaling, else with both "rope_type" and, as
// before Transformers 4.43, "type".
Result<json> classic_scaling(json scaling, const std::string& key, const std::string& file) {
  if (scaling.is_null()) return scaling;
  const auto named =
      scaling.contains("rope_type") ? scaling.find("rope_type") : scaling.find("type");
  if (named == scaling.end()) {
    if (scaling.empty()) return json(nullptr);
    return corrupt(fmt::format("{}: {}: it lacks 'rope_type'", file, key));
  }
  if (!named->is_string()) return bad_key(file, key + ".rope_type", "a string", *named);
  const auto type = named->get<std::string>();
  if (type == "default") return json(nullptr);
  scaling["rope_type"] = type;
  scaling["type"] = type;
  return scaling;
}

// Gemma 3 has parameters for each type of layer: those of full attention become the model's, of the
// others only the base may differ ("rope_local_base_freq").
Status flatten_layer_types(json& parameters, json& config, const std::string& file) {
  const bool is_nested = std::any_of(
      parameters.begin(), parameters.end(), [](const json& value) { return value.is_object(); });
  if (!is_nested) return ok_status();
  for (const auto& [key, value] : parameters.items()) {
    if (key == "full_attention" && value.is_object()) continue;
    const bool is_plain = key == "sliding_attention" && value.is_object() &&
                          value.value("rope_type", json("default")) == "default";
    if (!is_plain) {
      return unsupported(
          fmt::format("{}: rope_parameters.{}: only full_attention, and "
                      "sliding_attention of rope_type default, are supported",
                      file,
                      key));
    }
  }
  if (!parameters.contains("full_attention")) {
    return unsupported(fmt::format("{}: rope_parameters: it lacks full_attention", file));
  }
  if (const auto local = parameters.find("sliding_attention"); local != parameters.end()) {
    config["rope_local_base_freq"] = local->value("rope_theta", json(nullptr));
  }
  json whole = parameters["full_attention"];
  parameters = std::move(whole);
  return ok_status();
}

// Transformers 5 writes {"rope_theta": ..., "rope_type": ..., "factor": ...}.
Status spread_rope_parameters(json& config, const std::string& file) {
  PM_ASSIGN(json parameters, optional_object(config, "rope_parameters", file));
  if (parameters.is_null()) return ok_status();
  PM_TRY(flatten_layer_types(parameters, config, file));
  for (const char* const key : {"rope_theta", "partial_rotary_factor"}) {
    if (!parameters.contains(key)) continue;
    config[key] = parameters[key];
    parameters.erase(key);
  }
  if (!parameters.contains("rope_type") && !parameters.contains("type")) {
    parameters["rope_type"] = "default";
  }
  config["rope_scaling"] = std::move(parameters);
  return ok_status();
}

}  // namespace

Result<json> normalize_config(json config, const std::string& file) {
  if (!config.is_object()) return bad_key(file, "the document", "an object", config);
  PM_TRY(spread_rope_parameters(config, file));
  // GPT-NeoX's name for it.
  if (!config.contains("rope_theta") && config.contains("rotary_emb_base")) {
    config["rope_theta"] = config["rotary_emb_base"];
  }
  json& theta = config["rope_theta"];
  if (theta.is_null()) theta = kDefaultRopeTheta;
  if (!theta.is_number()) return bad_key(file, "rope_theta", "a number", theta);
  const double value = theta.get<double>();
  if (!(std::isfinite(value) && value > 0)) {
    return corrupt(fmt::format("{}: rope_theta: {} is not positive", file, value));
  }
  PM_ASSIGN(json scaling, optional_object(config, "rope_scaling", file));
  PM_ASSIGN(config["rope_scaling"], classic_scaling(std::move(scaling), "rope_scaling", file));
  const char* const present = config.contains("torch_dtype") ? "torch_dtype" : "dtype";
  if (config.contains(present)) {
    const json dtype = config[present];
    if (!dtype.is_null() && !dtype.is_string()) return bad_key(file, present, "a string", dtype);
    config["torch_dtype"] = dtype;
    config["dtype"] = dtype;
  }
  return config;
}

}  // namespace pagemill
