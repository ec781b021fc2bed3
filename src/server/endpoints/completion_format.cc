#include <fmt/format.h>

#include <set>

#include "server/endpoints/completion_protocol.h"

namespace pagemill {
namespace {

// A token that is part of a character has no text of its own: OpenAI writes its bytes.
std::string token_label(const std::string& bytes) {
  if (is_valid_utf8(bytes)) return bytes;
  std::string label = "bytes:";
  for (const char c : bytes) label += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return label;
}

class CompletionFormat : public AnswerFormat {
 public:
  CompletionFormat(AnswerHead head,
                   const CompletionRequest& request,
                   std::vector<PromptInput> prompts)
      : head_(std::move(head)),
        n_(static_cast<std::size_t>(request.params.n)),
        stream_(request.stream),
        options_(request.stream_options),
        echo_(request.echo),
        prompt_only_(request.prompt_only),
        return_token_ids_(request.return_token_ids),
        with_logprobs_(request.logprobs.has_value()),
        with_prompt_logprobs_(request.params.prompt_logprobs.has_value()),
        prompts_(std::move(prompts)),
        states_(prompts_.size() * n_),
        prompt_logprobs_(prompts_.size()),
        usage_(prompts_.size()) {}

  bool streams() const override { return stream_; }

  void stream(std::string& out, std::size_t prompt, const RequestDelta& delta) override {
    usage_.set(prompt, counted(delta.usage));
    if (!delta.prompt_logprobs.empty()) prompt_logprobs_[prompt] = delta.prompt_logprobs;
    for (const CompletionDelta& part : delta.completions) stream_part(out, prompt, part);
  }

  void stream_end(std::string& out) override {
    put_stream_end(out, head_, "text_completion", options_, usage_);
  }

  std::string whole(const std::vector<PromptResult>& results) override {
    std::string out;
    JsonOut json(out);
    head_.put(json, "text_completion");
    json.key("choices").begin_array();
    for (std::size_t p = 0; p < results.size(); ++p) {
      usage_.set(p, counted(results[p].usage));
      for (std::size_t i = 0; i < n_; ++i) put_whole_choice(json, p, i, results[p]);
    }
    json.end_array();
    put_usage(json, usage_.total());
    json.end_object();
    return out;
  }

 private:
  struct ChoiceState {
    bool started = false;
    std::int64_t offset = 0;  // code points of text so far
  };

  Usage counted(Usage usage) const {
    if (prompt_only_) usage.completion_tokens = 0;
    return usage;
  }

  void stream_part(std::string& out, std::size_t prompt, const CompletionDelta& part) {
    const auto index = static_cast<std::size_t>(part.index);
    if (index >= n_) return;
    ChoiceState& state = states_[prompt * n_ + index];
    const bool first = !std::exchange(state.started, true);
    const bool ends = part.finish_reason != FinishReason::kNone;
    const bool news = !part.text.empty() || (with_logprobs_ && !part.logprobs.empty()) ||
                      (return_token_ids_ && !part.token_ids.empty());
    if (!news && !ends && !(first && echo_)) return;

    std::string text;
    std::vector<PositionLogprobs> logprobs;
    if (first && echo_) {
      text = prompts_[prompt].text;
      logprobs = prompt_logprobs_[prompt];
    }
    std::vector<TokenId> ids;
    if (!prompt_only_) {
      text += part.text;
      logprobs.insert(logprobs.end(), part.logprobs.begin(), part.logprobs.end());
      ids = part.token_ids;
    }
    out += "data: ";
    JsonOut json(out);
    head_.put(json, "text_completion");
    json.key("choices").begin_array().begin_object();
    json.field("index", prompt * n_ + index).field("text", text);
    put_logprobs(json, logprobs, state);
    put_finish(json, reason(part.finish_reason), part.stop_string, part.stop_token);
    if (return_token_ids_) {
      if (first) put_token_ids(json, "prompt_token_ids", prompts_[prompt].token_ids);
      put_token_ids(json, "token_ids", ids);
    }
    json.end_object().end_array();
    end_chunk(out, json, options_, usage_);
  }

