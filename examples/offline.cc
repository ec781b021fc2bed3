// Offline inference: loads a model, generates for a few prompts at once, and prints the texts.
//
//   offline [MODEL]    MODEL: a GGUF file, a Hugging Face directory, or "demo" (the default)
#include <pagemill/pagemill.h>

#include <cstdio>

int main(int argc, char** argv) {
  pagemill::EngineOptions options;
  options.model = argc > 1 ? argv[1] : "demo";
  auto llm = pagemill::LLM::create(options);
  if (!llm.ok()) {
    std::fprintf(stderr, "%s\n", llm.error().message.c_str());
    return 1;
  }

  pagemill::SamplingParams params = (*llm)->default_sampling_params();
  params.temperature = 0.8f;
  params.top_p = 0.95f;
  params.max_tokens = 32;
  params.seed = 1;

  const std::vector<pagemill::Prompt> prompts = {
      "The capital of France is", "Hello, my name is", "The best way to learn a language is"};
  int num_failed = 0;
  for (const pagemill::RequestOutput& output : (*llm)->generate(prompts, params)) {
    if (output.error) {
      std::fprintf(stderr, "%s: %s\n", output.prompt.c_str(), output.error->message.c_str());
      ++num_failed;
      continue;
    }
    std::printf("%s ->%s\n", output.prompt.c_str(), output.outputs[0].text.c_str());
  }
  return num_failed == 0 ? 0 : 1;
}
