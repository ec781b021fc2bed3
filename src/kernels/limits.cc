#include "kernels/limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <thread>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "kernels/limits_isa.h"
#include "tensor/aligned_buffer.h"

namespace pagemill {
namespace {

std::span<const LimitLoop> loops_of(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return {};
    case Isa::kAvx2:
      return kLimitLoopsAvx2;
    case Isa::kAvx512:
      return kLimitLoopsAvx512;
    case Isa::kAvx512Bf16:
      return kLimitLoopsAvx512Bf16;
  }
  return {};
}

// Memory gives no more to narrower registers.
ReadLoop widest_read_loop() {
  if (isa_supported(Isa::kAvx512)) return kReadLoopAvx512;
  return isa_supported(Isa::kAvx2) ? kReadLoopAvx2 : kReadLoopScalar;
}

struct Spread {
  double best, median;
};

// Seconds of the shortest and of the median run.
template <typename Run>
Spread time_runs(int repeats, Run run) {
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const double begin = monotonic_seconds();
    run();
    seconds.push_back(monotonic_seconds() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

// Each thread runs one task: they are far longer than it takes to wake the last of them.
ComputeLimit measure_loop(Isa isa, const LimitLoop& loop, ThreadPool& pool, int repeats) {
  constexpr double kSeconds = 0.02;  // of a run
  constexpr std::int64_t kTrialRounds = 100000;
  loop.run(kTrialRounds);  // the clock rises, or falls, to what the instruction allows
  const Spread trial = time_runs(3, [&] { loop.run(kTrialRounds); });
  const auto rounds = static_cast<std::int64_t>(kSeconds / trial.best * kTrialRounds) + 1;
  const Spread spread =
      time_runs(repeats, [&] { pool.parallel_for(pool.size(), [&](int) { loop.run(rounds); }); });
  const double giga =
      1e-9 * static_cast<double>(rounds) * pool.size() * kLimitChains * loop.operations;
  return {isa, loop.instruction, giga / spread.best, giga / spread.median};
}

std::vector<ReadLimit> measure_reads(AlignedBuffer& buffer, ThreadPool& pool, int repeats) {
  const ReadLoop read = widest_read_loop();
  const std::size_t part = buffer.size() / static_cast<std::size_t>(pool.size());
  std::atomic<std::uint64_t> sum{0};
  std::vector<ReadLimit> limits;
  for (int streams = 1; streams <= kMaxReadStreams; streams *= 2) {
    for (const bool prefetch : {false, true}) {
      const Spread spread = time_runs(repeats, [&] {
        pool.parallel_for(pool.size(), [&](int task) {
          sum +=
              read(buffer.data() + static_cast<std::size_t>(task) * part, part, streams, prefetch);
        });
      });
      const double gb = 1e-9 * static_cast<double>(part) * pool.size();
      limits.push_back({streams, prefetch, gb / spread.best, gb / spread.median});
    }
  }
  return limits;
}

// Seconds of one operation whose tasks do nothing but wait for each other: otherwise the thread
// that starts it would often have run them all before another came.
Spread measure_fork_join(ThreadPool& pool, int repeats) {
  constexpr int kOperations = 2000, kSpins = 1000;
  std::atomic<int> arrived{0};
  const Spread spread = time_runs(repeats, [&] {
    for (int i = 0; i < kOperations; ++i) {
      arrived.store(0, std::memory_order_relaxed);
      pool.parallel_for(pool.size(), [&](int) {
        arrived.fetch_add(1, std::memory_order_relaxed);
        for (int spins = 0; arrived.load(std::memory_order_relaxed) < pool.size(); ++spins) {
          if (spins > kSpins) std::this_thread::yield();  // more threads than cores
        }
      });
    }
  });
  return {spread.best / kOperations, spread.median / kOperations};
}

}  // namespace

double MachineLimits::gflops(Isa isa, ActivationFormat format) const {
  std::string_view instruction = "VFMADD";
  if (format == ActivationFormat::kBF16 && isa == Isa::kAvx512Bf16) instruction = "VDPBF16PS";
  if (format == ActivationFormat::kFixed16 || format == ActivationFormat::kQ16) {
    instruction = isa == Isa::kAvx2 ? "VPMADDWD+VPADDD" : "VPDPWSSD";
  }
  double gflops = 0;  // kAvx512Bf16 uses kAvx512's as well: the last that `isa` has
  for (const ComputeLimit& limit : compute) {
    if (limit.isa <= isa && limit.instruction == instruction) gflops = limit.gflops;
  }
  return gflops;
}

double MachineLimits::gb_per_s() const {
  double best = 0;
  for (const ReadLimit& limit : read) best = std::max(best, limit.gb_per_s);
  return best;
}

std::size_t last_level_cache_bytes() {
  const long bytes = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  return static_cast<std::size_t>(std::max(bytes, 0L));
}

std::size_t default_buffer_bytes() {
  const std::size_t wanted = std::max(std::size_t{1} << 30, 8 * last_level_cache_bytes());
  const long free_pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (free_pages <= 0 || page <= 0) return wanted;
  return std::min(wanted,
                  static_cast<std::size_t>(free_pages) * static_cast<std::size_t>(page) / 4);
}

Result<MachineLimits> measure_limits(int threads, const LimitOptions& options) {
  // Every part of every thread is a number of whole chunks.
  const std::size_t granule = static_cast<std::size_t>(threads) * kMaxReadStreams * 4096;
  const std::size_t bytes =
      options.buffer_bytes != 0 ? options.buffer_bytes : default_buffer_bytes();
  const std::size_t rounded = std::max(bytes / granule, std::size_t{1}) * granule;
  PM_ASSIGN(AlignedBuffer buffer, AlignedBuffer::allocate(rounded));
  ThreadPool pool(threads);
  const std::size_t part = rounded / static_cast<std::size_t>(threads);
  pool.parallel_for(threads, [&](int task) {
    std::memset(buffer.data() + static_cast<std::size_t>(task) * part, 1, part);
  });

  MachineLimits limits;
  limits.threads = threads;
  limits.buffer_bytes = rounded;
  for (const Isa isa : supported_isas()) {
    for (const LimitLoop& loop : loops_of(isa)) {
      limits.compute.push_back(measure_loop(isa, loop, pool, options.repeats));
    }
  }
  limits.read = measure_reads(buffer, pool, options.repeats);
  const Spread fork_join = measure_fork_join(pool, options.repeats);
  limits.fork_join_us = 1e6 * fork_join.best;
  limits.median_fork_join_us = 1e6 * fork_join.median;
  return limits;
}

}  // namespace pagemill
