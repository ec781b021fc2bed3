#include "server/http_parser.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <cctype>
#include <optional>

namespace pagemill {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

// A chunk's header or the trailers may not be longer than this.
constexpr std::size_t kMaxChunkHeaderBytes = 8u << 10;

// Like string_body, but grows with what arrives: never reserves what a header claims.
struct GrowingBody {
  using value_type = std::string;
  class reader {  // NOLINT(readability-identifier-naming): the name that Beast looks for
   public:
    template <bool is_request, class Fields>
    reader(http::header<is_request, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<std::uint64_t>&, beast::error_code& ec) { ec = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& buffers, beast::error_code& ec) {
      std::size_t size = 0;
      const auto end = boost::asio::buffer_sequence_end(buffers);
      for (auto it = boost::asio::buffer_sequence_begin(buffers); it != end; ++it) {
        const boost::asio::const_buffer part(*it);
        body_.append(static_cast<const char*>(part.data()), part.size());
        size += part.size();
      }
      ec = {};
      return size;
    }
    void finish(beast::error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};

using Parser = http::request_parser<GrowingBody>;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

HttpParseError from_beast(beast::error_code ec, const HttpLimits& limits) {
  if (ec == http::error::body_limit) {
    return {413,
            fmt::format("request body: larger than the limit of {} bytes", limits.max_body_bytes)};
  }
  if (ec == http::error::header_limit) {
    return {431, fmt::format("request head: larger than {} bytes", limits.max_header_bytes)};
  }
  if (ec == http::error::bad_version) return {505, "HTTP version: expected HTTP/1.0 or HTTP/1.1"};
  return {400, fmt::format("malformed HTTP request: {}", ec.message())};
}

// Beast accepts several equal Content-Length fields and any transfer coding; proxies don't agree on
// what those mean, so we don't.
std::optional<HttpParseError> check_framing(const Parser::value_type& message) {
  const auto lengths = message.count(http::field::content_length);
  const auto codings = message.count(http::field::transfer_encoding);
  if (lengths > 0 && codings > 0) {
    return HttpParseError{400, "both Content-Length and Transfer-Encoding were given"};
  }
  if (lengths > 1) return HttpParseError{400, "Content-Length was given more than once"};
  if (codings > 1) return HttpParseError{400, "Transfer-Encoding was given more than once"};
  if (lengths == 1) {
    const std::string_view value = view(message[http::field::content_length]);
    if (value.empty() || value.find_first_not_of("0123456789") != std::string_view::npos) {
      return HttpParseError{400, "Content-Length: expected digits only"};
    }
  }
  if (codings == 1) {
    if (lower(view(message[http::field::transfer_encoding])) != "chunked") {
      return HttpParseError{501, "Transfer-Encoding: only chunked is supported"};
    }
    if (message.version() < 11) return HttpParseError{400, "Transfer-Encoding needs HTTP/1.1"};
  }
  if (message.version() >= 11 && message.count(http::field::host) != 1) {
    return HttpParseError{400, "Host: expected exactly one"};
  }
  if (message.count(http::field::expect) > 0 &&
      lower(view(message[http::field::expect])) != "100-continue") {
    return HttpParseError{417, "Expect: only 100-continue is supported"};
  }
  return std::nullopt;
}

// "/v1/models?x", "http://host/v1/models" or "*".
bool split_target(std::string_view target, HttpRequest& out) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) != scheme) continue;
    const std::size_t slash = target.find('/', scheme.size());
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  if (target.empty() || (target[0] != '/' && target != "*")) return false;
  const std::size_t question = target.find('?');
  out.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) out.query = std::string(target.substr(question + 1));
  return true;
}

}  // namespace

std::size_t scan_http_head(std::string_view input, std::size_t& resume, std::string& problem) {
  for (std::size_t i = resume; i < input.size(); ++i) {
    const char c = input[i];
    if (c == '\0') problem = "NUL byte in the head";
    if (c == '\n' && (i == 0 || input[i - 1] != '\r')) problem = "bare LF in the head";
    if (i > 0 && input[i - 1] == '\r' && c != '\n') problem = "bare CR in the head";
    const bool line_start = i > 1 && input[i - 1] == '\n';
    if (line_start && (c == ' ' || c == '\t')) problem = "folded header line";
    if (c == ':' && i > 0 && (input[i - 1] == ' ' || input[i - 1] == '\t')) {
      // Only before the first colon of a header line, not in the request line or in values.
      const std::size_t line = input.rfind('\n', i);
      if (line != std::string_view::npos && input.find(':', line) == i) {
        problem = "space before a header's colon";
      }
    }
    if (!problem.empty()) return 0;
    if (c == '\n' && i >= 3 && input.substr(i - 3, 4) == "\r\n\r\n") return i + 1;
  }
  resume = input.size();
  return 0;
}

