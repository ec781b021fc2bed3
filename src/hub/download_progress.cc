#include "hub/download_progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/clock.h"
#include "base/logging.h"

namespace pagemill {
namespace {

constexpr double kDrawEvery = 0.1, kLogEvery = 30;  // seconds
constexpr std::size_t kBarWidth = 24, kNameWidth = 32, kNoTerminalWidth = 80;

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kNoTerminalWidth;
  return size.ws_col;
}

// The end of a long name says more than its beginning.
std::string shortened(std::string_view name) {
  if (name.size() <= kNameWidth) return std::string(name);
  return fmt::format("...{}", name.substr(name.size() - (kNameWidth - 3)));
}

double rate(const DownloadProgress& progress, double elapsed_s) {
  const auto came = static_cast<double>(progress.done_bytes - progress.resumed_bytes);
  return elapsed_s > 0 ? came / elapsed_s : 0;
}

std::string minutes(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::ceil(seconds));
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

class Printer {
 public:
  explicit Printer(bool bars) : bars_(bars) {}

  bool operator()(const DownloadProgress& progress) {
    if (progress.file.empty()) return true;
    const double now = monotonic_seconds();
    const bool begins = progress.file != file_;
    if (begins) {
      file_ = progress.file;
      begin_ = now;
      shown_ = now - (bars_ ? kDrawEvery : kLogEvery);
    }
    const double elapsed = now - begin_;
    if (progress.finished) {
      finish(progress, elapsed);
    } else if (now - shown_ >= (bars_ ? kDrawEvery : kLogEvery)) {
      shown_ = now;
      show(progress, elapsed, begins);
    }
    return true;
  }

 private:
  void draw(const DownloadProgress& progress, double elapsed, const char* end) {
    const std::string line = progress_line(progress, elapsed, terminal_width() - 1);
    std::fprintf(stderr, "%s\x1b[K%s", line.c_str(), end);
    std::fflush(stderr);
  }

  void show(const DownloadProgress& progress, double elapsed, bool begins) {
    if (bars_) {
      draw(progress, elapsed, "\r");  // a log line may begin where the bar does
    } else if (begins) {
      const std::string resumed =
          progress.resumed_bytes == 0
              ? ""
              : fmt::format(", {} of it here already", human_bytes(progress.resumed_bytes));
      spdlog::info("downloading {}: {}{}", file_, human_bytes(progress.total_bytes), resumed);
    } else {
      spdlog::info("downloading {}: {} of {}",
                   file_,
                   human_bytes(progress.done_bytes),
                   human_bytes(progress.total_bytes));
    }
  }

  void finish(const DownloadProgress& progress, double elapsed) {
    if (bars_) {
      draw(progress, elapsed, "\n");
    } else {
      spdlog::info("downloaded {}: {} in {:.1f} s, verified",
                   file_,
                   human_bytes(progress.total_bytes),
                   elapsed);
    }
    file_.clear();
  }

  bool bars_;
  std::string file_;
  double begin_ = 0, shown_ = 0;
};

}  // namespace

std::string human_bytes(std::int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (value < 999.95) break;
    value /= 1000;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string progress_line(const DownloadProgress& progress, double elapsed_s, std::size_t width) {
  const double share = progress.total_bytes > 0 ? static_cast<double>(progress.done_bytes) /
                                                      static_cast<double>(progress.total_bytes)
                                                : 1;
  const auto filled = static_cast<std::size_t>(share * kBarWidth);
  const double per_second = rate(progress, elapsed_s);
  const auto left = static_cast<double>(progress.total_bytes - progress.done_bytes);
  const std::string time = progress.finished ? minutes(elapsed_s)
                           : per_second > 0  ? minutes(left / per_second)
                                             : "-:--";
  std::string line = fmt::format("{:<{}} {:>3.0f}% [{:<{}}] {} of {}  {}/s  {}",
                                 shortened(progress.file),
                                 kNameWidth,
                                 std::floor(100 * share),
                                 std::string(std::min(filled, kBarWidth), '='),
                                 kBarWidth,
                                 human_bytes(progress.done_bytes),
                                 human_bytes(progress.total_bytes),
                                 human_bytes(static_cast<std::int64_t>(per_second)),
                                 time);
  if (line.size() > width) line.resize(width);
  return line;
}

OnDownload print_downloads(bool bars) { return Printer(bars); }

}  // namespace pagemill