  void put_whole_choice(JsonOut& json,
                        std::size_t prompt,
                        std::size_t index,
                        const PromptResult& result) {
    const ChoiceResult& choice = result.choices[index];
    std::string text;
    std::vector<PositionLogprobs> logprobs;
    if (echo_) {
      text = prompts_[prompt].text;
      logprobs = result.prompt_logprobs;
    }
    if (!prompt_only_) {
      text += choice.text;
      logprobs.insert(logprobs.end(), choice.logprobs.begin(), choice.logprobs.end());
    }
    json.begin_object().field("index", prompt * n_ + index).field("text", text);
    put_logprobs(json, logprobs, states_[prompt * n_ + index]);
    if (prompt_only_) {
      put_finish(json, reason(choice.finish_reason), std::nullopt, std::nullopt);
    } else {
      put_finish(json, choice.finish_reason, choice.stop_string, choice.stop_token);
    }
    put_beam_score(json, choice.beam_score);
    if (with_prompt_logprobs_) put_prompt_logprobs(json, result.prompt_logprobs);
    if (return_token_ids_) {
      put_token_ids(json, "prompt_token_ids", prompts_[prompt].token_ids);
      put_token_ids(json,
                    "token_ids",
                    prompt_only_ ? std::span<const TokenId>() : std::span(choice.token_ids));
    }
    json.end_object();
  }

  FinishReason reason(FinishReason given) const {
    return prompt_only_ && given == FinishReason::kStop ? FinishReason::kLength : given;
  }

  void put_logprobs(JsonOut& json, std::span<const PositionLogprobs> logprobs, ChoiceState& state) {
    if (!with_logprobs_) {
      json.null_field("logprobs");
      return;
    }
    json.key("logprobs");
    put_completion_logprobs(json, logprobs, state.offset);
  }

  const AnswerHead head_;
  const std::size_t n_;
  const bool stream_;
  const StreamOptions options_;
  const bool echo_, prompt_only_, return_token_ids_, with_logprobs_, with_prompt_logprobs_;
  const std::vector<PromptInput> prompts_;
  std::vector<ChoiceState> states_;  // [prompts, n]
  std::vector<std::vector<PositionLogprobs>> prompt_logprobs_;
  UsageCounter usage_;
};

}  // namespace

void put_completion_logprobs(JsonOut& json,
                             std::span<const PositionLogprobs> positions,
                             std::int64_t& offset) {
  json.begin_object().key("text_offset").begin_array();
  for (const PositionLogprobs& position : positions) {
    json.value(offset);
    offset += count_code_points(position.chosen.text);
  }
  json.end_array().key("token_logprobs").begin_array();
  for (const PositionLogprobs& position : positions) {
    position.chosen.rank == 0 ? json.null() : json.value(finite_logprob(position.chosen.logprob));
  }
  json.end_array().key("tokens").begin_array();
  for (const PositionLogprobs& position : positions) json.value(token_label(position.chosen.text));
  json.end_array().key("top_logprobs").begin_array();
  for (const PositionLogprobs& position : positions) {
    if (position.chosen.rank == 0) {
      json.null();
      continue;
    }
    json.begin_object();
    std::set<std::string> seen;  // different tokens may read the same
    const auto put = [&](const TokenLogprob& candidate) {
      const std::string label = token_label(candidate.text);
      if (seen.insert(label).second) json.field(label, finite_logprob(candidate.logprob));
    };
    for (const TokenLogprob& candidate : position.top) put(candidate);
    put(position.chosen);
    json.end_object();
  }
  json.end_array().end_object();
}

std::unique_ptr<AnswerFormat> make_completion_format(AnswerHead head,
                                                     const CompletionRequest& request,
                                                     std::vector<PromptInput> prompts) {
  return std::make_unique<CompletionFormat>(std::move(head), request, std::move(prompts));
}

}  // namespace pagemill
