// Messages to prompt tokens, for /v1/chat/completions and /tokenize.
#pragma once

#include <vector>

#include "server/endpoints/chat_protocol.h"
#include "server/server_context.h"

namespace pagemill {

// Renders the model's chat template and tokenises it. kInvalidArgument where the model has no
// template or the template raises an exception.
Result<std::vector<TokenId>> render_chat_tokens(const ServerContext& context,
                                                const ChatRequest& request);

}  // namespace pagemill
