#include "hub/hub_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/logging.h"
#include "hub/download_progress.h"
#include "hub/repo_name.h"

namespace pagemill {
namespace {

using nlohmann::json;

constexpr int kMaxRedirects = 10;
constexpr std::int64_t kMaxInfoBytes = std::int64_t{64} << 20;
constexpr std::size_t kMaxEtag = 200;

// Percent-encoded, but for what `keep` has.
std::string escaped(std::string_view text, std::string_view keep = "") {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("-_.~").find(c) != std::string_view::npos ||
                       keep.find(c) != keep.npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

// W/"abc" and "abc" are abc.
std::string normalized_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  std::erase(etag, '"');
  return etag;
}

bool is_safe_etag(const std::string& etag) {
  return !etag.empty() && etag.size() <= kMaxEtag && etag.front() != '.' &&
         std::ranges::all_of(etag, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '-' || c == '_' || c == '.';
         });
}

bool may_pass(int status) { return status == 408 || status == 429 || status >= 500; }

}  // namespace

Result<RepoInfo> parse_repo_info(std::string_view text, const std::string& url) {
  const auto wrong = [&](std::string_view what) {
    return corrupt(fmt::format("{}: not the answer of a Hub: {}", url, what));
  };
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return wrong("no JSON object");
  const auto sha = document.find("sha"), siblings = document.find("siblings");
  if (sha == document.end() || !sha->is_string() ||
      !is_commit(sha->get_ref<const std::string&>())) {
    return wrong("expected 'sha', a commit");
  }
  if (siblings == document.end() || !siblings->is_array()) {
    return wrong("expected 'siblings', a list of files");
  }
  RepoInfo info{sha->get<std::string>(), {}};
  for (const json& sibling : *siblings) {
    const auto name = sibling.is_object() ? sibling.find("rfilename") : sibling.end();
    if (!sibling.is_object() || name == sibling.end() || !name->is_string()) {
      return wrong("expected a text 'rfilename' in each of 'siblings'");
    }
    const auto& file = name->get_ref<const std::string&>();
    if (!is_safe_file_name(file)) return wrong(fmt::format("'{}' is no path of a file", file));
    info.files.push_back(file);
  }
  return info;
}

HubClient::HubClient(const HubSettings& settings,
                     const RetryPolicy& policy,
                     std::function<bool()> keep_going)
    : settings_(settings),
      policy_(policy),
      keep_going_(std::move(keep_going)),
      web_(settings.timeout_s) {
  web_.set_keep_going(keep_going_);
}

Status HubClient::wait_before_retry(int attempt, const Error& error) {
  spdlog::warn("{}; trying again ({} of {})", error.message, attempt + 2, policy_.attempts);
  double delay = policy_.first_delay_s;
  for (int i = 0; i < attempt && delay < policy_.max_delay_s; ++i) delay *= 2;
  const double end = monotonic_seconds() + std::min(delay, policy_.max_delay_s);
  while (true) {
    const double left = end - monotonic_seconds();
    if (left <= 0) return ok_status();
    if (!keep_going_()) return download_cancelled();
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left, 0.1)));
  }
}

Result<HubClient::Answer> HubClient::follow(WebRequest request) {
  const std::string home = origin_of(settings_.endpoint);
  for (int i = 0; i < kMaxRedirects; ++i) {
    const std::string origin = origin_of(request.url);
    request.bearer_token = origin == home ? settings_.token : std::string();
    PM_ASSIGN(WebResponse response, web_.send(request));
    const bool leaves = origin_of(response.redirect_url) != home;
    if (!response.is_redirect() || (request.head && leaves)) {
      return Answer{std::move(response), request.url};
    }
    if (origin.starts_with("https:") && !response.redirect_url.starts_with("https:")) {
      return io_error(fmt::format("{}: it redirects to {}, which is not encrypted: refused",
                                  printable_url(request.url),
                                  printable_url(response.redirect_url)));
    }
    request.url = response.redirect_url;
  }
  return io_error(fmt::format("{}: too many redirects", printable_url(request.url)));
}

