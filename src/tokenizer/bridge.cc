#include "tokenizer/bridge.h"

namespace pagemill {

Error error_from_bridge(const rust::Error& error) {
  std::string_view text = error.what();
  ErrorCode code = ErrorCode::kInternal;
  switch (text.empty() ? '\0' : text.front()) {
    case 'A':
      code = ErrorCode::kInvalidArgument;
      break;
    case 'N':
      code = ErrorCode::kNotFound;
      break;
    case 'C':
      code = ErrorCode::kCorrupt;
      break;
    case 'U':
      code = ErrorCode::kUnsupported;
      break;
    case 'O':
      code = ErrorCode::kIo;
      break;
    default:
      break;
  }
  if (!text.empty()) text.remove_prefix(1);
  return {code, std::string(text), {}};
}

}  // namespace pagemill
