// libFuzzer: the bodies of every POST endpoint. The first byte chooses the parser.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "server/endpoints/completion_protocol.h"
#include "server/endpoints/tokenize_protocol.h"

namespace pagemill {
namespace {

void parse_chat(std::string_view body) {
  const auto request = parse_chat_request(body, SamplingParams());
  if (!request.ok()) return;
  // What the template gets is JSON again.
  const std::string context = chat_template_context(*request);
  const auto again = JsonDocument::parse(context);
  PM_CHECK(again.ok() || again.error().message.find("nested") != std::string::npos,
           "template context: {}",
           again.error().message);
}

void run(std::uint8_t which, std::string_view body) {
  switch (which % 4) {
    case 0:
      (void)parse_completion_request(body, SamplingParams(), 64);
      return;
    case 1:
      parse_chat(body);
      return;
    case 2:
      (void)parse_tokenize_request(body);
      return;
    default:
      (void)parse_detokenize_request(body);
  }
}

}  // namespace
}  // namespace pagemill

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  pagemill::run(data[0], {reinterpret_cast<const char*>(data + 1), size - 1});
  return 0;
}
