#include "server/endpoints/endpoints.h"

namespace pagemill {

std::span<const Endpoint* const> endpoints() {
  static constexpr const Endpoint* kAll[] = {
      &kCompletions,
      &kChatCompletions,
      &kModels,
      &kModel,
      &kTokenize,
      &kDetokenize,
      &kHealth,
      &kVersion,
      &kMetrics,
      &kResetPrefixCache,
  };
  return kAll;
}

}  // namespace pagemill
