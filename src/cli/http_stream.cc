#include "cli/http_stream.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>

namespace pagemill::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::size_t kMaxErrorBytes = 64 << 10;

using HttpRequest = http::request<http::string_body>;

HttpRequest make_request(http::verb verb,
                         const HttpUrl& url,
                         const std::string& path,
                         const std::string& api_key) {
  HttpRequest request(verb, url.path + path, 11);
  const bool is_v6 = url.host.find(':') != std::string::npos;
  request.set(http::field::host,
              fmt::format("{}:{}", is_v6 ? "[" + url.host + "]" : url.host, url.port));
  if (!api_key.empty()) request.set(http::field::authorization, "Bearer " + api_key);
  request.keep_alive(false);
  return request;
}

// A server may refuse a request before it has read all of it: its answer says why.
asio::awaitable<void> send(beast::tcp_stream& stream, const HttpRequest& request) {
  try {
    co_await http::async_write(stream, request, asio::use_awaitable);
  } catch (const beast::system_error& error) {
    const auto code = error.code();
    if (code != asio::error::broken_pipe && code != asio::error::connection_reset) throw;
  }
}

asio::awaitable<HttpAnswer> exchange(const HttpUrl& url,
                                     const HttpRequest& request,
                                     std::chrono::duration<double> timeout,
                                     const std::function<void(std::string_view)>& on_content) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  const auto restart_timer = [&] {
    stream.expires_after(std::chrono::ceil<std::chrono::milliseconds>(timeout));
  };
  asio::ip::tcp::resolver resolver(stream.get_executor());
  const auto found = co_await resolver.async_resolve(url.host, url.port, asio::use_awaitable);
  restart_timer();
  co_await stream.async_connect(found, asio::use_awaitable);
  co_await send(stream, request);

  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  restart_timer();
  co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
  HttpAnswer answer{static_cast<int>(parser.get().result_int()), {}};
  std::array<char, 16384> bytes;
  while (!parser.is_done()) {
    auto& body = parser.get().body();
    body.data = bytes.data();
    body.size = bytes.size();
    restart_timer();
    co_await http::async_read_some(stream, buffer, parser, asio::use_awaitable);
    const std::string_view content(bytes.data(), bytes.size() - body.size);
    if (answer.status == 200) {
      on_content(content);
    } else {
      answer.body.append(content, 0, kMaxErrorBytes - answer.body.size());
    }
  }
  co_return answer;
}

Result<HttpAnswer> run_exchange(const HttpUrl& url,
                                const HttpRequest& request,
                                double timeout_s,
                                const std::function<void(std::string_view)>& on_content) {
  asio::io_context context(1);
  HttpAnswer answer;
  std::exception_ptr failure;
  const auto done = [&](std::exception_ptr error, HttpAnswer result) {
    failure = std::move(error);
    answer = std::move(result);
  };
  asio::co_spawn(
      context, exchange(url, request, std::chrono::duration<double>(timeout_s), on_content), done);
  context.run();
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const beast::system_error& error) {
    return io_error(fmt::format("{}:{}: {}", url.host, url.port, error.code().message()));
  }
  return answer;
}

}  // namespace

Result<HttpUrl> parse_http_url(const std::string& text) {
  const auto bad = [&](const char* what) {
    return invalid_argument(
        fmt::format("'{}': {}; expected http://HOST[:PORT][/PATH]", text, what));
  };
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) return bad("TLS is not spoken here");
  if (!text.starts_with(kScheme)) return bad("no http URL");
  std::string_view rest = std::string_view(text).substr(kScheme.size());
  HttpUrl url;
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  url.path = rest.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  std::string_view authority = rest.substr(0, slash);
  std::size_t host_end = authority.find(':');
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos) return bad("the address's bracket doesn't close");
    url.host = authority.substr(1, close - 1);
    host_end = close + 1;
  } else {
    url.host = authority.substr(0, host_end);
  }
  authority = authority.substr(std::min(host_end, authority.size()));
  url.port = authority.empty() ? "80" : authority.substr(1);
  unsigned number = 0;
  const char* end = url.port.data() + url.port.size();
  const bool is_port = std::from_chars(url.port.data(), end, number).ptr == end && number > 0 &&
                       number < 65536 && (authority.empty() || authority[0] == ':');
  if (!is_port) return bad("the port is none");
  if (url.host.empty()) return bad("no host");
  return url;
}

void EventStream::take(std::string_view bytes,
                       const std::function<void(std::string_view data)>& on_event) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_ += c;
      continue;
    }
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("data:")) {  // OpenAI's events have one line each
      line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
      on_event(line);
    }
    line_.clear();
  }
}

Result<HttpAnswer> post_json(const HttpUrl& url,
                             const std::string& path,
                             const std::string& api_key,
                             const std::string& body,
                             double timeout_s,
                             const std::function<void(std::string_view)>& on_content) {
  HttpRequest request = make_request(http::verb::post, url, path, api_key);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::accept, "text/event-stream");
  request.body() = body;
  request.prepare_payload();
  return run_exchange(url, request, timeout_s, on_content);
}

Result<HttpAnswer> get(const HttpUrl& url,
                       const std::string& path,
                       const std::string& api_key,
                       double timeout_s,
                       const std::function<void(std::string_view)>& on_content) {
  return run_exchange(
      url, make_request(http::verb::get, url, path, api_key), timeout_s, on_content);
}

}  // namespace pagemill::cli
