#include "tokenizer/bridge.h"

namespace pagemill {

struct Detokenizer::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  rust::Box<bridge::TokenStream> stream;
};

Detokenizer::Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : state_(new State{std::move(tokenizer), bridge::new_stream(skip_special_tokens)}) {}
Detokenizer::~Detokenizer() = default;
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;

std::string Detokenizer::push(TokenId id) {
  auto text = call_bridge([&] {
    return std::string(bridge::stream_push(*state_->stream, *state_->tokenizer->impl_->rust, id));
  });
  return text.ok() ? *std::move(text) : std::string();
}

std::string Detokenizer::finish() {
  auto text = call_bridge([&] {
    return std::string(bridge::stream_finish(*state_->stream, *state_->tokenizer->impl_->rust));
  });
  return text.ok() ? *std::move(text) : std::string();
}

}  // namespace pagemill
