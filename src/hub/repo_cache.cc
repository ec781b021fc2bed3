#include "hub/repo_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "base/logging.h"
#include "hub/download_progress.h"
#include "hub/repo_name.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

std::string folder_name(std::string id) {
  const std::size_t slash = id.find('/');
  if (slash != id.npos) id.replace(slash, 1, "--");
  return "models--" + id;
}

Status make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return system_error(path, "cannot make this folder", error.value());
  return ok_status();
}

std::optional<std::string> read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return (std::ostringstream() << file.rdbuf()).str();
}

// False where the lock's file was unlinked while we waited: another one may hold its successor.
bool is_current(int descriptor) {
  struct stat info {};
  return fstat(descriptor, &info) == 0 && info.st_nlink > 0;
}

}  // namespace

Error system_error(const std::string& path, std::string_view what, int error) {
  std::string message = fmt::format("{}: {}: {}", path, what, std::strerror(error));
  if (error == EACCES || error == EPERM || error == EROFS) {
    message += "; HF_HOME or HF_HUB_CACHE names another place for the cache";
  }
  return io_error(std::move(message));
}

RepoCache::RepoCache(const std::string& cache_dir, const std::string& repo_id)
    : repo_dir_(fs::path(cache_dir) / folder_name(repo_id)),
      locks_dir_(fs::path(cache_dir) / ".locks" / folder_name(repo_id)) {}

std::string RepoCache::snapshot_dir(const std::string& commit) const {
  return repo_dir_ + "/snapshots/" + commit;
}

std::string RepoCache::blob_path(const std::string& etag) const {
  return repo_dir_ + "/blobs/" + etag;
}

std::string RepoCache::incomplete_path(const std::string& etag) const {
  return blob_path(etag) + ".incomplete";
}

std::optional<std::string> RepoCache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  std::optional<std::string> commit = read_text(fs::path(repo_dir_) / "refs" / revision);
  if (!commit) return std::nullopt;
  while (!commit->empty() && std::isspace(static_cast<unsigned char>(commit->back())) != 0) {
    commit->pop_back();
  }
  return is_commit(*commit) ? commit : std::nullopt;
}

Status RepoCache::set_commit(const std::string& revision, const std::string& commit) const {
  if (commit_of(revision) == commit) return ok_status();
  const fs::path path = fs::path(repo_dir_) / "refs" / revision;
  PM_TRY(make_folder(path.parent_path()));
  const std::string temporary = fmt::format("{}.{}.tmp", path.string(), getpid());
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << commit;
  file.close();
  if (!file) return system_error(temporary, "cannot write it", errno);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return system_error(path, "cannot write it", errno);
  }
  return ok_status();
}

std::vector<std::string> RepoCache::files(const std::string& commit) const {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path root = snapshot_dir(commit);
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) names.push_back(it->path().lexically_relative(root));
  }
  return names;
}

bool RepoCache::has_file(const std::string& commit, const std::string& file) const {
  std::error_code error;
  return fs::is_regular_file(fs::path(snapshot_dir(commit)) / file, error);
}

Status RepoCache::make_folders(const std::string& commit, const std::string& file) const {
  PM_TRY(make_folder(fs::path(repo_dir_) / "blobs"));
  PM_TRY(make_folder(locks_dir_));
  return make_folder((fs::path(snapshot_dir(commit)) / file).parent_path());
}

Status RepoCache::link(const std::string& commit,
                       const std::string& file,
                       const std::string& etag) const {
  if (has_file(commit, file)) return ok_status();
  const fs::path path = fs::path(snapshot_dir(commit)) / file, blob = blob_path(etag);
  const fs::path target = blob.lexically_relative(path.parent_path());
  std::error_code ignored;
  fs::remove(path, ignored);  // a link that leads nowhere
  if (symlink(target.c_str(), path.c_str()) == 0) return ok_status();
  if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS) {
    return system_error(path, "cannot make this link", errno);
  }
  // A file system without links: as huggingface_hub does, the file itself.
  if (std::rename(blob.c_str(), path.c_str()) != 0) {
    return system_error(path, "cannot move the file here", errno);
  }
  return ok_status();
}

RepoCache::Lock::Lock(Lock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

RepoCache::Lock::~Lock() {
  if (descriptor_ >= 0) close(descriptor_);
}

Result<RepoCache::Lock> RepoCache::lock(const std::string& etag,
                                        const std::function<bool()>& on_wait) const {
  const std::string path = locks_dir_ + "/" + etag + ".lock";
  bool told = false;
  while (true) {
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (descriptor < 0) return system_error(path, "cannot open this lock", errno);
    Lock lock(descriptor);
    if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      if (is_current(descriptor)) return lock;
      continue;
    }
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) {
      spdlog::warn("{}: this file system has no locks: start no two downloads at once", path);
      return lock;
    }
    if (errno != EWOULDBLOCK && errno != EINTR) return system_error(path, "cannot lock it", errno);
    if (!told) spdlog::info("waiting for another process that downloads the same file ({})", path);
    told = true;
    if (!on_wait()) return download_cancelled();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace pagemill
