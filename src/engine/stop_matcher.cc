#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace pagemill {
namespace {

// Length of the longest suffix of `text` that is a proper prefix of `stop`.
std::size_t partial_match(std::string_view text, std::string_view stop) {
  const std::size_t longest = std::min(text.size(), stop.size() - 1);
  for (std::size_t length = longest; length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop, bool include_stop)
    : stop_(std::move(stop)), include_stop_(include_stop) {
  std::erase_if(stop_, [](const std::string& s) { return s.empty(); });
}

StopMatcher::Match StopMatcher::push(std::string_view piece) {
  Match match;
  if (stop_.empty()) {
    match.text = piece;
    return match;
  }
  pending_ += piece;
  std::size_t best_end = std::string::npos;
  const std::string* best = nullptr;
  for (const std::string& stop : stop_) {
    const std::size_t at = pending_.find(stop);
    if (at == std::string::npos) continue;
    const std::size_t end = at + stop.size();
    if (best == nullptr || end < best_end || (end == best_end && stop.size() > best->size())) {
      best = &stop;
      best_end = end;
    }
  }
  if (best != nullptr) {
    match.stop = *best;
    match.text = pending_.substr(0, include_stop_ ? best_end : best_end - best->size());
    pending_.clear();
    return match;
  }
  std::size_t withheld = 0;
  for (const std::string& stop : stop_)
    withheld = std::max(withheld, partial_match(pending_, stop));
  match.text = pending_.substr(0, pending_.size() - withheld);
  pending_.erase(0, pending_.size() - withheld);
  return match;
}

std::string StopMatcher::finish() { return std::exchange(pending_, {}); }

}  // namespace pagemill
