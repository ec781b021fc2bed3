// The parts of the extension module pagemill._engine: each file binds one of them.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine_options.h"
#include "pagemill/llm.h"
#include "tokenizer/tokenizer.h"

namespace pagemill::python {

namespace nb = nanobind;

void bind_engine(nb::module_& module);
void bind_sampling_params(nb::module_& module);
void bind_stream(nb::module_& module);
void bind_tokenizer(nb::module_& module);

nb::object wrap_tokenizer(std::shared_ptr<const Tokenizer> tokenizer);

// The exception that an engine's error is in Python, with its message, and `param`: the field at
// fault, or None.
nb::object make_exception(const Error& error);
[[noreturn]] void raise(const Error& error);
[[noreturn]] void raise(const nb::object& exception);
[[noreturn]] void raise_type_error(const std::string& message);

template <typename T>
T value_or_raise(Result<T> result) {
  if (!result.ok()) raise(result.error());
  return std::move(result).value();
}

// UTF-8, with U+FFFD for what is none.
nb::str to_str(std::string_view text);
// The UTF-8 of a str; raises UnicodeEncodeError for a lone surrogate.
std::string from_str(nb::handle text);

// SamplingParams and what only the Python API has.
struct PySamplingParams : SamplingParams {
  bool fill_context = false;  // max_tokens is None: as many as the context has room for
  // Of AsyncLLM: 0 all so far, 1 what is new, 2 nothing but the last.
  int output_kind = 0;
};

// `options`: a dict of EngineOptions' fields by name.
EngineOptions read_engine_options(const nb::dict& options);
// The same as a dict, each with its default.
nb::dict default_engine_options();
// An error of the engine in Python's words: "--max-model-len" is max_model_len.
Error without_flags(Error error);

struct Prompts {
  std::vector<Prompt> prompts;
  bool is_one = false;  // it was a prompt rather than a list of them
};
// A str, token ids (any sequence or 1-D array of integers), {"prompt": ...}, {"prompt_token_ids":
// ...}, or a list of those.
Prompts read_prompts(nb::handle object);
Prompt read_prompt(nb::handle object);
std::vector<TokenId> read_token_ids(nb::handle object);

// pagemill.outputs.RequestOutput.
class OutputConverter {
 public:
  OutputConverter();
  // `name`: the request_id that Python sees.
  nb::object convert(const RequestOutput& output, const PySamplingParams& params, nb::str name);

 private:
  nb::object positions(const std::vector<PositionLogprobs>& logprobs, bool is_prompt) const;

  nb::object request_output_, completion_output_, logprob_, metrics_;
};

}  // namespace pagemill::python
