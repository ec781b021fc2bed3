#include "field_values.h"

#include <fmt/format.h>

#include <cstdlib>

namespace pagemill::python {
namespace {

// An integer's value, or nothing if 64 bits don't hold it.
template <typename T>
Fit read_integer(nb::handle value, T* out) {
  if (!is_integer(value)) return Fit::kWrongType;
  PyObject* index = PyNumber_Index(value.ptr());
  if (index == nullptr) throw nb::python_error();
  const nb::object number = nb::steal(index);
  return nb::try_cast<T>(number, *out) ? Fit::kYes : Fit::kOutOfRange;
}

template <typename T>
Fit read_items(nb::handle value, std::vector<T>* out) {
  out->clear();
  if (PyUnicode_Check(value.ptr()) || PyBytes_Check(value.ptr()) || PyDict_Check(value.ptr()) ||
      !nb::isinstance<nb::iterable>(value)) {
    return Fit::kWrongType;
  }
  for (nb::handle item : nb::borrow<nb::iterable>(value)) {
    const Fit fit = read_value(item, &out->emplace_back());
    if (fit != Fit::kYes) return fit;
  }
  return Fit::kYes;
}

template <typename T>
nb::object to_tuple(const std::vector<T>& values) {
  nb::list list;
  for (const T& value : values) list.append(to_python(value));
  return nb::tuple(list);
}

}  // namespace

Fit read_value(nb::handle value, bool* out) {
  return nb::try_cast<bool>(value, *out) ? Fit::kYes : Fit::kWrongType;
}

Fit read_value(nb::handle value, float* out) {
  if (PyBool_Check(value.ptr()) || !PyNumber_Check(value.ptr())) return Fit::kWrongType;
  const double number = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return Fit::kWrongType;
  }
  *out = static_cast<float>(number);
  return Fit::kYes;
}

Fit read_value(nb::handle value, std::uint64_t* out) { return read_integer(value, out); }
Fit read_value(nb::handle value, std::int64_t* out) { return read_integer(value, out); }
Fit read_value(nb::handle value, std::int32_t* out) { return read_integer(value, out); }

Fit read_value(nb::handle value, std::string* out) {
  if (!PyUnicode_Check(value.ptr())) return Fit::kWrongType;
  *out = from_str(value);
  return Fit::kYes;
}

Fit read_value(nb::handle value, EarlyStopping* out) {
  if (bool flag = false; nb::try_cast<bool>(value, flag)) {
    *out = flag ? EarlyStopping::kTrue : EarlyStopping::kFalse;
    return Fit::kYes;
  }
  std::string word;
  *out = EarlyStopping::kNever;
  return read_value(value, &word) == Fit::kYes && word == "never" ? Fit::kYes : Fit::kWrongType;
}

Fit read_value(nb::handle value, std::vector<std::string>* out) {
  if (!PyUnicode_Check(value.ptr())) return read_items(value, out);
  out->assign(1, from_str(value));
  return Fit::kYes;
}

Fit read_value(nb::handle value, std::vector<TokenId>* out) { return read_items(value, out); }

Fit read_value(nb::handle value, std::vector<std::pair<TokenId, float>>* out) {
  out->clear();
  if (!is_mapping(value)) return Fit::kWrongType;
  nb::dict pairs;
  pairs.update(value);
  for (const auto& [key, bias] : pairs) {
    auto& [token, number] = out->emplace_back();
    for (const Fit fit : {read_value(key, &token), read_value(bias, &number)}) {
      if (fit != Fit::kYes) return fit;
    }
  }
  return Fit::kYes;
}

nb::object to_python(bool value) { return nb::cast(value); }
// The shortest decimal that is this float: 0.8 rather than 0.800000011920929.
nb::object to_python(float value) {
  return nb::cast(std::strtod(fmt::format("{}", value).c_str(), nullptr));
}
nb::object to_python(std::int32_t value) { return nb::cast(value); }
nb::object to_python(std::int64_t value) { return nb::cast(value); }
nb::object to_python(std::uint64_t value) { return nb::cast(value); }
nb::object to_python(const std::string& value) { return to_str(value); }

nb::object to_python(EarlyStopping value) {
  if (value == EarlyStopping::kNever) return to_str("never");
  return nb::cast(value == EarlyStopping::kTrue);
}

nb::object to_python(const std::vector<std::string>& value) { return to_tuple(value); }
nb::object to_python(const std::vector<TokenId>& value) { return to_tuple(value); }

nb::object to_python(const std::vector<std::pair<TokenId, float>>& value) {
  nb::dict dict;
  for (const auto& [token, bias] : value) dict[nb::cast(token)] = bias;
  PyObject* view = PyDictProxy_New(dict.ptr());
  if (view == nullptr) throw nb::python_error();
  return nb::steal(view);
}

}  // namespace pagemill::python
