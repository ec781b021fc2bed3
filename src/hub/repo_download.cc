#include "hub/repo_download.h"

#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/logging.h"
#include "hub/blob_download.h"
#include "hub/repo_cache.h"

namespace pagemill {
namespace {

Result<std::vector<std::string>> read_shards(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return io_error(fmt::format("{}: cannot read it", path));
  const std::string text = (std::ostringstream() << file.rdbuf()).str();
  return shards_of_index(text, path);
}

std::string path_of(const RepoCache& cache, const std::string& commit, const FileChoice& choice) {
  const std::string folder = cache.snapshot_dir(commit);
  return choice.gguf_file.empty() ? folder : folder + "/" + choice.gguf_file;
}

// The model as far as the cache has it: a path, or what is missing.
Result<std::string> find_cached(const RepoCache& cache, const RepoRequest& request) {
  const auto commit = cache.commit_of(request.revision);
  if (!commit) {
    return not_found(fmt::format("revision '{}' is not in the cache", request.revision));
  }
  PM_ASSIGN(const FileChoice choice,
            choose_files(cache.files(*commit), request.wish, cache.snapshot_dir(*commit)));
  if (!choice.shard_index.empty()) {
    PM_ASSIGN(const auto shards,
              read_shards(cache.snapshot_dir(*commit) + "/" + choice.shard_index));
    for (const std::string& shard : shards) {
      if (cache.has_file(*commit, shard)) continue;
      return not_found(
          fmt::format("{}: {} is not in the cache", cache.snapshot_dir(*commit), shard));
    }
  }
  return path_of(cache, *commit, choice);
}

// Whether a snapshot in the cache may stand in for what the Hub did not give.
bool may_use_cache(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kNotFound;
}

// `on_progress`, at most every 50 ms but for a file's first and last time: bytes come far more
// often.
OnDownload throttled(const OnDownload& on_progress) {
  return [&on_progress, last = 0.0](const DownloadProgress& progress) mutable {
    const bool is_edge = progress.finished ||
                         (!progress.file.empty() && progress.done_bytes == progress.resumed_bytes);
    const double now = monotonic_seconds();
    if (!is_edge && now - last < 0.05) return true;
    last = now;
    return on_progress(progress);
  };
}

class Downloader {
 public:
  Downloader(const HubSettings& settings,
             const RepoRequest& request,
             const OnDownload& on_progress,
             const RetryPolicy& policy)
      : request_(request),
        on_progress_(throttled(on_progress)),
        cache_(settings.cache_dir, request.repo),
        client_(settings, policy, [this] { return on_progress_({}); }) {}

  const RepoCache& cache() const { return cache_; }

  Result<std::string> run(int info_attempts) {
    PM_ASSIGN(const RepoInfo info,
              client_.repo_info(request_.repo, request_.revision, info_attempts));
    PM_ASSIGN(const FileChoice choice, choose_files(info.files, request_.wish, request_.repo));
    PM_TRY(fetch(info.commit, choice.files));
    if (!choice.shard_index.empty()) {
      PM_ASSIGN(const auto shards,
                read_shards(cache_.snapshot_dir(info.commit) + "/" + choice.shard_index));
      PM_TRY(fetch(info.commit, shards));
    }
    if (request_.revision != info.commit) {
      const Status status = cache_.set_commit(request_.revision, info.commit);
      if (!status.ok()) spdlog::warn("{}", status.error().message);  // a cache that is only read
    }
    if (!choice.gguf_file.empty()) spdlog::info("{}: {}", request_.repo, choice.gguf_file);
    return path_of(cache_, info.commit, choice);
  }

 private:
  // Learns all sizes first: what is refused, or too large for the disk, is known before the first
  // gigabyte has come.
  Status fetch(const std::string& commit, const std::vector<std::string>& names) {
    std::vector<RemoteFile> missing;
    for (const std::string& name : names) {
      if (cache_.has_file(commit, name)) continue;
      PM_ASSIGN(RemoteFile file, client_.file_info(request_.repo, commit, name));
      missing.push_back(std::move(file));
    }
    const BlobDownload download{client_, cache_, request_.repo, commit, on_progress_};
    PM_TRY(check_room(download, missing));
    for (const RemoteFile& file : missing) PM_TRY(download_blob(download, file));
    return ok_status();
  }

  const RepoRequest& request_;
  const OnDownload on_progress_;
  const RepoCache cache_;
  HubClient client_;
};

}  // namespace

Result<std::string> download_model(const HubSettings& settings,
                                   const RepoRequest& request,
                                   const OnDownload& on_progress,
                                   const RetryPolicy& policy) {
  Downloader downloader(settings, request, on_progress, policy);
  auto cached = find_cached(downloader.cache(), request);
  if (settings.offline) {
    if (cached.ok()) return cached;
    return not_found(
        fmt::format("{}: HF_HUB_OFFLINE is set, and the cache {} has not all of it: {}",
                    request.repo,
                    settings.cache_dir,
                    cached.error().message));
  }
  auto fetched = downloader.run(cached.ok() ? 1 : policy.attempts);
  if (fetched.ok() || !may_use_cache(fetched.error())) return fetched;
  if (cached.ok()) {
    spdlog::warn("{}; using {} from the cache", fetched.error().message, *cached);
    return cached;
  }
  Error error = std::move(fetched).error();
  if (error.code == ErrorCode::kUnavailable) {
    error.message +=
        fmt::format("; the cache {} has not all of {} either", settings.cache_dir, request.repo);
  }
  return error;
}

}  // namespace pagemill
