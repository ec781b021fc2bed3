// /tokenize and /detokenize: what their requests look like.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/endpoints/chat_protocol.h"

namespace pagemill {

struct TokenizeRequest {
  std::string model;
  std::string prompt;
  bool has_messages = false;  // then `chat` is what to render
  ChatRequest chat;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;
  std::vector<TokenId> tokens;
  bool skip_special_tokens = false;
};

Result<TokenizeRequest> parse_tokenize_request(std::string_view body);
Result<DetokenizeRequest> parse_detokenize_request(std::string_view body);

}  // namespace pagemill
