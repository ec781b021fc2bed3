// What a user sees of a download.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pagemill {

struct DownloadProgress {
  std::string_view file;           // its path in the repository; empty: nothing is on its way now
  std::int64_t resumed_bytes = 0;  // that were there from an earlier attempt
  std::int64_t done_bytes = 0, total_bytes = 0;
  bool finished = false;  // once a file, after its bytes were verified
};

// Called several times a second, also while a server is waited for, on the thread that fetches.
// False cancels; what has come is kept for the next attempt.
using OnDownload = std::function<bool(const DownloadProgress&)>;

inline Error download_cancelled() {
  return {ErrorCode::kCancelled, "the download was cancelled", {}};
}

// A line for each file on stderr that is drawn again as bytes come, where `bars`; else log lines.
OnDownload print_downloads(bool bars);

// "model.safetensors  45% [=====     ] 1.2/2.7 GB  88.1 MB/s  0:17", at most `width` columns.
std::string progress_line(const DownloadProgress& progress, double elapsed_s, std::size_t width);
// "12 B", "3.4 kB", "1.2 GB": powers of 1000, as the Hub shows sizes.
std::string human_bytes(std::int64_t bytes);

}  // namespace pagemill
