// KvUse: what the blocks were used for, summed over steps. Differences of two give averages.
#pragma once

#include <cstdint>

namespace pagemill {

struct KvUse {
  std::uint64_t steps = 0;
  std::uint64_t sequences = 0;    // running
  std::uint64_t referenced = 0;   // blocks
  std::uint64_t empty_slots = 0;  // in referenced blocks
  std::uint64_t saved = 0;        // blocks more that there would be if sequences shared none

  KvUse operator-(const KvUse& before) const {
    return {steps - before.steps,
            sequences - before.sequences,
            referenced - before.referenced,
            empty_slots - before.empty_slots,
            saved - before.saved};
  }
};

}  // namespace pagemill
