#include "cli/memory_report.h"

#include <fmt/format.h>

#include <cstdlib>

#include "cli/http_stream.h"

namespace pagemill::cli {
namespace {

constexpr double kTimeoutSeconds = 10;

// The value of the first sample of that name whose labels have `label` ("" if any will do).
Result<double> sample(std::string_view metrics, std::string_view name, const std::string& label) {
  for (std::size_t at = 0; at < metrics.size();) {
    const std::size_t end = std::min(metrics.find('\n', at), metrics.size());
    const std::string_view line = metrics.substr(at, end - at);
    at = end + 1;
    if (line.starts_with('#')) continue;
    const std::size_t open = line.find('{'), close = line.rfind('}');
    if (open >= close || close == std::string_view::npos) continue;
    if (!line.substr(0, open).ends_with(name)) continue;
    if (line.substr(open, close - open).find(label) == std::string_view::npos) continue;
    return std::strtod(std::string(line.substr(close + 1)).c_str(), nullptr);
  }
  return invalid_argument(fmt::format(
      "no {} {} in the server's metrics: expected a Pagemill server's /metrics", name, label));
}

std::string row(std::string_view what, double bytes, double total) {
  const double percent = total > 0 ? 100 * bytes / total : 0;
  return fmt::format("{:<18}{:>12.1f} MiB {:>6.1f} %\n", what, bytes / (1 << 20), percent);
}

}  // namespace

Result<std::string> memory_report(std::string_view metrics) {
  constexpr std::pair<const char*, const char*> kStates[] = {{"tokens", "token states"},
                                                             {"empty", "empty block tails"},
                                                             {"cached", "cached"},
                                                             {"free", "free"},
                                                             {"pinned", "pinned"}};
  double bytes[std::size(kStates)], total = 0;
  for (std::size_t i = 0; i < std::size(kStates); ++i) {
    const std::string label = fmt::format("state=\"{}\"", kStates[i].first);
    PM_ASSIGN(bytes[i], sample(metrics, ":kv_cache_bytes", label));
    total += bytes[i];
  }
  PM_ASSIGN(const double saved, sample(metrics, ":kv_cache_saved_bytes", ""));
  std::string report;
  for (std::size_t i = 0; i < std::size(kStates); ++i) {
    report += row(kStates[i].second, bytes[i], total);
  }
  report += row("KV cache", total, total);
  report += row("saved by sharing", saved, total);
  return report;
}

Result<std::string> fetch_memory_report(const std::string& url) {
  PM_ASSIGN(const HttpUrl server, parse_http_url(url));
  std::string metrics;
  PM_ASSIGN(const HttpAnswer answer,
            get(server, "/metrics", "", kTimeoutSeconds, [&](std::string_view content) {
              metrics += content;
            }));
  if (answer.status != 200) {
    return io_error(fmt::format("{}/metrics: HTTP status {}", url, answer.status));
  }
  return memory_report(metrics);
}

}  // namespace pagemill::cli
