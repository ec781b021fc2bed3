#include "simulate/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

namespace pagemill {
namespace {

using nlohmann::json;

constexpr TokenId kMaxHashId = (1 << 30) - 1;
// A century: later arrivals are a wrong unit.
constexpr double kMaxArrivalSeconds = 3.2e9;

// Takes the text apart into lines and remembers which one it is at.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  std::optional<std::string_view> next() {
    while (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++number_;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.empty()) return line;
    }
    return std::nullopt;
  }
  std::int32_t number() const { return number_; }

 private:
  std::string_view rest_;
  std::int32_t number_ = 0;
};

// A field's text in an error: a hostile line may be long.
std::string shown(std::string_view text) {
  return text.size() <= 40 ? std::string(text) : fmt::format("{}...", text.substr(0, 40));
}

Error bad_count(std::string_view field, std::string_view got) {
  return corrupt(fmt::format(
      "{}: expected an integer from 1 to {}, got '{}'", field, kMaxTraceTokens, shown(got)));
}

Error bad_arrival(std::string_view field, std::string_view got) {
  return corrupt(
      fmt::format("{}: expected a time that is not negative, got '{}'", field, shown(got)));
}

std::vector<std::string_view> split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const std::size_t comma = line.find(',');
    fields.push_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return fields;
    line.remove_prefix(comma + 1);
  }
}

template <typename T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<std::int32_t> count_of(std::string_view field, std::string_view text) {
  const auto value = number_of<std::int32_t>(text);
  if (!value || *value < 1 || *value > kMaxTraceTokens) return bad_count(field, text);
  return *value;
}

Result<double> arrival_of(std::string_view field, std::string_view text) {
  const auto value = number_of<double>(text);
  if (!value || !(*value >= 0 && *value <= kMaxArrivalSeconds)) return bad_arrival(field, text);
  return *value;
}

struct CsvColumns {
  std::size_t num = 0;
  std::optional<std::size_t> arrival, input, output;
};

Result<CsvColumns> read_header(std::string_view line) {
  CsvColumns columns;
  for (const std::string_view name : split(line)) {
    const std::size_t at = columns.num++;
    if (name == "arrival_s" || name == "arrival_s_synthetic") columns.arrival = at;
    if (name == "input_tokens") columns.input = at;
    if (name == "output_tokens") columns.output = at;
  }
  if (!columns.input || !columns.output) {
    return corrupt(fmt::format("expected a header with input_tokens and output_tokens, got '{}'",
                               shown(line)));
  }
  return columns;
}

Result<TraceRequest> read_row(const CsvColumns& columns, std::string_view line) {
  const auto fields = split(line);
  if (fields.size() != columns.num) {
    return corrupt(fmt::format("expected {} fields, got {}", columns.num, fields.size()));
  }
  TraceRequest request;
  PM_ASSIGN(request.input_tokens, count_of("input_tokens", fields[*columns.input]));
  PM_ASSIGN(request.output_tokens, count_of("output_tokens", fields[*columns.output]));
  if (columns.arrival) {
    PM_ASSIGN(request.arrival_s, arrival_of("arrival_s", fields[*columns.arrival]));
  }
  return request;
}

// What the first line of a file of JSON lines shows, and every other line has to have as well.
struct JsonKeys {
  const char* arrival = nullptr;
  double seconds_per_unit = 1;
  const char* ids = nullptr;
  std::int32_t tokens_per_id = 0;
};

