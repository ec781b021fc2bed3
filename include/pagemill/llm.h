// LLM: offline inference in one object. It loads a model, takes many prompts at once, and gives
// back finished texts.
//
//   auto llm = pagemill::LLM::create({.model = "demo"});
//   if (!llm.ok()) return report(llm.error());
//   pagemill::SamplingParams params;
//   params.max_tokens = 32;
//   for (const auto& output : (*llm)->generate({"The capital of France is", "Water boils at"},
//   params)) {
//     std::puts(output.error ? output.error->message.c_str() : output.outputs[0].text.c_str());
//   }
//
// The names are those of vLLM's Python API. examples/offline.cc is a whole program.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "engine/engine_options.h"
#include "hub/download_progress.h"
#include "request/outputs.h"
#include "request/sampling_params.h"

namespace pagemill {

// A text, or token ids as the model's tokenizer (or another) makes them: 1..max_model_len-1 of
// them.
using Prompt = std::variant<std::string, std::vector<TokenId>>;

// One message of a conversation; role is "system", "user", "assistant", or what else the chat
// template knows.
struct ChatMessage {
  std::string role;
  std::string content;
};
using Conversation = std::vector<ChatMessage>;

// One generated sequence of a request.
struct CompletionOutput {
  std::int32_t index = 0;          // 0..n-1; under best_of and beam search the best is 0
  std::string text;                // UTF-8, without the stop string unless asked for
  std::vector<TokenId> token_ids;  // [num_tokens]
  std::vector<PositionLogprobs>
      logprobs;  // [num_tokens], or empty unless SamplingParams::logprobs is set
  std::optional<double>
      cumulative_logprob;  // natural log, summed over token_ids; set with logprobs
  // Under use_beam_search: what the outputs are ordered by, sum of logprobs /
  // length^length_penalty.
  std::optional<float> beam_score;
  FinishReason finish_reason = FinishReason::kNone;
  // What ended the sequence: a stop string, or one of stop_token_ids; none for EOS and length.
  std::optional<std::variant<TokenId, std::string>> stop_reason;

  bool finished() const { return finish_reason != FinishReason::kNone; }
};

// What became of one prompt.
struct RequestOutput {
  RequestId request_id = 0;  // unique within an engine; 0 if the prompt never reached it
  std::string prompt;        // the text, if the prompt was one; empty for token ids and chats
  std::vector<TokenId> prompt_token_ids;
  // [num_prompt_tokens] if SamplingParams::prompt_logprobs is set, else empty. Nothing predicts the
  // first token: its `top` is empty.
  std::vector<PositionLogprobs> prompt_logprobs;
  std::vector<CompletionOutput>
      outputs;         // [n], by index; what was generated until an error, if any
  Usage usage;         // tokens
  RequestTimes times;  // seconds, base/clock.h's monotonic clock
  // Why the prompt has no (complete) answer; `param` names the field at fault. The other prompts
  // are not affected.
  std::optional<Error> error;
  bool finished = false;
};

// For streaming by engine().submit(): room for a request's n sequences, then what each delta adds.
void expect_outputs(RequestOutput& output, std::int32_t n);
void append(RequestOutput& output, const RequestDelta& delta);

// How far a call has come.
struct BatchProgress {
  std::size_t num_finished = 0, num_prompts = 0;
  std::int64_t num_generated_tokens = 0;  // so far, of all prompts
  double elapsed_s = 0;                   // seconds since the call
};
// Called on the thread that called generate() or chat(): when prompts finish, else about five times
// a second, and once at the end. False ends the batch early: prompts that run are aborted
// (FinishReason::kAbort, with what they generated), those that still wait get the error kCancelled,
// and the call returns what there is. An exception from it aborts the batch and reaches the caller.
using OnProgress = std::function<bool(const BatchProgress&)>;

struct ChatOptions {
  bool add_generation_prompt = true;  // ends the text with the assistant's turn begun
  bool continue_final_message =
      false;  // leaves the last message open; then add_generation_prompt must be false
  std::string
      chat_template_kwargs;  // a JSON object of further variables for the template, or empty
};

// Any thread may call any member, also at the same time: all batches share the engine, request by
// request.
class LLM {
 public:
  // options.model is a GGUF file, a Hugging Face directory, "demo", or a model on the Hugging Face
  // Hub ("org/name", "org/name:QUANT"), which is fetched if it is not in the Hub's cache;
  // on_download hears how far that is and may cancel it, null shows it on stderr. Errors:
  // kNotFound, kCorrupt, kUnsupported for the model; kUnavailable, kIo, kCancelled for fetching it;
  // kInvalidArgument for an option (`param` names it); kResourceExhausted without the memory.
  static Result<std::unique_ptr<LLM>> create(EngineOptions options,
                                             const OnDownload& on_download = nullptr);
  // Takes over an engine that runs. Not null.
  explicit LLM(std::unique_ptr<EngineClient> engine);
  ~LLM();

  // Generates for every prompt and returns when all are done, outputs in the order of the prompts.
  // There may be more prompts than max_queued_requests: the rest wait here.
  std::vector<RequestOutput> generate(const std::vector<Prompt>& prompts,
                                      const SamplingParams& params,
                                      const OnProgress& on_progress = nullptr);
  // params: [num_prompts], one each. Of any other size, every output has the error
  // (kInvalidArgument, "params").
  std::vector<RequestOutput> generate(const std::vector<Prompt>& prompts,
                                      const std::vector<SamplingParams>& params,
                                      const OnProgress& on_progress = nullptr);

  // The same for conversations, which the model's chat template (or options.chat_template) turns
  // into prompts.
  std::vector<RequestOutput> chat(const std::vector<Conversation>& conversations,
                                  const SamplingParams& params,
                                  const ChatOptions& options = {},
                                  const OnProgress& on_progress = nullptr);

  // The tokens of a text, with the special tokens that the tokenizer adds; kInvalidArgument without
  // a tokenizer.
  Result<std::vector<TokenId>> encode(const std::string& text) const;
  // The text that the chat template makes of a chat's whole context (ChatTemplate::render).
  // kInvalidArgument without a template, or when the template raises.
  Result<std::string> render_chat(const std::string& context_json) const;
  // Its tokens; for messages that ChatMessage can't say.
  Result<std::vector<TokenId>> encode_chat(const std::string& context_json) const;

  // What the model's own generation config recommends (vLLM's get_default_sampling_params).
  const SamplingParams& default_sampling_params() const {
    return engine_->model().default_sampling;
  }
  const ModelInfo& model() const { return engine_->model(); }
  // For streaming, aborting and statistics.
  EngineClient& engine() { return *engine_; }
  const EngineClient& engine() const { return *engine_; }

 private:
  using Encode =
      std::function<Result<std::vector<TokenId>>(std::size_t index, RequestOutput& output)>;
  std::vector<RequestOutput> run(std::size_t num_prompts,
                                 const Encode& encode,
                                 const std::vector<SamplingParams>& params,
                                 const OnProgress& on_progress);

  std::unique_ptr<EngineClient> engine_;
};

}  // namespace pagemill
