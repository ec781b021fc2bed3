#include "hub/web_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <utility>

#include "hub/download_progress.h"

namespace pagemill {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, UrlDeleter>;

Url parse_url(const std::string& text) {
  Url url(curl_url());
  PM_CHECK(url != nullptr, "curl_url");
  if (curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) return nullptr;
  return url;
}

std::string part_of(const Url& url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, flags) != CURLUE_OK) return {};
  std::string out = text;
  curl_free(text);
  return out;
}

const char* variable(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return nullptr;
}

Error transfer_error(CURLcode code, const WebRequest& request, double timeout_s) {
  const std::string url = printable_url(request.url);
  std::string message = fmt::format("{}: {}", url, curl_easy_strerror(code));
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      message = fmt::format(
          "{}: no answer for {} s (HF_HUB_DOWNLOAD_TIMEOUT sets how long to wait)", url, timeout_s);
      [[fallthrough]];
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return {ErrorCode::kUnavailable, std::move(message), {}};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      message += "; SSL_CERT_FILE names a file of certificates to trust";
      return io_error(std::move(message));
    default:
      return io_error(std::move(message));
  }
}

}  // namespace

struct WebClient::Curl {
  Curl() {
    static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
    PM_CHECK(kStarted == CURLE_OK, "curl_global_init: {}", curl_easy_strerror(kStarted));
    handle = curl_easy_init();
    PM_CHECK(handle != nullptr, "curl_easy_init");
  }
  ~Curl() { curl_easy_cleanup(handle); }
  Curl(const Curl&) = delete;
  Curl& operator=(const Curl&) = delete;

  template <typename T>
  void set(CURLoption option, T value) {
    const CURLcode code = curl_easy_setopt(handle, option, value);
    PM_CHECK(code == CURLE_OK, "curl option {}: {}", int{option}, curl_easy_strerror(code));
  }

  CURL* handle;
};

struct WebClient::Exchange {
  const WebRequest& request;
  const std::function<bool()>& keep_going;
  CURL* handle;
  WebResponse response;
  std::optional<Error> error;

  bool is_success() const { return response.status >= 200 && response.status < 300; }

  // A header line; a status line begins the headers anew (after a proxy's, or "100 Continue").
  void take_header(std::string_view line) {
    if (line.starts_with("HTTP/")) {
      response.headers.clear();
      return;
    }
    const std::size_t colon = line.find(':');
    if (colon == line.npos) return;
    response.headers[lower(trimmed(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
  }

  bool take_body(std::span<const std::uint8_t> data) {
    read_status();
    if (request.sink && is_success()) {
      Status status = request.sink(response, data);
      if (!status.ok()) error = std::move(status).error();
      return !error;
    }
    const std::size_t room =
        static_cast<std::size_t>(request.max_body_bytes) - response.body.size();
    if (data.size() > room && is_success()) {
      error = Error{ErrorCode::kTooLarge,
                    fmt::format("{}: an answer of more than {} bytes",
                                printable_url(request.url),
                                request.max_body_bytes),
                    {}};
      return false;
    }
    response.body.append(reinterpret_cast<const char*>(data.data()), std::min(room, data.size()));
    return true;
  }

  void read_status() {
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    response.status = static_cast<int>(status);
  }

  static std::size_t on_header(char* data, std::size_t, std::size_t size, void* self) {
    static_cast<Exchange*>(self)->take_header({data, size});
    return size;
  }
  static std::size_t on_body(char* data, std::size_t, std::size_t size, void* self) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(data);
    return static_cast<Exchange*>(self)->take_body({bytes, size}) ? size : CURL_WRITEFUNC_ERROR;
  }
  static int on_progress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const auto& keep_going = static_cast<Exchange*>(self)->keep_going;
    return keep_going && !keep_going() ? 1 : 0;
  }
};

const std::string& WebResponse::header(const std::string& name) const {
  static const std::string kNone;
  const auto it = headers.find(name);
  return it == headers.end() ? kNone : it->second;
}

WebClient::WebClient(double timeout_s) : curl_(std::make_unique<Curl>()), timeout_s_(timeout_s) {}

WebClient::~WebClient() = default;

void WebClient::prepare(const WebRequest& request, Exchange& exchange) {
  Curl& curl = *curl_;
  curl_easy_reset(curl.handle);  // the connections stay
  curl.set(CURLOPT_URL, request.url.c_str());
  curl.set(CURLOPT_PROTOCOLS_STR, "http,https");
  curl.set(CURLOPT_NOSIGNAL, 1L);
  curl.set(CURLOPT_USERAGENT, "pagemill");
  curl.set(CURLOPT_NOBODY, request.head ? 1L : 0L);
  curl.set(CURLOPT_CONNECTTIMEOUT_MS, std::lround(1e3 * timeout_s_));
  curl.set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl.set(CURLOPT_LOW_SPEED_TIME, std::lround(std::ceil(timeout_s_)));
  // Refused while libcurl holds the buffer of a transfer that failed; then it keeps that one's
  // size.
  curl_easy_setopt(curl.handle, CURLOPT_BUFFERSIZE, 256L << 10);
  if (!request.bearer_token.empty()) {
    curl.set(CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BEARER));
    curl.set(CURLOPT_XOAUTH2_BEARER, request.bearer_token.c_str());
  }
  if (request.range_begin > 0) {
    curl.set(CURLOPT_RANGE, fmt::format("{}-", request.range_begin).c_str());
  }
  if (const char* file = variable({"SSL_CERT_FILE", "CURL_CA_BUNDLE"})) {
    curl.set(CURLOPT_CAINFO, file);
  }
  if (const char* folder = variable({"SSL_CERT_DIR"})) {
    curl_easy_setopt(curl.handle, CURLOPT_CAPATH, folder);  // not every TLS library takes one
  }
  curl.set(CURLOPT_HEADERFUNCTION, &Exchange::on_header);
  curl.set(CURLOPT_HEADERDATA, &exchange);
  curl.set(CURLOPT_WRITEFUNCTION, &Exchange::on_body);
  curl.set(CURLOPT_WRITEDATA, &exchange);
  curl.set(CURLOPT_NOPROGRESS, 0L);
  curl.set(CURLOPT_XFERINFOFUNCTION, &Exchange::on_progress);
  curl.set(CURLOPT_XFERINFODATA, &exchange);
}

Result<WebResponse> WebClient::send(const WebRequest& request) {
  Exchange exchange{request, keep_going_, curl_->handle, {}, std::nullopt};
  prepare(request, exchange);
  const CURLcode code = curl_easy_perform(curl_->handle);
  if (exchange.error) return *std::move(exchange.error);
  if (code == CURLE_ABORTED_BY_CALLBACK) {
    return download_cancelled();
  }
  if (code != CURLE_OK) return transfer_error(code, request, timeout_s_);
  exchange.read_status();
  const char* redirect = nullptr;
  curl_easy_getinfo(curl_->handle, CURLINFO_REDIRECT_URL, &redirect);
  if (redirect != nullptr) exchange.response.redirect_url = redirect;
  return std::move(exchange.response);
}

std::string printable_url(const std::string& url) {
  const Url parsed = parse_url(url);
  if (parsed == nullptr) return "(a malformed URL)";
  return origin_of(url) + part_of(parsed, CURLUPART_PATH);
}

std::string origin_of(const std::string& url) {
  const Url parsed = parse_url(url);
  if (parsed == nullptr) return {};
  return fmt::format("{}://{}:{}",
                     part_of(parsed, CURLUPART_SCHEME),
                     lower(part_of(parsed, CURLUPART_HOST)),
                     part_of(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT));
}

}  // namespace pagemill
