#include "base/thread_pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/cpu_topology.h"

namespace pagemill {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the gap between two operations of a step, shorter than a step.
constexpr auto kSpin = std::chrono::microseconds(50);
// Past this a spinning thread offers its core to others: the one it waits for may need it.
constexpr auto kSpinBeforeYield = std::chrono::microseconds(10);
constexpr int kPausesPerCheck = 16;  // a pause takes 10 to 150 cycles; reading the clock about 60

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
}

// Spins until done() or `limit` passed (forever without one); true if done().
template <typename Done>
bool spin_until(Done done, std::optional<Clock::duration> limit) {
  for (int i = 0; i < kPausesPerCheck; ++i) {
    if (done()) return true;
    _mm_pause();
  }
  const Clock::time_point start = Clock::now();
  while (true) {
    for (int i = 0; i < kPausesPerCheck; ++i) {
      if (done()) return true;
      _mm_pause();
    }
    const Clock::duration waited = Clock::now() - start;
    if (limit && waited > *limit) return done();
    if (waited > kSpinBeforeYield) std::this_thread::yield();
  }
}

// The tickets of the operation under way: its number of tasks (high half) and the next one to claim
// (low half). A claim (fetch_add) therefore says itself whether it is good, whichever operation it
// meets; and while a good claim is not done, its operation cannot end.
constexpr std::uint64_t pack_tickets(std::uint32_t tasks) { return std::uint64_t{tasks} << 32; }
constexpr bool has_ticket(std::uint64_t tickets) {
  return static_cast<std::uint32_t>(tickets) < static_cast<std::uint32_t>(tickets >> 32);
}

}  // namespace

struct ThreadPool::Impl {
  alignas(64) std::atomic<std::uint64_t> tickets{0};
  alignas(64) std::atomic<std::uint32_t> done{0};  // tasks finished of this operation
  alignas(64) std::atomic<std::uint32_t> wake_word{0};
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  const TaskRef* task = nullptr;  // published by `tickets`
  std::vector<std::thread> workers;

  // Claims and runs tasks until none is left; returns how many it ran.
  std::uint32_t run_tasks() {
    std::uint32_t ran = 0;
    while (has_ticket(tickets.load(std::memory_order_relaxed))) {
      const std::uint64_t claim = tickets.fetch_add(1, std::memory_order_acquire);
      if (!has_ticket(claim)) break;
      (*task)(static_cast<int>(static_cast<std::uint32_t>(claim)));
      ++ran;
    }
    return ran;
  }

  bool work_or_stop(std::memory_order order) const {
    return has_ticket(tickets.load(order)) || stop.load(order);
  }

  // Registers as a sleeper before looking once more, so that either this thread sees the work or
  // whoever publishes it sees the sleeper.
  void park() {
    const std::uint32_t seen = wake_word.load(std::memory_order_acquire);
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    if (!work_or_stop(std::memory_order_seq_cst)) futex_wait(wake_word, seen);
    sleepers.fetch_sub(1, std::memory_order_relaxed);
  }

  void wake_sleepers() {
    if (sleepers.load(std::memory_order_seq_cst) == 0) return;
    wake_word.fetch_add(1, std::memory_order_release);
    futex_wake_all(wake_word);
  }

  void work() {
    while (!stop.load(std::memory_order_acquire)) {
      const std::uint32_t ran = run_tasks();
      if (ran > 0) done.fetch_add(ran, std::memory_order_release);
      if (!spin_until([this] { return work_or_stop(std::memory_order_relaxed); }, kSpin)) park();
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : impl_(std::make_unique<Impl>()) {
  PM_CHECK(num_threads >= 1, "a pool of {} threads", num_threads);
  for (int i = 1; i < num_threads; ++i) {
    std::thread& worker = impl_->workers.emplace_back([impl = impl_.get()] { impl->work(); });
    const std::string name = "pm-compute-" + std::to_string(i);  // the kernel keeps 15 characters
    pthread_setname_np(worker.native_handle(), name.substr(0, 15).c_str());
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop.store(true, std::memory_order_seq_cst);
  impl_->wake_sleepers();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::parallel_for(int num_tasks, TaskRef fn) {
  if (num_tasks <= 0) return;
  if (num_tasks == 1 || impl_->workers.empty()) {
    for (int task = 0; task < num_tasks; ++task) fn(task);
    return;
  }
  const auto tasks = static_cast<std::uint32_t>(num_tasks);
  impl_->task = &fn;
  impl_->done.store(0, std::memory_order_relaxed);
  impl_->tickets.store(pack_tickets(tasks), std::memory_order_seq_cst);
  impl_->wake_sleepers();
  const std::uint32_t others = tasks - impl_->run_tasks();
  spin_until([&] { return impl_->done.load(std::memory_order_acquire) == others; }, std::nullopt);
}

int default_num_threads() {
  int threads = count_physical_cores(affinity_cpus(), "/sys/devices/system/cpu");
  std::ifstream in("/proc/self/cgroup");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const double quota = cgroup_cpu_quota(text, "/sys/fs/cgroup");
  // Rounded down: a thread that the quota stops would hold up every barrier.
  if (quota > 0) threads = std::min(threads, static_cast<int>(std::floor(quota)));
  return std::max(threads, 1);
}

}  // namespace pagemill
