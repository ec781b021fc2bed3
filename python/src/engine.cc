#include "engine.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>

#include "server/endpoints/chat_protocol.h"

namespace pagemill::python {
namespace {

using OptionalException = std::optional<nb::python_error>;

// Runs with the GIL released. False, with what was raised, once a signal's handler or the callback
// raises.
bool report(const BatchProgress& now, nb::handle on_progress, OptionalException& raised) {
  const nb::gil_scoped_acquire acquire;
  try {
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (!on_progress.is_none()) {
      on_progress(now.num_finished, now.num_prompts, now.num_generated_tokens, now.elapsed_s);
    }
  } catch (nb::python_error& error) {
    raised.emplace(std::move(error));
    return false;
  }
  return true;
}

// One for all prompts, or one each.
std::vector<PySamplingParams> read_params(nb::handle object, std::size_t num_prompts) {
  if (nb::isinstance<PySamplingParams>(object)) {
    return std::vector(num_prompts, *nb::inst_ptr<PySamplingParams>(object));
  }
  std::vector<PySamplingParams> params;
  for (nb::handle item : nb::cast<nb::iterable>(object)) {
    params.push_back(nb::cast<PySamplingParams>(item));
  }
  if (params.size() != num_prompts) {
    raise(invalid_argument("sampling_params: expected one, or a list of one for each of " +
                               std::to_string(num_prompts) + " prompts, got " +
                               std::to_string(params.size()),
                           "sampling_params"));
  }
  return params;
}

// What the engine takes; texts are tokenised here only where max_tokens depends on it.
std::vector<SamplingParams> resolve_all(const LLM& llm,
                                        const std::vector<Prompt>& prompts,
                                        const std::vector<PySamplingParams>& params) {
  std::vector<SamplingParams> resolved;
  resolved.reserve(params.size());
  for (std::size_t i = 0; i < params.size(); ++i) {
    std::size_t num_tokens = 0;
    if (params[i].fill_context) {
      const auto encoded = encode_prompt(llm, prompts[i]);
      if (encoded.ok()) num_tokens = encoded->prompt_token_ids.size();
    }
    resolved.push_back(resolve_params(llm, params[i], num_tokens));
  }
  return resolved;
}

// All that came of it goes with an exception, as `outputs`; an error of one prompt has its index.
[[noreturn]] void raise_with(const nb::object& exception, const nb::list& outputs) {
  nb::setattr(exception, "outputs", outputs);
  raise(exception);
}

nb::list generate(const Engine& engine,
                  nb::handle prompts_object,
                  nb::handle params_object,
                  nb::object on_progress) {
  LLM& llm = engine.llm();
  const Prompts prompts = read_prompts(prompts_object);
  const auto params = read_params(params_object, prompts.prompts.size());
  OptionalException raised;
  std::vector<RequestOutput> outputs;
  {
    const nb::gil_scoped_release release;
    outputs = llm.generate(
        prompts.prompts, resolve_all(llm, prompts.prompts, params), [&](const BatchProgress& now) {
          return report(now, on_progress, raised);
        });
  }
  OutputConverter converter;
  nb::list converted;
  const RequestOutput* failed = nullptr;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    converted.append(
        converter.convert(outputs[i], params[i], to_str(std::to_string(outputs[i].request_id))));
    if (outputs[i].error && failed == nullptr) failed = &outputs[i];
  }
  if (raised) raise_with(nb::borrow(raised->value()), converted);
  if (failed != nullptr) {
    Error error = *failed->error;
    if (!prompts.is_one) {
      error.message = "prompts[" + std::to_string(failed - outputs.data()) + "]: " + error.message;
    }
    raise_with(make_exception(error), converted);
  }
  return converted;
}

nb::dict stats(const Engine& engine) {
  const EngineStats now = engine.llm().engine().stats();
  nb::dict dict;
  dict["num_requests_running"] = now.num_requests_running;
  dict["num_requests_waiting"] = now.num_requests_waiting;
  dict["num_blocks"] = now.num_blocks;
  dict["num_blocks_free"] = now.num_blocks_free;
  dict["num_blocks_cached"] = now.num_blocks_cached;
  dict["num_blocks_referenced"] = now.num_blocks_referenced;
  dict["block_size"] = now.block_size;
  dict["kv_cache_usage"] = now.kv_cache_usage;
  dict["num_preemptions"] = now.num_preemptions;
  dict["prefix_cache_queries"] = now.prefix_cache_queries;
  dict["prefix_cache_hits"] = now.prefix_cache_hits;
  dict["prompt_tokens"] = now.prompt_tokens;
  dict["generation_tokens"] = now.generation_tokens;
  return dict;
}

void init_engine(Engine* self, const nb::dict& options) {
  const EngineOptions read = read_engine_options(options);
  const auto create = [&] {
    const nb::gil_scoped_release release;
    return LLM::create(read);
  };
  auto llm = create();
  if (!llm.ok()) raise(without_flags(llm.error()));
  new (self) Engine(std::move(llm).value());
}

}  // namespace

