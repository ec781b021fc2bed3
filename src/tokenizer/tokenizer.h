// Tokenizer, incremental detokenizer and chat templates: the C++ face of the Rust bridge.
//
// A Tokenizer is immutable and may be used from any thread. None of these run on the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace pagemill {

struct TokenizerImpl;

class Tokenizer {
 public:
  // A Hugging Face directory: tokenizer.json, or vocab.json + merges.txt, or SentencePiece's
  // tokenizer.model; tokenizer_config.json and special_tokens_map.json where present.
  static Result<std::shared_ptr<const Tokenizer>> from_directory(const std::string& directory);
  // A GGUF file's own metadata (tokenizer.ggml.*): byte-level BPE or SentencePiece BPE.
  static Result<std::shared_ptr<const Tokenizer>> from_gguf(const std::string& path);
  ~Tokenizer();

  // `add_special_tokens`: as the tokenizer's post-processor says (BOS and the like). Special tokens
  // written in `text` are recognised.
  Result<std::vector<TokenId>> encode(std::string_view text, bool add_special_tokens) const;
  Result<std::string> decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

  // The token decoded alone, as bytes: for logprobs. May be half a character. Empty if out of
  // range.
  std::string token_bytes(TokenId id) const;
  // The vocabulary's own spelling ("Ġthe", "▁the", "<0x0A>"). Empty if out of range.
  std::string token_piece(TokenId id) const;
  std::optional<TokenId> token_to_id(std::string_view piece) const;
  bool is_special(TokenId id) const;

  std::int32_t vocab_size() const;  // ids are 0..vocab_size-1, added tokens included
  std::optional<TokenId> bos_token_id() const;
  std::optional<TokenId> eos_token_id() const;
  std::vector<TokenId> eos_token_ids() const;  // every token that ends a generation by default
  const std::string& chat_template() const;    // the file's own, empty if it has none
  const std::string& kind() const;             // "BPE (byte level)", for `pagemill inspect`

 private:
  friend class Detokenizer;
  friend class ChatTemplate;
  explicit Tokenizer(std::unique_ptr<TokenizerImpl> impl);
  std::unique_ptr<TokenizerImpl> impl_;
};

// Decodes one sequence token by token. Withholds incomplete UTF-8; the concatenation of all that it
// returns, finish() included, equals Tokenizer::decode of all tokens.
class Detokenizer {
 public:
  Detokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens);
  ~Detokenizer();
  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;

  // Text that became certain with this token; often empty inside a character.
  std::string push(TokenId id);
  // What was withheld, with U+FFFD for what never became a character.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A Jinja chat template (Hugging Face's conventions).
class ChatTemplate {
 public:
  // Compiles `source`; the error names the line.
  static Result<std::shared_ptr<const ChatTemplate>> compile(std::string source,
                                                             const Tokenizer& tokenizer);
  ~ChatTemplate();

  // `context_json`: {"messages": [...], "tools": ..., "add_generation_prompt": bool,
  // "continue_final_message": bool, ...chat_template_kwargs}. bos_token, eos_token and the like are
  // added from the tokenizer. An exception raised by the template is kInvalidArgument.
  Result<std::string> render(const std::string& context_json) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Built-in templates by name: "chatml", "llama2", "vicuna". Empty if unknown.
std::string_view builtin_chat_template(std::string_view name);

}  // namespace pagemill
