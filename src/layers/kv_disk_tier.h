// KvDiskTier: KV blocks in a directory, one file each, named by what they hold.
//
// A file is a header (magic, key, group, size, SHA-256 of the contents) and the contents. It is
// written beside its place and renamed into it, so that readers see whole files; a file that was
// torn, cut or changed all the same fails its checksum, one of another model has another name. So
// whatever the directory holds, a load gives the bytes that were saved or says that it has none.
// Several processes may share a directory: each may read what the others wrote, and a file that one
// removes is a miss for the others.
//
// Writes are done by a thread of its own; the queue's bytes are bounded and what does not fit is
// dropped: this is a cache. One other thread calls the members.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"

namespace pagemill {

struct KvDiskTierStats {
  std::uint64_t saved_bytes = 0, loaded_bytes = 0;
  std::uint64_t dropped_saves = 0;  // blocks: the queue was full
  std::uint64_t failed_saves = 0;   // blocks: the disk refused them
  std::uint64_t broken_files = 0;   // found when loading, and removed
  double load_seconds = 0;
};

class KvDiskTier {
 public:
  struct StoredBlock {
    std::int32_t group = 0;
    Digest key;
  };

  // Makes the directory where it is missing and removes what killed writers left. kIo where that
  // fails or nothing can be written there; `path` in the message.
  static Result<std::unique_ptr<KvDiskTier>> open(std::string path,
                                                  std::size_t max_queued_bytes = 256u << 20);
  ~KvDiskTier();  // writes what is queued

  // The blocks whose files lie there, by time of writing, the oldest first.
  std::vector<StoredBlock> scan() const;

  // Copies the bytes and returns at once.
  void save(std::int32_t group, const Digest& key, std::span<const std::byte> bytes);
  // Whether `bytes` is now what was saved under the key. A block still queued is read from there.
  bool load(std::int32_t group, const Digest& key, std::span<std::byte> bytes);
  void forget(std::int32_t group, const Digest& key);
  // Returns when everything queued has been written or dropped.
  void flush();

  KvDiskTierStats stats() const;

 private:
  struct Job {
    std::int32_t group = 0;
    Digest key;
    std::vector<std::byte> bytes;  // none: forget
    bool forgets = false;
  };

  KvDiskTier(std::string path, std::size_t max_queued_bytes);
  void write_loop();
  void carry_out(const Job& job);
  bool write_file(const Job& job);
  bool read_file(std::int32_t group, const Digest& key, std::span<std::byte> bytes);
  std::string file_of(std::int32_t group, const Digest& key) const;

  const std::string path_;
  const std::size_t max_queued_bytes_;
  const std::uint32_t token_;    // in the names of temporary files: processes may share a pid
  std::uint64_t num_begun_ = 0;  // files: the writer's
  double retry_at_ = 0;          // no writes before: the writer's

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Job> queue_;  // the first is being carried out
  std::size_t queued_bytes_ = 0;
  bool stopping_ = false;
  KvDiskTierStats stats_;
  std::thread writer_;
};

}  // namespace pagemill
