#include <fmt/format.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "bindings.h"
#include "field_values.h"
#include "request/sampling_fields.h"

namespace pagemill::python {
namespace {

constexpr const char* kOutputKinds[] = {"CUMULATIVE", "DELTA", "FINAL_ONLY"};

nb::object output_kind(int kind) {
  return nb::module_::import_("pagemill.sampling_params").attr("RequestOutputKind")(kind);
}

nb::object get_field(const PySamplingParams& params, const SamplingField& field) {
  if (field.name == "max_tokens" && params.fill_context) return nb::none();
  return std::visit([&](auto member) { return to_python(params.*member); }, field.member);
}

[[noreturn]] void refuse(const SamplingField& field, Fit fit, nb::handle value) {
  const std::string got = from_str(nb::repr(value)).substr(0, 80);
  const std::string message =
      fmt::format("{}: expected {}, got {}", field.name, expected_values(field), got);
  if (fit == Fit::kWrongType) raise_type_error(message);
  raise(invalid_argument(message, std::string(field.name)));
}

// None is the default, and for max_tokens: as many as the context has room for.
void set_field(PySamplingParams& params, const SamplingField& field, nb::handle value) {
  const auto set = [&](auto member) {
    if (value.is_none()) {
      params.*member = SamplingParams().*member;
      return;
    }
    const Fit fit = read_value(value, &(params.*member));
    if (fit != Fit::kYes) refuse(field, fit, value);
  };
  std::visit(set, field.member);
  if (field.name == "max_tokens") params.fill_context = value.is_none();
}

void set_output_kind(PySamplingParams& params, nb::handle value) {
  params.output_kind = nb::cast<int>(nb::getattr(value, "value", value));
}

// min_tokens is only known to fit once the context's room is.
Status check(PySamplingParams params) {
  if (params.fill_context) params.max_tokens = std::max(params.max_tokens, params.min_tokens);
  return validate(params, kAnyVocabSize);
}

void set_by_name(PySamplingParams& params, nb::handle name, nb::handle value) {
  const std::string key = from_str(name);
  if (key == "output_kind") return set_output_kind(params, value);
  if (const SamplingField* field = find_sampling_field(key)) {
    return set_field(params, *field, value);
  }
  std::string known;
  for (const SamplingField& field : sampling_fields()) known += fmt::format("{}, ", field.name);
  raise_type_error(
      fmt::format("SamplingParams has no parameter '{}'; it has {}output_kind", key, known));
}

void init(PySamplingParams* params, const nb::dict& values) {
  PySamplingParams read;
  for (const auto& [name, value] : values) set_by_name(read, name, value);
  value_or_raise(check(read));
  new (params) PySamplingParams(std::move(read));
}

// What differs from the defaults, by name.
nb::dict changed_fields(const PySamplingParams& params) {
  const PySamplingParams defaults;
  nb::dict changed;
  for (const SamplingField& field : sampling_fields()) {
    nb::object value = get_field(params, field);
    if (value.equal(get_field(defaults, field))) continue;
    if (is_mapping(value)) {  // a read-only view does not pickle
      nb::dict copy;
      copy.update(value);
      value = copy;
    }
    changed[to_str(field.name)] = value;
  }
  if (params.output_kind != 0) changed["output_kind"] = output_kind(params.output_kind);
  return changed;
}

std::string repr(const PySamplingParams& params) {
  std::string text;
  for (const auto& [name, value] : changed_fields(params)) {
    text += fmt::format(
        "{}{}={}", text.empty() ? "" : ", ", from_str(nb::str(name)), from_str(nb::repr(value)));
  }
  return fmt::format("SamplingParams({})", text);
}

struct TypeName {
  std::string operator()(bool SamplingParams::*) const { return "bool"; }
  std::string operator()(float SamplingParams::*) const { return "float"; }
  std::string operator()(std::int32_t SamplingParams::*) const { return "int"; }
  std::string operator()(EarlyStopping SamplingParams::*) const { return "bool | str"; }
  std::string operator()(std::vector<std::string> SamplingParams::*) const {
    return "str | Sequence[str]";
  }
  std::string operator()(std::vector<TokenId> SamplingParams::*) const { return "Sequence[int]"; }
  std::string operator()(std::vector<std::pair<TokenId, float>> SamplingParams::*) const {
    return "Mapping[int, float]";
  }
  std::string operator()(auto) const { return "int | None"; }
};

std::string type_name(const SamplingField& field) {
  const std::string name = std::visit(TypeName(), field.member);
  return field.name == "max_tokens" ? "int | None" : name;
}

// The constructor as Python would write it; lives as long as the module.
const char* init_signature() {
  static const std::string kSignature = [] {
    std::string text = "def __init__(self, *";
    for (const SamplingField& field : sampling_fields()) {
      const std::string type = type_name(field);
      text += fmt::format(", {}: {} = {}",
                          field.name,
                          type.ends_with("None") ? type : type + " | None",
                          from_str(nb::repr(get_field({}, field))));
    }
    return text + ", output_kind: int = 0) -> None";
  }();
  return kSignature.c_str();
}

const char* class_doc() {
  static const std::string kDoc = [] {
    std::string text =
        "How the tokens of one request are chosen; names and defaults are vLLM's.\n\n"
        "Raises TypeError for a value of the wrong type or an unknown name, ValueError for one\n"
        "outside its range; what depends on the model is checked by generate().\n"
        "None is the default. Lists read back as tuples: assign a new one to change it.\n\n";
    for (const SamplingField& field : sampling_fields()) {
      text += fmt::format("{}: {}. {}\n", field.name, expected_values(field), field.doc);
    }
    return text +
           "max_tokens=None is as many as the context has room for.\n"
           "output_kind: what AsyncLLM.generate yields, a RequestOutputKind.\n";
  }();
  return kDoc.c_str();
}

void bind_field(nb::class_<PySamplingParams>& cls, const SamplingField& field) {
  const auto get = [&field](const PySamplingParams& params) { return get_field(params, field); };
  const auto set = [&field](PySamplingParams& params, const nb::object& value) {
    PySamplingParams changed = params;
    set_field(changed, field, value);
    value_or_raise(validate_field(field, changed, kAnyVocabSize));
    params = std::move(changed);
  };
  static std::vector<std::string>& signatures = *new std::vector<std::string>();
  if (signatures.empty()) signatures.reserve(2 * sampling_fields().size());
  const std::string type = type_name(field);
  const char* get_signature =
      signatures.emplace_back(fmt::format("def {}(self) -> {}", field.name, type)).c_str();
  const char* set_signature =
      signatures.emplace_back(fmt::format("def {}(self, value: {}, /) -> None", field.name, type))
          .c_str();
  const std::string& name = *new std::string(field.name);
  const std::string& doc = *new std::string(field.doc);
  cls.def_prop_rw(name.c_str(),
                  get,
                  set,
                  nb::for_getter(nb::sig(get_signature)),
                  nb::for_setter(nb::sig(set_signature)),
                  nb::for_setter(nb::arg("value").none()),
                  doc.c_str());
}

}  // namespace

void bind_sampling_params(nb::module_& module) {
  nb::class_<PySamplingParams> cls(module, "SamplingParams", class_doc());
  cls.def(
      "__init__",
      [](PySamplingParams* self, const nb::kwargs& values) { init(self, values); },
      nb::sig(init_signature()));
  for (const SamplingField& field : sampling_fields()) bind_field(cls, field);
  cls.def_prop_rw(
         "output_kind",
         [](const PySamplingParams& self) { return output_kind(self.output_kind); },
         [](PySamplingParams& self, const nb::object& value) { set_output_kind(self, value); },
         "What AsyncLLM.generate yields: a RequestOutputKind.")
      .def(
          "clone", [](const PySamplingParams& self) { return self; }, "A copy.")
      .def("__repr__", repr)
      .def(
          "__eq__",
          [](const PySamplingParams& self, nb::handle other) -> nb::object {
            if (!nb::isinstance<PySamplingParams>(other)) return nb::borrow(Py_NotImplemented);
            return nb::cast(
                changed_fields(self).equal(changed_fields(*nb::inst_ptr<PySamplingParams>(other))));
          },
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__getstate__", changed_fields)
      .def("__setstate__",
           [](PySamplingParams& self, const nb::dict& state) { init(&self, state); });
  cls.attr("__hash__") = nb::none();
  module.attr("OUTPUT_KINDS") = nb::make_tuple(kOutputKinds[0], kOutputKinds[1], kOutputKinds[2]);
}

}  // namespace pagemill::python
