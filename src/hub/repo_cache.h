// One repository in the cache that the huggingface_hub Python package keeps:
//
//   CACHE/models--org--name/refs/main                       the commit of a branch or tag
//   CACHE/models--org--name/snapshots/COMMIT/config.json -> ../../blobs/ETAG
//   CACHE/models--org--name/blobs/ETAG                      (ETAG.incomplete while it is fetched)
//   CACHE/.locks/models--org--name/ETAG.lock                held (flock) while it is fetched
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace pagemill {

class RepoCache {
 public:
  RepoCache(const std::string& cache_dir, const std::string& repo_id);

  std::string snapshot_dir(const std::string& commit) const;
  std::string blob_path(const std::string& etag) const;
  std::string incomplete_path(const std::string& etag) const;

  // The commit that a revision was when it was last fetched; a commit is itself.
  std::optional<std::string> commit_of(const std::string& revision) const;
  Status set_commit(const std::string& revision, const std::string& commit) const;

  // Paths below snapshot_dir(commit) of the files that are there, links that lead nowhere left out.
  std::vector<std::string> files(const std::string& commit) const;
  bool has_file(const std::string& commit, const std::string& file) const;

  // Makes the folders for a blob and for `file` of a snapshot.
  Status make_folders(const std::string& commit, const std::string& file) const;
  // Makes `file` of the snapshot the blob. The blob's lock must be held.
  Status link(const std::string& commit, const std::string& file, const std::string& etag) const;

  // Holds the lock of a blob until it is destroyed; other processes, Python's too, wait.
  class Lock {
   public:
    Lock(Lock&& other) noexcept;
    Lock& operator=(Lock&&) = delete;
    ~Lock();

   private:
    friend class RepoCache;
    explicit Lock(int descriptor) : descriptor_(descriptor) {}
    int descriptor_;
  };
  // Waits for the lock. While it does, `on_wait` is called about ten times a second; false gives up
  // (kCancelled).
  Result<Lock> lock(const std::string& etag, const std::function<bool()>& on_wait) const;

 private:
  const std::string repo_dir_;
  const std::string locks_dir_;
};

// "PATH: what: the system's reason", for errno.
Error system_error(const std::string& path, std::string_view what, int error);

}  // namespace pagemill
