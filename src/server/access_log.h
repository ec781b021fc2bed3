// The access log: one line for each HTTP request, written once, after the last byte of its answer.
#pragma once

#include <cstddef>
#include <string>

#include "server/http_types.h"

namespace pagemill {

struct AccessRecord {
  std::string client;            // "127.0.0.1:50712"
  std::string request = "-";     // "POST /v1/completions HTTP/1.1", without the query; "-": no HTTP
  std::string request_id = "-";  // of its X-Request-Id
  int status = 499;              // as nginx: the client left before the answer began
  std::size_t num_bytes = 0;     // sent, head and framing included
  double seconds = 0;            // from the request's last byte to the answer's
};

// What is known of a request before it is answered.
AccessRecord access_record(std::string client, const HttpRequest& request);

// 127.0.0.1:50712 "POST /v1/completions HTTP/1.1" 200 1234 0.153 my-id
std::string access_line(const AccessRecord& record);

}  // namespace pagemill
