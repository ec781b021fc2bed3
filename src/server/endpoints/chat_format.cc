#include "server/endpoints/chat_protocol.h"

namespace pagemill {
namespace {

constexpr std::string_view kChunk = "chat.completion.chunk";

// {"token", "logprob", "bytes"} without the closing brace: a half character shows in bytes only.
void put_token(JsonOut& json, const TokenLogprob& token) {
  json.begin_object().field("token", token.text);
  json.field("logprob", finite_logprob(token.logprob)).key("bytes").begin_array();
  for (const char c : token.text) json.value(static_cast<unsigned>(static_cast<unsigned char>(c)));
  json.end_array();
}

class ChatFormat : public AnswerFormat {
 public:
  ChatFormat(AnswerHead head, const ChatRequest& request, std::vector<TokenId> prompt_token_ids)
      : head_(std::move(head)),
        stream_(request.stream),
        options_(request.stream_options),
        with_logprobs_(request.logprobs),
        top_logprobs_(static_cast<std::size_t>(request.top_logprobs)),
        with_prompt_logprobs_(request.params.prompt_logprobs.has_value()),
        return_token_ids_(request.return_token_ids),
        // A continued message is echoed with its own role.
        echo_(request.echo ? request.last_content : std::string()),
        prompt_token_ids_(std::move(prompt_token_ids)),
        started_(static_cast<std::size_t>(request.params.n)),
        usage_(1) {}

  bool streams() const override { return stream_; }

  void stream(std::string& out, std::size_t prompt, const RequestDelta& delta) override {
    usage_.set(prompt, delta.usage);
    for (const CompletionDelta& part : delta.completions) {
      const auto index = static_cast<std::size_t>(part.index);
      if (index >= started_.size()) continue;
      if (!started_[index]) {
        started_[index] = true;
        stream_role(out, part.index);
      }
      stream_content(out, part);
      if (part.finish_reason != FinishReason::kNone) stream_finish(out, part);
    }
  }

  void stream_end(std::string& out) override {
    put_stream_end(out, head_, kChunk, options_, usage_);
  }

  std::string whole(const std::vector<PromptResult>& results) override {
    const PromptResult& result = results.front();
    std::string out;
    JsonOut json(out);
    head_.put(json, "chat.completion");
    json.key("choices").begin_array();
    for (std::size_t i = 0; i < result.choices.size(); ++i) put_choice(json, i, result.choices[i]);
    json.end_array();
    put_usage(json, result.usage);
    if (with_prompt_logprobs_) put_prompt_logprobs(json, result.prompt_logprobs);
    if (return_token_ids_) put_token_ids(json, "prompt_token_ids", prompt_token_ids_);
    json.end_object();
    return out;
  }

 private:
  // Opens a chunk up to inside its only choice, after "index".
  void open_chunk(JsonOut& json, std::int32_t index) {
    head_.put(json, kChunk);
    json.key("choices").begin_array().begin_object().field("index", index);
  }
  void close_chunk(std::string& out, JsonOut& json) {
    json.end_object().end_array();
    end_chunk(out, json, options_, usage_);
  }

  void stream_role(std::string& out, std::int32_t index) {
    out += "data: ";
    JsonOut json(out);
    open_chunk(json, index);
    json.key("delta").begin_object().field("role", "assistant").field("content", "").end_object();
    json.null_field("logprobs").null_field("finish_reason");
    if (return_token_ids_) put_token_ids(json, "prompt_token_ids", prompt_token_ids_);
    close_chunk(out, json);
    if (!echo_.empty()) stream_text(out, index, echo_, {}, {});
  }

  void stream_content(std::string& out, const CompletionDelta& part) {
    const bool news = !part.text.empty() || (with_logprobs_ && !part.logprobs.empty()) ||
                      (return_token_ids_ && !part.token_ids.empty());
    if (news) stream_text(out, part.index, part.text, part.logprobs, part.token_ids);
  }

  void stream_text(std::string& out,
                   std::int32_t index,
                   std::string_view text,
                   std::span<const PositionLogprobs> logprobs,
                   std::span<const TokenId> token_ids) {
    out += "data: ";
    JsonOut json(out);
    open_chunk(json, index);
    json.key("delta").begin_object().field("content", text).end_object();
    put_logprobs(json, logprobs);
    json.null_field("finish_reason");
    if (return_token_ids_) put_token_ids(json, "token_ids", token_ids);
    close_chunk(out, json);
  }

  void stream_finish(std::string& out, const CompletionDelta& part) {
    out += "data: ";
    JsonOut json(out);
    open_chunk(json, part.index);
    json.key("delta").begin_object().end_object().null_field("logprobs");
    put_finish(json, part.finish_reason, part.stop_string, part.stop_token);
    close_chunk(out, json);
  }

  void put_choice(JsonOut& json, std::size_t index, const ChoiceResult& choice) {
    json.begin_object().field("index", index).key("message").begin_object();
    json.field("role", "assistant").field("content", echo_ + choice.text).null_field("refusal");
    json.end_object();
    put_logprobs(json, choice.logprobs);
    put_finish(json, choice.finish_reason, choice.stop_string, choice.stop_token);
    put_beam_score(json, choice.beam_score);
    if (return_token_ids_) put_token_ids(json, "token_ids", choice.token_ids);
    json.end_object();
  }

  void put_logprobs(JsonOut& json, std::span<const PositionLogprobs> positions) {
    if (!with_logprobs_) {
      json.null_field("logprobs");
      return;
    }
    json.key("logprobs").begin_object().key("content").begin_array();
    for (const PositionLogprobs& position : positions) {
      put_token(json, position.chosen);
      json.key("top_logprobs").begin_array();
      for (std::size_t i = 0; i < std::min(top_logprobs_, position.top.size()); ++i) {
        put_token(json, position.top[i]);
        json.end_object();
      }
      json.end_array().end_object();
    }
    json.end_array().null_field("refusal").end_object();
  }

  const AnswerHead head_;
  const bool stream_;
  const StreamOptions options_;
  const bool with_logprobs_;
  const std::size_t top_logprobs_;
  const bool with_prompt_logprobs_, return_token_ids_;
  const std::string echo_;
  const std::vector<TokenId> prompt_token_ids_;
  std::vector<bool> started_;  // [n]
  UsageCounter usage_;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_chat_format(AnswerHead head,
                                               const ChatRequest& request,
                                               std::vector<TokenId> prompt_token_ids) {
  return std::make_unique<ChatFormat>(std::move(head), request, std::move(prompt_token_ids));
}

}  // namespace pagemill
