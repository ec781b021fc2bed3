// Whether the bytes of a file are those that its ETag names: a SHA-256 for large files (git LFS),
// the SHA-1 of git's blob for the others.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "base/sha256.h"
#include "hub/sha1.h"

namespace pagemill {

class ContentCheck {
 public:
  // An ETag that is neither 64 nor 40 hexadecimal digits leaves the size alone to check.
  ContentCheck(const std::string& etag, std::int64_t size);
  void update(std::span<const std::uint8_t> data);
  // kCorrupt, with `name` in front, unless the bytes given to update() are right. Once.
  Status finish(const std::string& name);

 private:
  std::string etag_;
  std::int64_t size_;
  std::int64_t num_bytes_ = 0;
  std::optional<Sha256> sha256_;
  std::optional<Sha1> git_sha1_;
};

}  // namespace pagemill