Error HubClient::refusal(const Answer& answer,
                         const std::string& repo,
                         const std::string& what) const {
  const int status = answer.response.status;
  const std::string& code = answer.response.header("x-error-code");
  const std::string& reason = answer.response.header("x-error-message");
  const std::string where =
      fmt::format("{} ({}: HTTP {})", repo, printable_url(answer.url), status);
  // What another host (a CDN) refuses is a link that has run out: asking again gives a new one.
  const bool elsewhere = origin_of(answer.url) != origin_of(settings_.endpoint);
  if (may_pass(status) || elsewhere) {
    return {ErrorCode::kUnavailable, fmt::format("{}: the server can't send {}", where, what), {}};
  }
  if (code == "RevisionNotFound") {
    return invalid_argument(
        fmt::format("{}: no such {}; expected a branch, a tag, a commit or refs/pr/N", where, what),
        "revision");
  }
  if (code == "EntryNotFound") return not_found(fmt::format("{}: no such {}", where, what));
  const std::string token_wish =
      settings_.token.empty()
          ? "set HF_TOKEN to a token that may read it"
          : fmt::format("the token from {} may not read it", settings_.token_source);
  if (code == "GatedRepo") {
    return not_found(fmt::format(
        "{}: the repository is gated: accept its licence at {}/{}, and {}",
        where,
        settings_.endpoint,
        repo,
        settings_.token.empty() ? "set HF_TOKEN to a token of that account" : token_wish + " yet"));
  }
  if (status == 401 || status == 403 || status == 404) {
    return not_found(
        fmt::format("{}: no such repository, or a private one: check the name; if it is "
                    "private or gated, {}{}{}",
                    where,
                    token_wish,
                    reason.empty() ? "" : ". The server says: ",
                    reason));
  }
  return io_error(fmt::format(
      "{}: it refuses to send {}{}{}", where, what, reason.empty() ? "" : ": ", reason));
}

Result<HubClient::Answer> HubClient::follow_with_retries(const WebRequest& request,
                                                         const std::string& repo,
                                                         const std::string& what,
                                                         int attempts) {
  for (int attempt = 0;; ++attempt) {
    auto answer = follow(request);
    if (answer.ok() && answer->response.status < 400) return answer;
    Error error = answer.ok() ? refusal(*answer, repo, what) : std::move(answer).error();
    if (error.code != ErrorCode::kUnavailable || attempt + 1 >= attempts) return error;
    PM_TRY(wait_before_retry(attempt, error));
  }
}

Result<RepoInfo> HubClient::repo_info(const std::string& repo,
                                      const std::string& revision,
                                      int attempts) {
  WebRequest request;
  request.url =
      fmt::format("{}/api/models/{}/revision/{}", settings_.endpoint, repo, escaped(revision));
  request.max_body_bytes = kMaxInfoBytes;
  const std::string what = fmt::format("revision '{}'", revision);
  PM_ASSIGN(const Answer answer,
            follow_with_retries(request, repo, what, std::min(attempts, policy_.attempts)));
  return parse_repo_info(answer.response.body, printable_url(answer.url));
}

Result<RemoteFile> HubClient::file_info(const std::string& repo,
                                        const std::string& commit,
                                        const std::string& file) {
  WebRequest request;
  request.url =
      fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repo, commit, escaped(file, "/"));
  request.head = true;
  const std::string what = fmt::format("file '{}'", file);
  PM_ASSIGN(const Answer answer, follow_with_retries(request, repo, what, policy_.attempts));
  const WebResponse& response = answer.response;
  const std::string& linked_etag = response.header("x-linked-etag");
  const std::string& linked_size = response.header("x-linked-size");
  const std::string size = !linked_size.empty()     ? linked_size
                           : response.is_redirect() ? ""
                                                    : response.header("content-length");
  RemoteFile found;
  found.name = file;
  found.etag = normalized_etag(linked_etag.empty() ? response.header("etag") : linked_etag);
  const auto parsed = std::from_chars(size.data(), size.data() + size.size(), found.size);
  if (!is_safe_etag(found.etag) || size.empty() || parsed.ptr != size.data() + size.size() ||
      found.size < 0) {
    return corrupt(
        fmt::format("{}: not the answer of a Hub: expected an ETag and a size, got '{}' and '{}' "
                    "(is a proxy in "
                    "between?)",
                    printable_url(answer.url),
                    found.etag,
                    size));
  }
  return found;
}

Status HubClient::fetch(const std::string& repo,
                        const std::string& commit,
                        const std::string& file,
                        std::int64_t offset,
                        const BodySink& sink) {
  WebRequest request;
  request.url =
      fmt::format("{}/{}/resolve/{}/{}", settings_.endpoint, repo, commit, escaped(file, "/"));
  request.range_begin = offset;
  request.sink = sink;
  PM_ASSIGN(const Answer answer, follow(request));
  const int status = answer.response.status;
  if (status == 200 || status == 206) return ok_status();
  if (status == 416) {
    return corrupt(
        fmt::format("{}: it has no more than {} bytes", printable_url(answer.url), offset));
  }
  return refusal(answer, repo, fmt::format("file '{}'", file));
}

}  // namespace pagemill
