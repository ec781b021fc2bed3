// A byte-level tokenizer of 259 tokens for tests: id 0..255 is that byte, then the special tokens.
#pragma once

#include <memory>

#include "tokenizer/tokenizer.h"

namespace pagemill {

inline constexpr TokenId kTestEos = 256;      // <|endoftext|>
inline constexpr TokenId kTestImStart = 257;  // <|im_start|>
inline constexpr TokenId kTestImEnd = 258;    // <|im_end|>
inline constexpr std::int32_t kTestVocabSize = 259;

std::shared_ptr<const Tokenizer> make_test_tokenizer();
// ChatML; raises an exception for a message whose role is "refused".
std::shared_ptr<const ChatTemplate> make_test_chat_template(const Tokenizer& tokenizer);

}  // namespace pagemill
