// libFuzzer: HTTP bytes, whole and in pieces. How they arrive must not change what they mean.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "server/http_parser.h"

namespace pagemill {
namespace {

// A summary of every request in `bytes`, fed `step` at a time.
std::string parse_all(std::string_view bytes, std::size_t step) {
  const HttpLimits limits{2048, 4096};
  std::string summary, input;
  HttpParser parser(limits);
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t size = std::min(step, bytes.size() - at);
    input.append(bytes.substr(at, size));
    at += size;
    for (;;) {
      const std::size_t taken = parser.feed(input);
      PM_CHECK(taken <= input.size(), "took {} of {}", taken, input.size());
      input.erase(0, taken);
      if (parser.state() == HttpParser::State::kError) {
        return summary + "error";
      }
      if (parser.state() == HttpParser::State::kDone) {
        const HttpRequest request = parser.take();
        PM_CHECK(request.body.size() <= limits.max_body_bytes, "{}", request.body.size());
        summary +=
            request.method + " " + request.path + "?" + request.query + " " + request.body + "\n";
        parser = HttpParser(limits);
        continue;
      }
      if (taken == 0) break;
    }
  }
  return summary;
}

}  // namespace
}  // namespace pagemill

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string whole = pagemill::parse_all(bytes, size + 1);
  const std::string pieces = pagemill::parse_all(bytes, 7);
  // A limit may be noticed earlier or later; where both parsed to the end they agree.
  const bool failed = whole.ends_with("error") || pieces.ends_with("error");
  PM_CHECK(failed || whole == pieces, "whole and piecewise parses differ");
  return 0;
}
