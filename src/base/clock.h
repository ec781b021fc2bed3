// Time since an arbitrary start, for measuring and for timeouts.
#pragma once

#include <chrono>

namespace pagemill {

// Seconds; never goes back, keeps nanoseconds for 100 days of uptime.
inline double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace pagemill
