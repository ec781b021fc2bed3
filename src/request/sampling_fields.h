// The fields of SamplingParams, described once: for validation, for reading and writing JSON, for
// the Python binding and for the docs. A new sampling parameter is a member and one line in the
// .cc.
//
//   for (const SamplingField& field : sampling_fields())
//     std::visit([&](auto member) { read(json[field.name], params.*member); }, field.member);
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "request/sampling_params.h"

namespace pagemill {

struct SamplingField {
  using Member = std::variant<bool SamplingParams::*,
                              std::int32_t SamplingParams::*,
                              float SamplingParams::*,
                              EarlyStopping SamplingParams::*,
                              std::optional<std::int32_t> SamplingParams::*,
                              std::optional<std::uint64_t> SamplingParams::*,
                              std::vector<std::string> SamplingParams::*,
                              std::vector<TokenId> SamplingParams::*,
                              std::vector<std::pair<TokenId, float>> SamplingParams::*>;

  std::string_view name;  // in JSON, Python and C++
  Member member;          // its value in SamplingParams{} is the default
  // A number lies within [low, high], or (low, high] if low_open. In a logit_bias the second of
  // each pair does. Not used for strings and token ids.
  double low = 0, high = 0;
  bool low_open = false;
  bool up_to_vocab = false;    // the upper bound is the vocabulary's size instead of `high`
  std::int32_t max_items = 0;  // of a list; 0: no limit but the vocabulary's
  std::string_view doc;        // one line
};

// In the order of the docs.
std::span<const SamplingField> sampling_fields();
// Null if there is no field of that name.
const SamplingField* find_sampling_field(std::string_view name);
// What values of the field may be, for messages and docs: "a number > 0 and <= 1".
std::string expected_values(const SamplingField& field);
// Checks one field's own range; `param` of the error is the name, with the index within a list.
Status validate_field(const SamplingField& field,
                      const SamplingParams& params,
                      std::int32_t vocab_size);

}  // namespace pagemill
