#include "layers/kv_disk_tier.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "base/clock.h"
#include "base/logging.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".kv", kTemporarySuffix = ".tmp";
// A temporary file older than this was left by a writer that was killed.
constexpr auto kStale = std::chrono::minutes(10);
// After a failed write (a full disk) the next is tried only then.
constexpr double kRetrySeconds = 5;

struct Header {
  std::array<char, 8> magic = {'P', 'M', 'K', 'V', '0', '0', '0', '1'};
  Digest key;
  std::uint64_t num_bytes = 0;
  std::int32_t group = 0;
  std::uint32_t unused = 0;
  Digest checksum;  // of the contents

  bool operator==(const Header&) const = default;
};
static_assert(sizeof(Header) == 88 && std::is_trivially_copyable_v<Header>);

Header header_of(std::int32_t group, const Digest& key, std::span<const std::byte> bytes) {
  Header header;
  header.key = key;
  header.num_bytes = bytes.size();
  header.group = group;
  header.checksum =
      Sha256().update({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}).finish();
  return header;
}

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  bool read(std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::read(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return true;
  }
  bool write(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return true;
  }

 private:
  int fd_;
};

bool ends_with(std::string_view text, std::string_view suffix) { return text.ends_with(suffix); }

// "<64 hex digits>-<group>.kv"
bool parse_name(std::string_view name, KvDiskTier::StoredBlock& block) {
  constexpr std::size_t kHex = 64;
  if (!ends_with(name, kSuffix) || name.size() < kHex + 2 + kSuffix.size()) return false;
  for (std::size_t i = 0; i < kHex / 2; ++i) {
    const char* at = name.data() + 2 * i;
    if (std::from_chars(at, at + 2, block.key.bytes[i], 16).ptr != at + 2) return false;
  }
  const char* const end = name.data() + name.size() - kSuffix.size();
  return name[kHex] == '-' &&
         std::from_chars(name.data() + kHex + 1, end, block.group).ptr == end && block.group >= 0;
}

void remove_stale_files(const std::string& path) {
  std::error_code ignored;
  const auto now = fs::file_time_type::clock::now();
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    if (!ends_with(entry.path().native(), kTemporarySuffix)) continue;
    if (now - entry.last_write_time(ignored) > kStale) fs::remove(entry.path(), ignored);
  }
}

}  // namespace

Result<std::unique_ptr<KvDiskTier>> KvDiskTier::open(std::string path,
                                                     std::size_t max_queued_bytes) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return io_error(fmt::format("{}: cannot make it: {}", path, error.message()));
  if (::access(path.c_str(), R_OK | W_OK | X_OK) != 0) {
    return io_error(fmt::format("{}: cannot write there: {}", path, std::strerror(errno)));
  }
  remove_stale_files(path);
  return std::unique_ptr<KvDiskTier>(new KvDiskTier(std::move(path), max_queued_bytes));
}

KvDiskTier::KvDiskTier(std::string path, std::size_t max_queued_bytes)
    : path_(std::move(path)),
      max_queued_bytes_(max_queued_bytes),
      token_(std::random_device()()),
      writer_([this] { write_loop(); }) {}

KvDiskTier::~KvDiskTier() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  writer_.join();
}

std::string KvDiskTier::file_of(std::int32_t group, const Digest& key) const {
  std::string name;
  for (const std::uint8_t byte : key.bytes)
    fmt::format_to(std::back_inserter(name), "{:02x}", byte);
  return fmt::format("{}/{}-{}{}", path_, name, group, kSuffix);
}

std::vector<KvDiskTier::StoredBlock> KvDiskTier::scan() const {
  std::vector<std::pair<fs::file_time_type, StoredBlock>> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    StoredBlock block;
    if (!parse_name(entry.path().filename().native(), block)) continue;
    found.emplace_back(entry.last_write_time(ignored), block);
  }
  std::stable_sort(
      found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<StoredBlock> blocks;
  blocks.reserve(found.size());
  for (const auto& [time, block] : found) blocks.push_back(block);
  return blocks;
}

