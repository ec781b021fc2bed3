// The endpoints, one file each; endpoints.cc lists them.
#pragma once

#include "server/router.h"

namespace pagemill {

extern const Endpoint kCompletions;
extern const Endpoint kChatCompletions;
extern const Endpoint kModels;
extern const Endpoint kModel;
extern const Endpoint kTokenize;
extern const Endpoint kDetokenize;
extern const Endpoint kHealth;
extern const Endpoint kVersion;
extern const Endpoint kMetrics;
extern const Endpoint kResetPrefixCache;

}  // namespace pagemill
