// The one list of architectures: a new one is a file and a line here.
#include <fmt/format.h>

#include "models/architectures.h"
#include "models/model.h"

namespace pagemill {
namespace {

struct Entry {
  const char* architecture;
  ModelFactory factory;
};

constexpr Entry kArchitectures[] = {
    {"LlamaForCausalLM", make_llama},
    {"MistralForCausalLM", make_llama},
    {"Qwen2ForCausalLM", make_llama},
};

std::string architecture_of(const nlohmann::json& config) {
  const auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty() || !it->front().is_string()) return "";
  return it->front().get<std::string>();
}

}  // namespace

Result<std::unique_ptr<Model>> load_model(const Checkpoint& checkpoint,
                                          const ModelOptions& options,
                                          ThreadPool& pool,
                                          Communicator& comm) {
  const std::string architecture = architecture_of(checkpoint.config());
  for (const Entry& entry : kArchitectures) {
    if (architecture == entry.architecture) {
      return entry.factory(checkpoint, options, pool, comm);
    }
  }
  std::string known;
  for (const Entry& entry : kArchitectures) {
    known += known.empty() ? "" : ", ";
    known += entry.architecture;
  }
  return unsupported(fmt::format("{}: config: architectures: '{}' is not supported; known: {}",
                                 checkpoint.path(),
                                 architecture,
                                 known));
}

}  // namespace pagemill