void KvDiskTier::save(std::int32_t group, const Digest& key, std::span<const std::byte> bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (queued_bytes_ + bytes.size() > max_queued_bytes_) {
      ++stats_.dropped_saves;
      return;
    }
    queued_bytes_ += bytes.size();
    queue_.push_back({group, key, {bytes.begin(), bytes.end()}});
  }
  changed_.notify_all();
}

void KvDiskTier::forget(std::int32_t group, const Digest& key) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({group, key, {}, true});
  }
  changed_.notify_all();
}

bool KvDiskTier::load(std::int32_t group, const Digest& key, std::span<std::byte> bytes) {
  const double begin = monotonic_seconds();
  bool found = false, queued = false;
  {
    const std::lock_guard lock(mutex_);
    // The latest word on the key.
    for (auto job = queue_.rbegin(); job != queue_.rend() && !queued; ++job) {
      if (job->group != group || job->key != key) continue;
      queued = true;
      found = !job->forgets && job->bytes.size() == bytes.size();
      if (found) std::copy(job->bytes.begin(), job->bytes.end(), bytes.begin());
    }
  }
  if (!queued) found = read_file(group, key, bytes);
  const std::lock_guard lock(mutex_);
  stats_.load_seconds += monotonic_seconds() - begin;
  if (found) stats_.loaded_bytes += bytes.size();
  return found;
}

bool KvDiskTier::read_file(std::int32_t group, const Digest& key, std::span<std::byte> bytes) {
  const std::string path = file_of(group, key);
  {
    const File file(path, O_RDONLY);
    if (!file.is_open()) return false;
    Header header;
    if (file.read(std::as_writable_bytes(std::span(&header, 1))) && file.read(bytes) &&
        header == header_of(group, key, bytes)) {
      return true;
    }
  }
  spdlog::warn("{}: not the block that its name says; removed", path);
  ::unlink(path.c_str());
  const std::lock_guard lock(mutex_);
  ++stats_.broken_files;
  return false;
}

void KvDiskTier::flush() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queue_.empty(); });
}

KvDiskTierStats KvDiskTier::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void KvDiskTier::write_loop() {
  pthread_setname_np(pthread_self(), "pm-kv-disk");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Job& job = queue_.front();  // stays where it is until it is carried out
    lock.unlock();
    carry_out(job);
    lock.lock();
    queued_bytes_ -= job.bytes.size();
    queue_.pop_front();
    if (queue_.empty()) changed_.notify_all();
  }
}

void KvDiskTier::carry_out(const Job& job) {
  if (job.forgets) {
    ::unlink(file_of(job.group, job.key).c_str());
    return;
  }
  const bool written = monotonic_seconds() >= retry_at_ && write_file(job);
  const std::lock_guard lock(mutex_);
  if (written) {
    stats_.saved_bytes += job.bytes.size();
  } else {
    ++stats_.failed_saves;
  }
}

bool KvDiskTier::write_file(const Job& job) {
  const std::string path = file_of(job.group, job.key);
  const std::string temporary =
      fmt::format("{}/{:08x}-{}{}", path_, token_, num_begun_++, kTemporarySuffix);
  const Header header = header_of(job.group, job.key, job.bytes);
  int reason = 0;
  {
    const File file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.is_open() && file.write(std::as_bytes(std::span(&header, 1))) &&
        file.write(job.bytes) && ::rename(temporary.c_str(), path.c_str()) == 0) {
      return true;
    }
    reason = errno;
  }
  spdlog::warn("{}: cannot keep KV blocks there: {}; trying again in {} s",
               path_,
               std::strerror(reason),
               kRetrySeconds);
  ::unlink(temporary.c_str());
  retry_at_ = monotonic_seconds() + kRetrySeconds;
  return false;
}

}  // namespace pagemill
