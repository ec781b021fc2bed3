#include "hub/blob_download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/logging.h"
#include "hub/content_check.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr int kWrongContents = 3;  // times that wrong bytes are fetched before giving up
constexpr std::size_t kReadBytes = 1 << 20;

bool is_whole(const std::string& path, std::int64_t size) {
  std::error_code error;
  return fs::is_regular_file(path, error) &&
         fs::file_size(path, error) == static_cast<std::uintmax_t>(size);
}

Error full_disk(const std::string& path, std::int64_t needed) {
  return io_error(
      fmt::format("{}: the disk is full: {} more are needed; HF_HOME or HF_HUB_CACHE "
                  "names another place for the cache",
                  path,
                  human_bytes(needed)));
}

// For errno, while `needed` bytes are still to come.
Error disk_error(const std::string& path, std::string_view what, std::int64_t needed) {
  if (errno == ENOSPC || errno == EDQUOT) return full_disk(path, needed);
  return system_error(path, what, errno);
}

// The file ETAG.incomplete. Written at explicit offsets and replaced, never truncated: where a file
// system's locks do nothing, two processes write the same bytes to the same places.
class IncompleteFile {
 public:
  IncompleteFile(std::string path, const RemoteFile& remote)
      : path_(std::move(path)), remote_(remote), check_(remote.etag, remote.size) {}
  ~IncompleteFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  IncompleteFile(const IncompleteFile&) = delete;
  IncompleteFile& operator=(const IncompleteFile&) = delete;

  std::int64_t size() const { return size_; }

  // Opens what an earlier attempt left, or a new file.
  Status open() {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat info {};
    if (descriptor_ < 0 || fstat(descriptor_, &info) != 0) {
      return disk_error(path_, "cannot open it", remote_.size);
    }
    if (info.st_size > remote_.size) return start_over();
    return read_back(info.st_size);
  }

  Status start_over() {
    if (descriptor_ >= 0) close(descriptor_);
    unlink(path_.c_str());
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) return disk_error(path_, "cannot open it", remote_.size);
    size_ = 0;
    check_ = ContentCheck(remote_.etag, remote_.size);
    return ok_status();
  }

  Status append(std::span<const std::uint8_t> data) {
    if (size_ + static_cast<std::int64_t>(data.size()) > remote_.size) {
      return corrupt(
          fmt::format("{}: more than the expected {} bytes", remote_.name, remote_.size));
    }
    check_.update(data);
    while (!data.empty()) {
      const ssize_t written = pwrite(descriptor_, data.data(), data.size(), size_);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return disk_error(path_, "cannot write", remote_.size - size_);
      size_ += written;
      data = data.subspan(static_cast<std::size_t>(written));
    }
    return ok_status();
  }

  Status verify() { return check_.finish(remote_.name); }

  // Once verified.
  Status become(const std::string& blob) {
    if (fdatasync(descriptor_) != 0) return disk_error(path_, "cannot write", 0);
    if (std::rename(path_.c_str(), blob.c_str()) != 0 && !is_whole(blob, remote_.size)) {
      return disk_error(blob, "cannot rename the file to this", 0);
    }
    return ok_status();
  }

 private:
  Status read_back(std::int64_t size) {
    std::vector<std::uint8_t> buffer(kReadBytes);
    while (size_ < size) {
      const ssize_t got = pread(descriptor_, buffer.data(), buffer.size(), size_);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return start_over();
      check_.update({buffer.data(), static_cast<std::size_t>(got)});
      size_ += got;
    }
    return ok_status();
  }

  const std::string path_;
  const RemoteFile& remote_;
  ContentCheck check_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

// The first bytes of an answer to "from `begin` on": may they be appended?
Status check_begin(const WebResponse& head, std::int64_t begin, IncompleteFile& out) {
  if (head.status != 206) return begin == 0 ? ok_status() : out.start_over();
  const std::string& range = head.header("content-range");
  if (range.starts_with(fmt::format("bytes {}-", begin))) return ok_status();
  return corrupt(fmt::format("asked for the bytes from {} on, got '{}'", begin, range));
}

