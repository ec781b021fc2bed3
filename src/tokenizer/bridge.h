// What the files of this folder share: the Rust side's types, and its errors as Results.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "pagemill-bridge/src/lib.rs.h"
#include "rust/cxx.h"
#include "tokenizer/tokenizer.h"

namespace pagemill {

struct TokenizerImpl {
  rust::Box<bridge::TextTokenizer> rust;
  bridge::TokenizerInfo info;
  std::string chat_template;
  std::string kind;
};

// An error of the bridge: the first letter of its text is the kind (bridge/src/error.rs).
Error error_from_bridge(const rust::Error& error);

inline rust::Slice<const std::uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// Runs `body`, which calls the bridge. Exceptions end here.
template <typename Body>
auto call_bridge(Body&& body) -> Result<decltype(body())> {
  try {
    return std::forward<Body>(body)();
  } catch (const rust::Error& error) {
    return error_from_bridge(error);
  }
}

}  // namespace pagemill