Engine::Engine(std::unique_ptr<LLM> llm) : llm_(std::move(llm)), owner_(getpid()) {}

Engine::~Engine() {
  // In a forked child its threads are not there to be joined: it is left as it is.
  [[maybe_unused]] const LLM* const left = is_here() ? nullptr : llm_.release();
}

bool Engine::is_here() const { return getpid() == owner_; }

LLM& Engine::llm() const {
  if (is_here()) return *llm_;
  raise(Error{ErrorCode::kUnavailable,
              "this LLM was made before the process was forked, and its threads are not in the "
              "child: make the LLM in the process that uses it (multiprocessing's method 'spawn')",
              {}});
}

Result<std::string> render_chat(const LLM& llm,
                                const std::string& request_json,
                                const std::string& chat_template) {
  PM_ASSIGN(const ChatRequest request, parse_chat_request(request_json, SamplingParams()));
  const std::string context = chat_template_context(request);
  if (chat_template.empty()) return llm.render_chat(context);
  const auto tokenizer = llm.engine().tokenizer();
  if (!tokenizer) return invalid_argument("messages: the model has no tokenizer", "messages");
  PM_ASSIGN(const auto compiled, ChatTemplate::compile(chat_template, *tokenizer));
  return compiled->render(context);
}

Result<RequestOutput> encode_prompt(const LLM& llm, const Prompt& prompt) {
  RequestOutput output;
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) {
    output.prompt_token_ids = *ids;
  } else {
    output.prompt = std::get<std::string>(prompt);
    PM_ASSIGN(output.prompt_token_ids, llm.encode(output.prompt));
  }
  return output;
}

SamplingParams resolve_params(const LLM& llm,
                              const PySamplingParams& params,
                              std::size_t num_prompt_tokens) {
  SamplingParams resolved = params;
  if (!params.fill_context) return resolved;
  const auto room = llm.model().max_model_len - static_cast<std::int32_t>(num_prompt_tokens);
  resolved.max_tokens = std::max(room, 1);
  return resolved;
}

void bind_engine(nb::module_& module) {
  module.def("default_engine_options",
             default_engine_options,
             "The engine's options by name, with their defaults.");
  nb::class_<Engine>(module, "Engine", "A running engine. LLM and AsyncLLM are its public faces.")
      .def("__init__",
           init_engine,
           nb::arg("options"),
           "Loads options['model'] and starts. The GIL is released meanwhile.")
      .def("generate",
           generate,
           nb::arg("prompts"),
           nb::arg("params"),
           nb::arg("on_progress").none(),
           nb::sig("def generate(self, prompts: object, params: object, on_progress: "
                   "Callable[[int, int, int, float], None] | None) -> list"),
           "One RequestOutput for each prompt. on_progress(num_finished, num_prompts, num_tokens, "
           "elapsed_s) is called a few times a second. What it or a signal's handler raises ends "
           "the batch and is raised with `outputs`, the list of what there is.")
      .def(
          "render_chat",
          [](const Engine& self,
             const std::string& request_json,
             const std::string& chat_template) {
            return to_str(value_or_raise(render_chat(self.llm(), request_json, chat_template)));
          },
          nb::arg("request_json"),
          nb::arg("chat_template"),
          "The text of a chat: a JSON object as POST /v1/chat/completions takes it.")
      .def("stats", stats, "Counters and gauges, by name.")
      .def(
          "reset_prefix_cache",
          [](const Engine& self) { self.llm().engine().reset_prefix_cache(); },
          "No request submitted from now on finds a prefix that was computed before.")
      .def(
          "tokenizer",
          [](const Engine& self) {
            auto tokenizer = self.llm().engine().tokenizer();
            if (!tokenizer) raise(invalid_argument("the model has no tokenizer"));
            return wrap_tokenizer(std::move(tokenizer));
          },
          nb::sig("def tokenizer(self) -> Tokenizer"))
      .def(
          "default_sampling_params",
          [](const Engine& self) {
            PySamplingParams params;
            static_cast<SamplingParams&>(params) = self.llm().default_sampling_params();
            return params;
          },
          "What the model's generation config recommends.")
      .def_prop_ro("max_model_len",
                   [](const Engine& self) { return self.llm().model().max_model_len; })
      .def_prop_ro("architecture",
                   [](const Engine& self) { return to_str(self.llm().model().architecture); })
      .def_prop_ro("vocab_size", [](const Engine& self) { return self.llm().model().vocab_size; });
}

}  // namespace pagemill::python
