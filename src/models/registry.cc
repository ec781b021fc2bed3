// The one list of architectures: a new one is a file and a line here.
#include <fmt/format.h>

#include "models/architectures.h"
#include "models/decoder.h"
#include "models/model.h"

namespace pagemill {
namespace {

struct Entry {
  const char* architecture;
  MakeSpec make_spec;
};

constexpr Entry kArchitectures[] = {
    {"BloomForCausalLM", bloom_spec},
    {"CohereForCausalLM", cohere_spec},
    {"Cohere2ForCausalLM", cohere_spec},
    {"FalconForCausalLM", falcon_spec},
    {"GemmaForCausalLM", gemma_spec},
    {"Gemma2ForCausalLM", gemma_spec},
    {"Gemma3ForCausalLM", gemma_spec},
    {"GPT2LMHeadModel", gpt2_spec},
    {"GPTBigCodeForCausalLM", gpt_bigcode_spec},
    {"GPTJForCausalLM", gptj_spec},
    {"GPTNeoXForCausalLM", gpt_neox_spec},
    {"GraniteForCausalLM", granite_spec},
    {"LlamaForCausalLM", llama_spec},
    {"MistralForCausalLM", llama_spec},
    {"MixtralForCausalLM", mixtral_spec},
    {"MptForCausalLM", mpt_spec},
    {"MPTForCausalLM", mpt_spec},
    {"OlmoForCausalLM", olmo_spec},
    {"Olmo2ForCausalLM", olmo_spec},
    {"OPTForCausalLM", opt_spec},
    {"PhiForCausalLM", phi_spec},
    {"Phi3ForCausalLM", phi3_spec},
    {"Qwen2ForCausalLM", qwen_spec},
    {"Qwen2MoeForCausalLM", qwen_moe_spec},
    {"Qwen3ForCausalLM", qwen_spec},
    {"Qwen3MoeForCausalLM", qwen_moe_spec},
    {"StableLmForCausalLM", stablelm_spec},
    {"Starcoder2ForCausalLM", starcoder2_spec},
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
    if (architecture != entry.architecture) continue;
    PM_ASSIGN(DecoderSpec spec, entry.make_spec(checkpoint));
    return make_decoder(std::move(spec), checkpoint, options, pool, comm);
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
