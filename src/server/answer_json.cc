#include "server/answer_json.h"

#include <cmath>
#include <ctime>
#include <set>

namespace pagemill {

void put_usage(JsonOut& json, const Usage& usage) {
  json.key("usage").begin_object();
  json.field("prompt_tokens", usage.prompt_tokens);
  json.field("completion_tokens", usage.completion_tokens);
  json.field("total_tokens", usage.prompt_tokens + usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object();
  json.field("cached_tokens", usage.cached_tokens).end_object();
  json.end_object();
}

void put_finish(JsonOut& json,
                FinishReason reason,
                const std::optional<std::string>& stop_string,
                const std::optional<TokenId>& stop_token) {
  if (reason == FinishReason::kNone) {
    json.null_field("finish_reason");
  } else {
    json.field("finish_reason", to_string(reason));
  }
  if (stop_string) {
    json.field("stop_reason", *stop_string);
  } else if (stop_token) {
    json.field("stop_reason", *stop_token);
  } else {
    json.null_field("stop_reason");
  }
}

void put_beam_score(JsonOut& json, const std::optional<float>& beam_score) {
  if (beam_score) json.field("beam_score", finite_logprob(*beam_score));
}

void put_token_ids(JsonOut& json, std::string_view name, std::span<const TokenId> ids) {
  json.key(name).begin_array();
  for (const TokenId id : ids) json.value(id);
  json.end_array();
}

void put_prompt_logprobs(JsonOut& json, std::span<const PositionLogprobs> positions) {
  json.key("prompt_logprobs").begin_array();
  for (const PositionLogprobs& position : positions) {
    if (position.chosen.rank == 0) {
      json.null();
      continue;
    }
    json.begin_object();
    std::set<TokenId> seen;
    const auto put = [&](const TokenLogprob& candidate) {
      if (!seen.insert(candidate.token).second) return;
      json.key(std::to_string(candidate.token)).begin_object();
      json.field("logprob", finite_logprob(candidate.logprob)).field("rank", candidate.rank);
      json.field("decoded_token", candidate.text).end_object();
    };
    put(position.chosen);
    for (const TokenLogprob& candidate : position.top) put(candidate);
    json.end_object();
  }
  json.end_array();
}

float finite_logprob(float logprob) {
  return std::isfinite(logprob) ? std::max(logprob, -9999.0f) : -9999.0f;
}

Usage UsageCounter::total() const {
  Usage total;
  for (const Usage& usage : usages_) {
    total.prompt_tokens += usage.prompt_tokens;
    total.completion_tokens += usage.completion_tokens;
    total.cached_tokens += usage.cached_tokens;
  }
  return total;
}

void AnswerHead::put(JsonOut& json, std::string_view object) const {
  json.begin_object().field("id", id).field("object", object).field("created", created);
  json.field("model", model).field("system_fingerprint", system_fingerprint);
}

void end_chunk(std::string& out,
               JsonOut& json,
               const StreamOptions& options,
               const UsageCounter& usage) {
  if (options.continuous_usage_stats) {
    put_usage(json, usage.total());
  } else if (options.include_usage) {
    json.null_field("usage");
  }
  json.end_object();
  out += "\n\n";
}

void put_stream_end(std::string& out,
                    const AnswerHead& head,
                    std::string_view object,
                    const StreamOptions& options,
                    const UsageCounter& usage) {
  if (options.include_usage) {
    out += "data: ";
    JsonOut json(out);
    head.put(json, object);
    json.key("choices").begin_array().end_array();
    put_usage(json, usage.total());
    json.end_object();
    out += "\n\n";
  }
  put_event(out, "[DONE]");
}

AnswerHead new_answer_head(const ServerContext& context,
                           const GenerationRequest& request,
                           std::string_view id_prefix) {
  AnswerHead head;
  head.id = new_answer_id(id_prefix);
  head.created = static_cast<std::int64_t>(std::time(nullptr));
  head.model = request.model.empty() ? context.model_name() : request.model;
  head.system_fingerprint = context.system_fingerprint;
  return head;
}

}  // namespace pagemill
