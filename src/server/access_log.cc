#include "server/access_log.h"

#include <fmt/format.h>

namespace pagemill {
namespace {

// What a client chose freely, as one word of a line.
std::string word(std::string_view text) {
  constexpr std::size_t kMaxLength = 256;
  std::string out(text.substr(0, kMaxLength));
  for (char& c : out) {
    if (c <= ' ' || c > '~' || c == '"' || c == '\\') c = '?';
  }
  if (text.size() > kMaxLength) out += "...";
  return out.empty() ? "-" : out;
}

}  // namespace

AccessRecord access_record(std::string client, const HttpRequest& request) {
  AccessRecord record;
  record.client = std::move(client);
  record.request = fmt::format(
      "{} {} HTTP/1.{}", word(request.method), word(request.path), request.http_1_1 ? 1 : 0);
  record.request_id = word(request.header("x-request-id"));
  return record;
}

std::string access_line(const AccessRecord& record) {
  return fmt::format("{} \"{}\" {} {} {:.3f} {}",
                     record.client,
                     record.request,
                     record.status,
                     record.num_bytes,
                     record.seconds,
                     record.request_id);
}

}  // namespace pagemill