struct HttpParser::Impl {
  explicit Impl(const HttpLimits& limits) : limits(limits) {
    parser.eager(true);
    // The head was bounded before it got here, by our own count.
    parser.header_limit(static_cast<std::uint32_t>(limits.max_header_bytes + 1024));
    parser.body_limit(limits.max_body_bytes);
  }

  void fail(HttpParseError problem) {
    state = State::kError;
    error = std::move(problem);
  }

  std::size_t feed_head(std::string_view input) {
    std::size_t blank = 0;  // empty lines before a request line are forgiven (RFC 9112, 2.2)
    while (blank < 4 && input.substr(blank, 2) == "\r\n") blank += 2;
    if (blank > 0) {
      resume = 0;
      return blank;
    }
    std::string problem;
    const std::size_t size = scan_http_head(input, resume, problem);
    if (!problem.empty()) {
      fail({400, "malformed HTTP request: " + problem});
      return 0;
    }
    if (size > limits.max_header_bytes || (size == 0 && input.size() > limits.max_header_bytes)) {
      fail({431, fmt::format("request head: larger than {} bytes", limits.max_header_bytes)});
      return 0;
    }
    if (size == 0) return 0;
    put(input.substr(0, size));
    if (state == State::kError) return 0;
    if (auto refused = check_framing(parser.get())) {
      fail(std::move(*refused));
      return 0;
    }
    HttpRequest scratch;
    if (!split_target(view(parser.get().target()), scratch)) {
      fail({400, "request target: expected a path that starts with '/'"});
      return 0;
    }
    state = parser.is_done() ? State::kDone : State::kBody;
    return size;
  }

  std::size_t feed_body(std::string_view input) {
    std::size_t taken = 0;
    while (taken < input.size() && state == State::kBody) {
      const std::size_t n = put(input.substr(taken));
      taken += n;
      if (state == State::kError) return taken;
      if (parser.is_done()) state = State::kDone;
      if (n == 0) break;
    }
    if (state == State::kBody && input.size() - taken > kMaxChunkHeaderBytes) {
      fail({400, "malformed HTTP request: chunk header or trailers too long"});
    }
    return taken;
  }

  std::size_t put(std::string_view bytes) {
    beast::error_code ec;
    const std::size_t n = parser.put(boost::asio::buffer(bytes.data(), bytes.size()), ec);
    if (ec && ec != http::error::need_more) fail(from_beast(ec, limits));
    return n;
  }

  HttpLimits limits;
  Parser parser;
  State state = State::kHead;
  HttpParseError error;
  std::size_t resume = 0;
};

HttpParser::HttpParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
HttpParser::~HttpParser() = default;
HttpParser::HttpParser(HttpParser&&) noexcept = default;
HttpParser& HttpParser::operator=(HttpParser&&) noexcept = default;

std::size_t HttpParser::feed(std::string_view input) {
  if (impl_->state == State::kHead) return impl_->feed_head(input);
  if (impl_->state == State::kBody) return impl_->feed_body(input);
  return 0;
}

HttpParser::State HttpParser::state() const { return impl_->state; }
const HttpParseError& HttpParser::error() const { return impl_->error; }

bool HttpParser::expects_continue() const {
  const auto& message = impl_->parser.get();
  return impl_->state == State::kBody && message.version() >= 11 &&
         message.count(http::field::expect) > 0;
}

HttpRequest HttpParser::take() {
  auto message = impl_->parser.release();
  HttpRequest request;
  request.method = std::string(view(message.method_string()));
  split_target(view(message.target()), request);
  for (const auto& field : message) {
    request.headers.emplace_back(lower(view(field.name_string())),
                                 std::string(view(field.value())));
  }
  request.http_1_1 = message.version() >= 11;
  request.keep_alive = message.keep_alive();
  request.has_length = message.count(http::field::content_length) > 0 ||
                       message.count(http::field::transfer_encoding) > 0;
  request.body = std::move(message.body());
  return request;
}

}  // namespace pagemill
