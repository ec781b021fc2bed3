#include "tensor/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace pagemill {
namespace {

// Closes on scope exit; a mapping outlives its descriptor.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

Error system_error(const std::string& path, const char* what, int error) {
  std::string message = fmt::format("{}: {}: {}", path, what, std::strerror(error));
  return error == ENOENT || error == ENOTDIR ? not_found(std::move(message))
                                             : io_error(std::move(message));
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return system_error(path, "cannot open", errno);
  struct stat info {};
  if (fstat(file.fd, &info) != 0) return system_error(path, "cannot stat", errno);
  if (!S_ISREG(info.st_mode)) return io_error(fmt::format("{}: not a regular file", path));
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = static_cast<std::size_t>(info.st_size);
  if (mapped.size_ == 0) return mapped;
  void* const data = mmap(nullptr, mapped.size_, PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) {
    const int error = errno;
    mapped.size_ = 0;
    return system_error(path, "cannot map", error);
  }
  mapped.data_ = static_cast<const std::byte*>(data);
  return mapped;
}

void MappedFile::advise_dont_need(std::size_t offset, std::size_t length) const {
  PM_CHECK(offset <= size_ && length <= size_ - offset, "{}+{} of {}", offset, length, size_);
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t begin = (offset + page - 1) / page * page;
  const std::size_t end = (offset + length) / page * page;
  if (begin >= end) return;
  madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_DONTNEED);
}

void MappedFile::reset() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    path_ = std::move(other.path_);
  }
  return *this;
}

}  // namespace pagemill
