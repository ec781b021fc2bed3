#include "hub/content_check.h"

#include <fmt/format.h>

#include <cctype>

#include "hub/repo_name.h"

namespace pagemill {
namespace {

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

ContentCheck::ContentCheck(const std::string& etag, std::int64_t size)
    : etag_(lower(etag)), size_(size) {
  if (!is_hex(etag)) return;
  if (etag.size() == 64) sha256_.emplace();
  if (etag.size() == 40) {
    const std::string header = fmt::format("blob {}", size);
    git_sha1_.emplace().update(
        {reinterpret_cast<const std::uint8_t*>(header.c_str()), header.size() + 1});
  }
}

void ContentCheck::update(std::span<const std::uint8_t> data) {
  num_bytes_ += static_cast<std::int64_t>(data.size());
  if (sha256_) sha256_->update(data);
  if (git_sha1_) git_sha1_->update(data);
}

Status ContentCheck::finish(const std::string& name) {
  if (num_bytes_ != size_) {
    return corrupt(fmt::format("{}: {} bytes came, expected {}", name, num_bytes_, size_));
  }
  std::string digest = etag_;
  if (sha256_) digest = hex(sha256_->finish().bytes);
  if (git_sha1_) digest = hex(git_sha1_->finish());
  if (digest == etag_) return ok_status();
  return corrupt(fmt::format("{}: the bytes that came have the {} {}, expected {}",
                             name,
                             sha256_ ? "SHA-256" : "git SHA-1",
                             digest,
                             etag_));
}

}  // namespace pagemill