// One request for the bytes that are still missing.
Status fetch_rest(const BlobDownload& download,
                  const RemoteFile& file,
                  std::int64_t resumed,
                  IncompleteFile& out) {
  const std::int64_t begin = out.size();
  bool is_first = true;
  const BodySink sink = [&](const WebResponse& head, std::span<const std::uint8_t> data) -> Status {
    if (is_first) PM_TRY(check_begin(head, begin, out));
    is_first = false;
    PM_TRY(out.append(data));
    const bool go_on =
        download.on_progress({file.name, std::min(resumed, out.size()), out.size(), file.size});
    return go_on ? ok_status() : download_cancelled();
  };
  PM_TRY(download.client.fetch(download.repo, download.commit, file.name, begin, sink));
  if (out.size() == file.size) return ok_status();
  return Error{ErrorCode::kUnavailable,
               fmt::format("{}: the server sent {} of {} bytes", file.name, out.size(), file.size),
               {}};
}

// Attempts until the file has all its bytes. One that got further than any before does not count.
Status fill(const BlobDownload& download, const RemoteFile& file, IncompleteFile& out) {
  const std::int64_t resumed = out.size();
  if (!download.on_progress({file.name, resumed, resumed, file.size})) return download_cancelled();
  std::int64_t furthest = resumed;
  int attempt = 0;
  while (out.size() < file.size) {
    Status status = fetch_rest(download, file, resumed, out);
    if (status.ok()) return status;
    if (status.error().code != ErrorCode::kUnavailable) return status;
    if (out.size() > furthest) attempt = 0;
    furthest = std::max(furthest, out.size());
    if (attempt + 1 >= download.client.policy().attempts) return status;
    PM_TRY(download.client.wait_before_retry(attempt++, status.error()));
  }
  return ok_status();
}

Status fetch_verified(const BlobDownload& download, const RemoteFile& file) {
  IncompleteFile out(download.cache.incomplete_path(file.etag), file);
  PM_TRY(out.open());
  const std::string blob = download.cache.blob_path(file.etag);
  for (int wrong = 1;; ++wrong) {
    Status status = fill(download, file, out);
    if (status.ok()) status = out.verify();
    if (status.ok()) break;
    if (status.error().code != ErrorCode::kCorrupt) return status;
    PM_TRY(out.start_over());
    if (wrong == kWrongContents) {
      return corrupt(fmt::format("{}; refused after {} attempts", status.error().message, wrong));
    }
    spdlog::warn("{}: thrown away, fetched again", status.error().message);
  }
  PM_TRY(out.become(blob));
  download.on_progress({file.name, 0, file.size, file.size, true});
  return ok_status();
}

}  // namespace

Status check_room(const BlobDownload& download, const std::vector<RemoteFile>& files) {
  std::int64_t needed = 0;
  for (const RemoteFile& file : files) {
    const std::string blob = download.cache.blob_path(file.etag);
    if (is_whole(blob, file.size)) continue;
    std::error_code error;
    const auto here = fs::file_size(download.cache.incomplete_path(file.etag), error);
    needed += file.size - (error ? 0 : std::min(file.size, static_cast<std::int64_t>(here)));
  }
  if (needed == 0) return ok_status();
  PM_TRY(download.cache.make_folders(download.commit, files.front().name));
  const fs::path folder = fs::path(download.cache.blob_path("x")).parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= static_cast<std::uintmax_t>(needed)) return ok_status();
  return full_disk(folder, needed - static_cast<std::int64_t>(space.available));
}

Status download_blob(const BlobDownload& download, const RemoteFile& file) {
  PM_TRY(download.cache.make_folders(download.commit, file.name));
  PM_ASSIGN(const RepoCache::Lock lock,
            download.cache.lock(file.etag, [&] { return download.on_progress({}); }));
  if (!is_whole(download.cache.blob_path(file.etag), file.size)) {
    PM_TRY(fetch_verified(download, file));
  }
  return download.cache.link(download.commit, file.name, file.etag);
}

}  // namespace pagemill
