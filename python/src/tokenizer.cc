#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include "bindings.h"

namespace pagemill::python {
namespace {

struct PyTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
};

}  // namespace

nb::object wrap_tokenizer(std::shared_ptr<const Tokenizer> tokenizer) {
  return nb::cast(PyTokenizer{std::move(tokenizer)});
}

void bind_tokenizer(nb::module_& module) {
  nb::class_<PyTokenizer>(
      module, "Tokenizer", "The model's tokenizer; may be used from any thread.")
      .def(
          "encode",
          [](const PyTokenizer& self, const nb::str& text, bool add_special_tokens) {
            const std::string utf8 = from_str(text);
            nb::gil_scoped_release release;
            auto ids = self.tokenizer->encode(utf8, add_special_tokens);
            nb::gil_scoped_acquire acquire;
            return value_or_raise(std::move(ids));
          },
          nb::arg("text"),
          nb::arg("add_special_tokens") = true,
          "Token ids of a text. add_special_tokens: BOS and the like, as the tokenizer says.")
      .def(
          "decode",
          [](const PyTokenizer& self, nb::handle token_ids, bool skip_special_tokens) {
            return to_str(value_or_raise(
                self.tokenizer->decode(read_token_ids(token_ids), skip_special_tokens)));
          },
          nb::arg("token_ids"),
          nb::arg("skip_special_tokens") = false,
          nb::sig("def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) "
                  "-> str"),
          "The text of token ids.")
      .def(
          "convert_ids_to_tokens",
          [](const PyTokenizer& self, nb::handle ids) {
            nb::list pieces;
            for (const TokenId id : read_token_ids(ids)) {
              pieces.append(to_str(self.tokenizer->token_piece(id)));
            }
            return pieces;
          },
          nb::arg("ids"),
          nb::sig("def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]"),
          "The vocabulary's own spellings; '' for an id that it does not have.")
      .def(
          "convert_token_to_id",
          [](const PyTokenizer& self, const nb::str& token) {
            return self.tokenizer->token_to_id(from_str(token));
          },
          nb::arg("token"),
          "The id of a token by the vocabulary's spelling, or None.")
      .def("__len__", [](const PyTokenizer& self) { return self.tokenizer->vocab_size(); })
      .def_prop_ro(
          "vocab_size",
          [](const PyTokenizer& self) { return self.tokenizer->vocab_size(); },
          "Ids are 0..vocab_size-1, added tokens included.")
      .def_prop_ro("bos_token_id",
                   [](const PyTokenizer& self) { return self.tokenizer->bos_token_id(); })
      .def_prop_ro("eos_token_id",
                   [](const PyTokenizer& self) { return self.tokenizer->eos_token_id(); })
      .def_prop_ro("chat_template",
                   [](const PyTokenizer& self) { return to_str(self.tokenizer->chat_template()); });
}

}  // namespace pagemill::python
