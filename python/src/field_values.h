// Python values to and from the fields of SamplingParams and EngineOptions, by the fields' types.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"

namespace pagemill::python {

enum class Fit { kYes, kWrongType, kOutOfRange };

// Neither a bool nor an array, which has __index__ too.
inline bool is_integer(nb::handle value) {
  return PyIndex_Check(value.ptr()) != 0 && !PyBool_Check(value.ptr()) &&
         PySequence_Check(value.ptr()) == 0;
}
// A list passes for one by the C API's own check.
inline bool is_mapping(nb::handle value) { return nb::hasattr(value, "keys"); }

// Reads a value into a field; the field is unspecified unless it fits.
Fit read_value(nb::handle value, bool* out);
Fit read_value(nb::handle value, float* out);
Fit read_value(nb::handle value, std::uint64_t* out);
Fit read_value(nb::handle value, std::int64_t* out);
Fit read_value(nb::handle value, std::int32_t* out);
Fit read_value(nb::handle value, std::string* out);
Fit read_value(nb::handle value, EarlyStopping* out);
Fit read_value(nb::handle value, std::vector<std::string>* out);  // also one str
Fit read_value(nb::handle value, std::vector<TokenId>* out);
Fit read_value(nb::handle value, std::vector<std::pair<TokenId, float>>* out);  // from a dict
template <typename T>
Fit read_value(nb::handle value, std::optional<T>* out) {
  return read_value(value, &out->emplace());
}

// Lists are tuples and a dict is read-only: to change them in place would change a copy.
nb::object to_python(bool value);
nb::object to_python(float value);
nb::object to_python(std::int32_t value);
nb::object to_python(std::int64_t value);
nb::object to_python(std::uint64_t value);
nb::object to_python(const std::string& value);
nb::object to_python(EarlyStopping value);
nb::object to_python(const std::vector<std::string>& value);
nb::object to_python(const std::vector<TokenId>& value);
nb::object to_python(const std::vector<std::pair<TokenId, float>>& value);
template <typename T>
nb::object to_python(const std::optional<T>& value) {
  return value ? to_python(*value) : nb::none();
}

}  // namespace pagemill::python
