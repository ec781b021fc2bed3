#include <fmt/format.h>
#include <nanobind/ndarray.h>

#include "bindings.h"
#include "field_values.h"

namespace pagemill::python {
namespace {

constexpr const char* kExpected =
    "expected a str, token ids, {'prompt': str} or {'prompt_token_ids': token ids}";

[[noreturn]] void refuse(nb::handle object) {
  raise_type_error(
      fmt::format("prompt: {}, got {}", kExpected, from_str(nb::repr(object)).substr(0, 80)));
}

// Arrays of integers are read where they lie; false if `object` is no such array.
template <typename T>
bool read_array(nb::handle object, std::vector<TokenId>* out) {
  nb::ndarray<const T, nb::ndim<1>, nb::device::cpu> array;
  if (!nb::try_cast(object, array, false)) return false;
  const auto view = array.view();
  out->reserve(array.shape(0));
  for (std::size_t i = 0; i < array.shape(0); ++i) {
    const auto id = static_cast<TokenId>(view(i));
    if (static_cast<T>(id) != view(i) || (id < 0) != (view(i) < T{0})) {
      raise(invalid_argument(fmt::format("prompt: token id {} has no 32 bits", view(i)), "prompt"));
    }
    out->push_back(id);
  }
  return true;
}

bool is_text(nb::handle object) { return PyUnicode_Check(object.ptr()) != 0; }
bool is_dict(nb::handle object) { return PyDict_Check(object.ptr()) != 0; }

bool is_list(nb::handle object) {
  return PyList_Check(object.ptr()) || PyTuple_Check(object.ptr()) ||
         (nb::hasattr(object, "__len__") && nb::hasattr(object, "__getitem__") &&
          !PyBytes_Check(object.ptr()) && !is_text(object) && !is_dict(object));
}

bool is_token_ids(nb::handle object) {
  if (!is_list(object)) return false;
  if (nb::len(object) == 0) return false;
  return is_integer(object[0]);
}

}  // namespace

std::vector<TokenId> read_token_ids(nb::handle object) {
  std::vector<TokenId> ids;
  if (read_array<std::int32_t>(object, &ids) || read_array<std::int64_t>(object, &ids) ||
      read_array<std::uint32_t>(object, &ids) || read_array<std::uint16_t>(object, &ids)) {
    return ids;
  }
  const Fit fit = read_value(object, &ids);
  if (fit == Fit::kWrongType) refuse(object);
  if (fit == Fit::kOutOfRange) {
    raise(invalid_argument("prompt: token ids are integers of 32 bits", "prompt"));
  }
  return ids;
}

Prompt read_prompt(nb::handle object) {
  if (is_text(object)) return from_str(object);
  if (!is_dict(object))
    return is_list(object) ? Prompt(read_token_ids(object)) : (refuse(object), Prompt());
  const nb::dict dict = nb::borrow<nb::dict>(object);
  if (dict.contains("prompt_token_ids") && !dict["prompt_token_ids"].is_none()) {
    return read_token_ids(dict["prompt_token_ids"]);
  }
  if (!dict.contains("prompt") || !is_text(dict["prompt"])) refuse(object);
  return from_str(dict["prompt"]);
}

Prompts read_prompts(nb::handle object) {
  if (is_text(object) || is_dict(object) || is_token_ids(object)) {
    return {{read_prompt(object)}, true};
  }
  if (!is_list(object)) refuse(object);
  Prompts prompts;
  prompts.prompts.reserve(nb::len(object));
  for (nb::handle item : nb::borrow<nb::iterable>(object)) {
    prompts.prompts.push_back(read_prompt(item));
  }
  return prompts;
}

}  // namespace pagemill::python
