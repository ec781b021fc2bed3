// One file of a repository into the cache: resumed, verified, and there whole or not at all.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "hub/download_progress.h"
#include "hub/hub_client.h"
#include "hub/repo_cache.h"

namespace pagemill {

struct BlobDownload {
  HubClient& client;
  const RepoCache& cache;
  const std::string& repo;
  const std::string& commit;
  const OnDownload& on_progress;
};

// kIo unless the disk has room for what is missing of the files.
Status check_room(const BlobDownload& download, const std::vector<RemoteFile>& files);

// Makes `file` part of the snapshot of the commit, from the blob that is there or from the Hub. The
// bytes go to blobs/ETAG.incomplete, from its end on if an earlier attempt left one; bytes that
// turn out wrong are thrown away and fetched again, twice. kIo for the disk, with the path;
// kUnavailable when all attempts failed; kCorrupt if the bytes were never right; kCancelled.
Status download_blob(const BlobDownload& download, const RemoteFile& file);

}  // namespace pagemill
