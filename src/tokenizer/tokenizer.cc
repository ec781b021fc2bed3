#include "tokenizer/tokenizer.h"

#include "tokenizer/bridge.h"

namespace pagemill {
namespace {

std::optional<TokenId> optional_id(TokenId id) {
  return id < 0 ? std::nullopt : std::optional<TokenId>(id);
}

template <typename Load>
Result<std::unique_ptr<TokenizerImpl>> load(const std::string& path, Load load) {
  return call_bridge([&]() -> std::unique_ptr<TokenizerImpl> {
    rust::Str name;
    try {
      name = rust::Str(path);
    } catch (const std::invalid_argument&) {
      name = rust::Str("");  // not UTF-8: no such file for Rust
    }
    auto tokenizer = load(name);
    auto info = bridge::tokenizer_info(*tokenizer);
    std::string chat_template(info.chat_template);
    std::string kind(info.kind);
    return std::unique_ptr<TokenizerImpl>(new TokenizerImpl{
        std::move(tokenizer), std::move(info), std::move(chat_template), std::move(kind)});
  });
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<TokenizerImpl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_directory(const std::string& directory) {
  PM_ASSIGN(auto impl, load(directory, bridge::tokenizer_from_directory));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

Result<std::shared_ptr<const Tokenizer>> Tokenizer::from_gguf(const std::string& path) {
  PM_ASSIGN(auto impl, load(path, bridge::tokenizer_from_gguf));
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                               bool add_special_tokens) const {
  return call_bridge([&] {
    auto ids = bridge::encode(*impl_->rust, as_bytes(text), add_special_tokens);
    return std::vector<TokenId>(ids.begin(), ids.end());
  });
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids,
                                      bool skip_special_tokens) const {
  return call_bridge([&] {
    return std::string(bridge::decode(*impl_->rust, {ids.data(), ids.size()}, skip_special_tokens));
  });
}

std::string Tokenizer::token_bytes(TokenId id) const {
  auto bytes = call_bridge([&] {
    auto raw = bridge::token_bytes(*impl_->rust, id);
    return std::string(raw.begin(), raw.end());
  });
  return bytes.ok() ? *std::move(bytes) : std::string();
}

std::string Tokenizer::token_piece(TokenId id) const {
  auto piece = call_bridge([&] { return std::string(bridge::token_piece(*impl_->rust, id)); });
  return piece.ok() ? *std::move(piece) : std::string();
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view piece) const {
  auto id = call_bridge([&] { return bridge::token_to_id(*impl_->rust, as_bytes(piece)); });
  return id.ok() ? optional_id(*id) : std::nullopt;
}

bool Tokenizer::is_special(TokenId id) const {
  auto special = call_bridge([&] { return bridge::is_special(*impl_->rust, id); });
  return special.ok() && *special;
}

std::int32_t Tokenizer::vocab_size() const { return impl_->info.vocab_size; }

std::optional<TokenId> Tokenizer::bos_token_id() const {
  return optional_id(impl_->info.bos_token_id);
}

std::optional<TokenId> Tokenizer::eos_token_id() const {
  return optional_id(impl_->info.eos_token_id);
}

std::vector<TokenId> Tokenizer::eos_token_ids() const {
  return {impl_->info.eos_token_ids.begin(), impl_->info.eos_token_ids.end()};
}

const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }
const std::string& Tokenizer::kind() const { return impl_->kind; }

}  // namespace pagemill
