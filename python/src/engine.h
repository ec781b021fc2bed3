// Engine: an LLM as Python holds it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "bindings.h"

namespace pagemill::python {

class Engine {
 public:
  explicit Engine(std::unique_ptr<LLM> llm);
  // In a process that was forked since, the engine's threads are not there to be joined: it is
  // left as it is.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Whether this is the process that it was made in, rather than one forked since.
  bool is_here() const;
  // Raises RuntimeError in a process that was forked since it was made.
  LLM& llm() const;

 private:
  std::unique_ptr<LLM> llm_;
  pid_t owner_;
};

// The prompt's text after the chat template, from the JSON of a chat request as the server reads it
// (messages, tools, add_generation_prompt, continue_final_message, chat_template_kwargs).
// `chat_template`: a Jinja template instead of the model's, or empty.
Result<std::string> render_chat(const LLM& llm,
                                const std::string& request_json,
                                const std::string& chat_template);

// The tokens of a prompt, and its text if it is one.
Result<RequestOutput> encode_prompt(const LLM& llm, const Prompt& prompt);
// `params` with max_tokens as many as the context has room for after a prompt, if it asks for that.
SamplingParams resolve_params(const LLM& llm,
                              const PySamplingParams& params,
                              std::size_t num_prompt_tokens);

}  // namespace pagemill::python