JsonKeys find_keys(const json& line) {
  JsonKeys keys;
  if (line.contains("arrival_s")) keys.arrival = "arrival_s";
  if (line.contains("timestamp")) keys.arrival = "timestamp", keys.seconds_per_unit = 1e-3;
  if (line.contains("hash_ids")) keys.ids = "hash_ids", keys.tokens_per_id = 512;
  if (line.contains("seq_hash_ids")) keys.ids = "seq_hash_ids", keys.tokens_per_id = 16;
  return keys;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::int32_t> count_of(const json& line, const char* field) {
  const auto found = line.find(field);
  if (found == line.end()) return corrupt(fmt::format("{} is missing", field));
  if (!found->is_number_integer() || *found < 1 || *found > kMaxTraceTokens) {
    return bad_count(field, dump(*found));
  }
  return found->get<std::int32_t>();
}

Status read_ids(const json& line, const JsonKeys& keys, TraceRequest& request) {
  const auto found = line.find(keys.ids);
  if (found == line.end() || !found->is_array()) {
    return corrupt(fmt::format("{}: expected an array", keys.ids));
  }
  const std::int64_t tokens = std::int64_t{request.input_tokens} + request.output_tokens;
  const std::int64_t limit = (tokens + keys.tokens_per_id - 1) / keys.tokens_per_id;
  if (static_cast<std::int64_t>(found->size()) > limit) {
    return corrupt(fmt::format("{}: {} blocks of {} tokens are more than {} tokens need",
                               keys.ids,
                               found->size(),
                               keys.tokens_per_id,
                               tokens));
  }
  for (const json& id : *found) {
    if (!id.is_number_integer() || id < 0 || id > kMaxHashId) {
      return corrupt(fmt::format(
          "{}: expected integers from 0 to {}, got {}", keys.ids, kMaxHashId, shown(dump(id))));
    }
    request.hash_ids.push_back(id.get<TokenId>());
  }
  return ok_status();
}

Result<TraceRequest> read_object(const json& line, const JsonKeys& keys) {
  TraceRequest request;
  PM_ASSIGN(request.input_tokens, count_of(line, "input_length"));
  PM_ASSIGN(request.output_tokens, count_of(line, "output_length"));
  if (keys.arrival != nullptr) {
    const auto found = line.find(keys.arrival);
    if (found == line.end() || !found->is_number()) {
      return bad_arrival(keys.arrival, found == line.end() ? "nothing" : dump(*found));
    }
    request.arrival_s = found->get<double>() * keys.seconds_per_unit;
    if (!(request.arrival_s >= 0 && request.arrival_s <= kMaxArrivalSeconds)) {
      return bad_arrival(keys.arrival, dump(*found));
    }
  }
  if (keys.ids != nullptr) PM_TRY(read_ids(line, keys, request));
  return request;
}

Status parse_csv(Lines& lines, std::string_view header, Trace& trace) {
  PM_ASSIGN(const CsvColumns columns, read_header(header));
  trace.has_arrivals = columns.arrival.has_value();
  while (const auto line = lines.next()) {
    PM_ASSIGN(TraceRequest request, read_row(columns, *line));
    trace.requests.push_back(std::move(request));
  }
  return ok_status();
}

Status parse_json_lines(Lines& lines, std::string_view first, Trace& trace) {
  std::optional<JsonKeys> keys;
  for (std::optional<std::string_view> line = first; line; line = lines.next()) {
    const json object = json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return corrupt("expected a JSON object");
    if (!keys) keys = find_keys(object);
    PM_ASSIGN(TraceRequest request, read_object(object, *keys));
    trace.requests.push_back(std::move(request));
  }
  trace.has_arrivals = keys->arrival != nullptr;
  trace.hash_block_tokens = keys->tokens_per_id;
  trace.ids_cover_output = keys->ids != nullptr && std::string_view(keys->ids) == "seq_hash_ids";
  return ok_status();
}

}  // namespace

TokenId Trace::token(std::int32_t index, std::int32_t position) const {
  const TraceRequest& request = requests[index];
  if (hash_block_tokens > 0 && (ids_cover_output || position < request.input_tokens)) {
    const auto block = static_cast<std::size_t>(position / hash_block_tokens);
    if (block < request.hash_ids.size()) return request.hash_ids[block];
  }
  // Above every id; odd multipliers spread neighbours.
  const std::uint32_t mixed = static_cast<std::uint32_t>(index) * 2654435761u +
                              static_cast<std::uint32_t>(position) * 40503u;
  return (1 << 30) | static_cast<TokenId>(mixed >> 2);
}

Result<Trace> parse_trace(std::string_view text, const std::string& name) {
  Trace trace;
  trace.name = name;
  Lines lines(text);
  const auto first = lines.next();
  if (!first) return corrupt(fmt::format("{}: the file is empty", name));
  const Status status = first->starts_with('{') ? parse_json_lines(lines, *first, trace)
                                                : parse_csv(lines, *first, trace);
  if (!status.ok()) {
    return corrupt(fmt::format("{}:{}: {}", name, lines.number(), status.error().message));
  }
  if (trace.requests.empty()) return corrupt(fmt::format("{}: there is no request", name));
  std::stable_sort(trace.requests.begin(), trace.requests.end(), [](const auto& a, const auto& b) {
    return a.arrival_s < b.arrival_s;
  });
  return trace;
}

Result<Trace> read_trace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(fmt::format("--trace: cannot open '{}'", path));
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) return io_error(fmt::format("--trace: cannot read '{}'", path));
  return parse_trace(text.str(), path);
}

Trace with_hash_block_tokens(Trace trace, std::int32_t tokens) {
  if (trace.hash_block_tokens == 0) return trace;
  const double ratio = static_cast<double>(tokens) / trace.hash_block_tokens;
  const auto scaled = [&](std::int32_t length) {
    return static_cast<std::int32_t>(
        std::clamp(std::round(length * ratio), 1.0, double{kMaxTraceTokens}));
  };
  for (TraceRequest& request : trace.requests) {
    const auto from_ids = static_cast<std::int64_t>(request.hash_ids.size()) * tokens;
    const bool whole = !trace.ids_cover_output && from_ids > 0 && from_ids <= kMaxTraceTokens;
    request.input_tokens =
        whole ? static_cast<std::int32_t>(from_ids) : scaled(request.input_tokens);
    request.output_tokens = scaled(request.output_tokens);
  }
  trace.hash_block_tokens = tokens;
  return trace;
}

std::int32_t clip_to_model_len(Trace& trace, std::int32_t max_model_len) {
  const std::size_t before = trace.requests.size();
  std::erase_if(trace.requests, [&](const auto& r) { return r.input_tokens >= max_model_len; });
  for (TraceRequest& request : trace.requests) {
    request.output_tokens = std::min(request.output_tokens, max_model_len - request.input_tokens);
  }
  return static_cast<std::int32_t>(before - trace.requests.size());
}

}  // namespace pagemill
