#include "bindings.h"

namespace pagemill::python {
namespace {

template <typename T>
nb::list to_list(const std::vector<T>& values) {
  nb::list list;
  for (const T& value : values) list.append(value);
  return list;
}

nb::object finish_reason(FinishReason reason) {
  return reason == FinishReason::kNone ? nb::none() : nb::object(to_str(to_string(reason)));
}

nb::object stop_reason(const CompletionOutput& output) {
  if (!output.stop_reason) return nb::none();
  if (const auto* token = std::get_if<TokenId>(&*output.stop_reason)) return nb::cast(*token);
  return to_str(std::get<std::string>(*output.stop_reason));
}

}  // namespace

OutputConverter::OutputConverter() {
  const nb::module_ outputs = nb::module_::import_("pagemill.outputs");
  request_output_ = outputs.attr("RequestOutput");
  completion_output_ = outputs.attr("CompletionOutput");
  logprob_ = outputs.attr("Logprob");
  metrics_ = outputs.attr("RequestMetrics");
}

// A dict of token id to Logprob for each position.
nb::object OutputConverter::positions(const std::vector<PositionLogprobs>& logprobs,
                                      bool is_prompt) const {
  nb::list list;
  for (std::size_t i = 0; i < logprobs.size(); ++i) {
    if (is_prompt && i == 0) {  // nothing predicts the first token
      list.append(nb::none());
      continue;
    }
    nb::dict candidates;
    const auto add = [&](const TokenLogprob& candidate) {
      candidates[nb::cast(candidate.token)] =
          logprob_(candidate.logprob, candidate.rank, to_str(candidate.text));
    };
    add(logprobs[i].chosen);
    for (const TokenLogprob& candidate : logprobs[i].top) add(candidate);
    list.append(candidates);
  }
  return list;
}

nb::object OutputConverter::convert(const RequestOutput& output,
                                    const PySamplingParams& params,
                                    nb::str name) {
  nb::list completions;
  for (const CompletionOutput& completion : output.outputs) {
    completions.append(completion_output_(
        completion.index,
        to_str(completion.text),
        to_list(completion.token_ids),
        params.logprobs ? nb::cast(completion.cumulative_logprob.value_or(0)) : nb::none(),
        params.logprobs ? positions(completion.logprobs, false) : nb::none(),
        finish_reason(completion.finish_reason),
        stop_reason(completion),
        completion.beam_score ? nb::cast(*completion.beam_score) : nb::none()));
  }
  const RequestTimes& times = output.times;
  return request_output_(
      name,
      output.prompt.empty() ? nb::none() : nb::object(to_str(output.prompt)),
      to_list(output.prompt_token_ids),
      params.prompt_logprobs ? positions(output.prompt_logprobs, true) : nb::none(),
      completions,
      output.finished,
      metrics_(times.arrival, times.first_scheduled, times.first_token, times.finished),
      output.usage.cached_tokens);
}

}  // namespace pagemill::python
