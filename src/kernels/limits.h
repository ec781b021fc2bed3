// What this machine can do at most, measured: multiplications and additions by instruction, reading
// memory, starting and joining an operation. What kernels are held against (the roofline: Williams,
// Waterman, Patterson, CACM 2009).
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/isa.h"
#include "kernels/matmul.h"

namespace pagemill {

struct ComputeLimit {
  Isa isa = Isa::kAvx2;  // that the instruction comes with
  std::string_view instruction;
  double gflops = 0, median_gflops = 0;  // of the best run; of integers: operations
};

struct ReadLimit {
  int streams = 1;        // that each thread reads side by side
  bool prefetch = false;  // by software, 1 KB ahead
  double gb_per_s = 0, median_gb_per_s = 0;
};

struct MachineLimits {
  int threads = 1;
  std::size_t buffer_bytes = 0;  // that was read
  std::vector<ComputeLimit> compute;
  std::vector<ReadLimit> read;
  double fork_join_us = 0, median_fork_join_us = 0;

  // Of the instruction that `isa` multiplies activations of `format` with; 0: none was measured
  // (scalar).
  double gflops(Isa isa, ActivationFormat format) const;
  double gb_per_s() const;  // of the best way to read
};

struct LimitOptions {
  int repeats = 5;               // runs of each
  std::size_t buffer_bytes = 0;  // 0: default_buffer_bytes()
};

// Eight times the last-level cache and at least 1 GiB, or a quarter of the free memory.
std::size_t default_buffer_bytes();
std::size_t last_level_cache_bytes();  // 0: unknown

// A few seconds of all of `threads`. kResourceExhausted: no memory for the buffer.
Result<MachineLimits> measure_limits(int threads, const LimitOptions& options);

}  // namespace pagemill
