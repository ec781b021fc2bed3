// What tests/e2e/test_hub.py can't see of a download: its callbacks, cancelling, and answers that
// no sane server gives.
#include "hub/repo_download.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <mutex>
#include <thread>

#include "base/files_testing.h"
#include "base/sha256.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kCommit(40, 'c');
const RetryPolicy kQuick{.attempts = 3, .first_delay_s = 0.001, .max_delay_s = 0.001};

std::string sha256_hex(const std::string& text) {
  std::string hex;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  for (const std::uint8_t byte : Sha256().update({bytes, text.size()}).finish().bytes) {
    hex += fmt::format("{:02x}", byte);
  }
  return hex;
}

// Answers each request (its text) with what `answer` returns, a connection a request.
class LoopbackServer {
 public:
  explicit LoopbackServer(std::function<std::string(const std::string&)> answer)
      : answer_(std::move(answer)), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    PM_CHECK(bind(listener_, plain, size) == 0 && listen(listener_, 16) == 0 &&
             getsockname(listener_, plain, &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~LoopbackServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }

  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void serve() {
    for (int peer; (peer = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0; close(peer)) {
      std::string request;
      char buffer[4096];
      while (request.find("\r\n\r\n") == request.npos) {
        const ssize_t got = read(peer, buffer, sizeof buffer);
        if (got <= 0) break;
        request.append(buffer, static_cast<std::size_t>(got));
      }
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      const std::string answer = answer_(request);
      for (std::size_t sent = 0; sent < answer.size();) {
        const ssize_t n = send(peer, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
      }
    }
  }

  const std::function<std::string(const std::string&)> answer_;
  const int listener_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

std::string http(const std::string& status, const std::string& headers, const std::string& body) {
  return fmt::format("HTTP/1.1 {}\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n{}",
                     status,
                     headers,
                     body.size(),
                     body);
}

// A repository of one GGUF file.
class RepoDownloadTest : public testing::Test {
 protected:
  std::string answer(const std::string& request) {
    if (request.starts_with("GET /api/")) {
      return http(
          "200 OK",
          "",
          fmt::format(R"({{"sha": "{}", "siblings": [{{"rfilename": "x.gguf"}}]}})", kCommit));
    }
    if (request.starts_with("HEAD ")) {
      return fmt::format(
          "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"{}\"\r\nX-Linked-Size: {}"
          "\r\n\r\n",
          sha256_hex(content_),
          content_.size());
    }
    return file_(request);
  }

  // The file's bytes as an honest server sends them.
  std::string honest(const std::string& request) const {
    const std::size_t at = request.find("Range: bytes=");
    if (at == request.npos) return http("200 OK", "", content_);
    const std::size_t begin = std::stoul(request.substr(at + 13));
    const std::string range = fmt::format(
        "Content-Range: bytes {}-{}/{}\r\n", begin, content_.size() - 1, content_.size());
    return http("206 Partial Content", range, content_.substr(begin));
  }

  Result<std::string> download(const OnDownload& on_progress, const RetryPolicy& policy = kQuick) {
    HubSettings settings;
    settings.cache_dir = folder_.path();
    settings.endpoint = server_.url();
    return download_model(
        settings, {.repo = "org/x", .revision = "main", .wish = {}}, on_progress, policy);
  }
  Result<std::string> download() {
    return download([](const DownloadProgress&) { return true; });
  }

  std::vector<std::string> file_requests() const {
    std::vector<std::string> found;
    for (const std::string& request : server_.requests()) {
      if (request.starts_with("GET /org/x/resolve/")) found.push_back(request);
    }
    return found;
  }
  fs::path blob() const {
    return fs::path(folder_.path()) / "models--org--x/blobs" / sha256_hex(content_);
  }

  std::string content_ = std::string(3'000'000, 'x') + "end";
  std::function<std::string(const std::string&)> file_ = [this](const std::string& request) {
    return honest(request);
  };
  const TemporaryFolder folder_;
  LoopbackServer server_{[this](const std::string& request) { return answer(request); }};
};

TEST_F(RepoDownloadTest, ProgressGoesUpToTheEnd) {
  std::vector<DownloadProgress> seen;
  const auto path = download([&](const DownloadProgress& progress) {
    if (!progress.file.empty()) seen.push_back(progress);
    return true;
  });
  ASSERT_TRUE(path.ok()) << path.error().message;
  EXPECT_EQ(read_file(*path), content_);
  ASSERT_GE(seen.size(), 2u);
  EXPECT_EQ(seen.front().done_bytes, 0);
  EXPECT_TRUE(std::ranges::is_sorted(seen, {}, &DownloadProgress::done_bytes));
  EXPECT_EQ(std::ranges::count_if(seen, &DownloadProgress::finished), 1);
  EXPECT_TRUE(seen.back().finished);
  for (const DownloadProgress& progress : seen) {
    EXPECT_EQ(progress.total_bytes, static_cast<std::int64_t>(content_.size()));
  }
}

TEST_F(RepoDownloadTest, WhatACancelledDownloadBroughtIsKept) {
  // The connection breaks half way; the wait for the next attempt is where the user gives up.
  file_ = [this](const std::string& request) {
    return honest(request).substr(0, content_.size() / 2);
  };
  const auto has_come = [this] {
    std::error_code error;
    const auto size = fs::file_size(blob().string() + ".incomplete", error);
    return !error && size > 1'000'000;
  };
  const auto cancelled = download(
      [&](const DownloadProgress& progress) { return !progress.file.empty() || !has_come(); },
      {.attempts = 2, .first_delay_s = 60, .max_delay_s = 60});
  ASSERT_FALSE(cancelled.ok());
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(fs::exists(blob()));
  const auto kept = fs::file_size(blob().string() + ".incomplete");
  file_ = [this](const std::string& request) { return honest(request); };
  std::int64_t resumed = 0;
  const auto path = download([&](const DownloadProgress& progress) {
    if (!progress.file.empty() && !progress.finished) resumed = progress.resumed_bytes;
    return true;
  });
  ASSERT_TRUE(path.ok()) << path.error().message;
  EXPECT_EQ(resumed, static_cast<std::int64_t>(kept));
  EXPECT_THAT(file_requests().back(), HasSubstr(fmt::format("Range: bytes={}-", kept)));
  EXPECT_EQ(read_file(*path), content_);
}

TEST_F(RepoDownloadTest, AttemptsAreBounded) {
  file_ = [](const std::string&) { return http("503 Busy", "", ""); };
  const auto failed = download();
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(file_requests().size(), 3u);
}

TEST_F(RepoDownloadTest, TheWrongPartOfAFileIsNotAppended) {
  fs::create_directories(blob().parent_path());
  folder_.write("models--org--x/blobs/" + sha256_hex(content_) + ".incomplete", "xxx");
  file_ = [this](const std::string& request) {
    if (request.find("Range: ") == request.npos) return honest(request);
    return http("206 Partial Content", "Content-Range: bytes 0-2/9\r\n", "abc");
  };
  const auto path = download();
  ASSERT_TRUE(path.ok()) << path.error().message;
  EXPECT_EQ(read_file(*path), content_);
  EXPECT_EQ(file_requests().size(), 2u);
}

TEST_F(RepoDownloadTest, MoreThanTheFileIsRefused) {
  file_ = [this](const std::string&) { return http("200 OK", "", content_ + "more"); };
  const auto failed = download();
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(failed.error().message, HasSubstr("refused"));
  EXPECT_FALSE(fs::exists(blob()));
}

TEST_F(RepoDownloadTest, RedirectsLeadToWebServersOnlyAndEnd) {
  file_ = [](const std::string&) {
    return http("302 Found", "Location: file:///etc/passwd\r\n", "");
  };
  EXPECT_EQ(download().error().code, ErrorCode::kIo);
  EXPECT_EQ(file_requests().size(), 1u);
  file_ = [](const std::string&) { return http("302 Found", "Location: ?again\r\n", ""); };
  EXPECT_THAT(download().error().message, HasSubstr("too many redirects"));
}

TEST_F(RepoDownloadTest, AnEmptyFileNeedsNoRequest) {
  content_.clear();
  const auto path = download();
  ASSERT_TRUE(path.ok()) << path.error().message;
  EXPECT_EQ(read_file(*path), "");
  EXPECT_TRUE(file_requests().empty());
}

}  // namespace
}  // namespace pagemill
