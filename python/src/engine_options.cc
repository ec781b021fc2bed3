#include <fmt/format.h>

#include <variant>

#include "bindings.h"
#include "field_values.h"

namespace pagemill::python {
namespace {

struct OptionField {
  std::string_view name;  // vLLM's, where it has the option
  std::variant<std::string EngineOptions::*,
               bool EngineOptions::*,
               std::int32_t EngineOptions::*,
               std::int64_t EngineOptions::*,
               std::uint64_t EngineOptions::*>
      member;
};

using Options = EngineOptions;
// Sorted as LLM.__init__ of python/pagemill/llm.py has them, which documents them.
constexpr OptionField kFields[] = {
    {"model", &Options::model},
    {"dtype", &Options::dtype},
    {"kv_cache_dtype", &Options::kv_cache_dtype},
    {"seed", &Options::seed},
    {"max_model_len", &Options::max_model_len},
    {"max_num_seqs", &Options::max_num_seqs},
    {"max_num_batched_tokens", &Options::max_num_batched_tokens},
    {"max_queued_requests", &Options::max_queued_requests},
    {"block_size", &Options::block_size},
    {"enable_prefix_caching", &Options::enable_prefix_caching},
    {"kv_cache_memory_bytes", &Options::kv_cache_memory_bytes},
    {"scheduling_policy", &Options::scheduling_policy},
    {"preemption_mode", &Options::preemption_mode},
    {"kv_disk_path", &Options::kv_disk_path},
    {"kv_disk_bytes", &Options::kv_disk_bytes},
    {"admission_headroom", &Options::admission_headroom},
    {"chat_template", &Options::chat_template},
    {"threads", &Options::threads},
};

struct KindName {
  std::string operator()(std::string Options::*) const { return "a string"; }
  std::string operator()(bool Options::*) const { return "True or False"; }
  std::string operator()(auto) const { return "an integer"; }
};

void set_option(Options& options, const OptionField& field, nb::handle value) {
  if (value.is_none()) return;  // the default
  const Fit fit =
      std::visit([&](auto member) { return read_value(value, &(options.*member)); }, field.member);
  if (fit == Fit::kYes) return;
  const std::string message = fmt::format("{}: expected {}, got {}",
                                          field.name,
                                          std::visit(KindName(), field.member),
                                          from_str(nb::repr(value)).substr(0, 80));
  if (fit == Fit::kWrongType) raise_type_error(message);
  raise(invalid_argument(message, std::string(field.name)));
}

}  // namespace

EngineOptions read_engine_options(const nb::dict& options) {
  EngineOptions read;
  for (const auto& [name, value] : options) {
    const std::string key = from_str(name);
    const OptionField* found = nullptr;
    for (const OptionField& field : kFields) {
      if (field.name == key) found = &field;
    }
    if (found == nullptr) raise_type_error(fmt::format("no engine option '{}'", key));
    set_option(read, *found, value);
  }
  return read;
}

nb::dict default_engine_options() {
  const EngineOptions defaults;
  nb::dict dict;
  for (const OptionField& field : kFields) {
    dict[to_str(field.name)] =
        std::visit([&](auto member) { return to_python(defaults.*member); }, field.member);
  }
  return dict;
}

Error without_flags(Error error) {
  const auto rename = [](std::string& text) {
    for (std::size_t at = text.find("--"); at != std::string::npos; at = text.find("--", at)) {
      text.erase(at, 2);
      for (; at < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[at])) != 0 || text[at] == '-');
           ++at) {
        if (text[at] == '-') text[at] = '_';
      }
    }
  };
  rename(error.message);
  for (char& c : error.param) {
    if (c == '-') c = '_';
  }
  return error;
}

}  // namespace pagemill::python
