// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace pagemill {

// The bytes stay valid as long as the file is not truncated meanwhile (a model directory that is
// rewritten under a running server ends it with SIGBUS, as with any mapped file: replace files by
// rename).
class MappedFile {
 public:
  MappedFile() = default;
  // A regular file (symbolic links are followed); an empty one is an empty span. kNotFound or kIo.
  static Result<MappedFile> open(const std::string& path);

  ~MappedFile() { reset(); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }  // bytes
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Gives the whole pages inside [offset, offset + length) back to the system; they are read again
  // from the file if touched. The range must lie inside the file.
  void advise_dont_need(std::size_t offset, std::size_t length) const;

 private:
  void reset();

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::string path_;
};

}  // namespace pagemill
