#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/cpu_topology.h"
#include "base/files_testing.h"

namespace pagemill {
namespace {

TEST(ThreadPool, RunsEachTaskOnceForEverySizeAndCount) {
  for (int size = 1; size <= 8; ++size) {
    ThreadPool pool(size);
    ASSERT_EQ(pool.size(), size);
    for (int tasks : {0, 1, 2, 3, 7, 8, 9, 64, 1000}) {
      std::vector<int> ran(static_cast<std::size_t>(tasks));  // plain: a double run is a data race
      pool.parallel_for(tasks, [&](int task) { ++ran[static_cast<std::size_t>(task)]; });
      for (int count : ran) ASSERT_EQ(count, 1) << size << " threads, " << tasks << " tasks";
    }
  }
}

TEST(ThreadPool, BackToBackOperationsSeeEachOthersWrites) {
  for (int size : {2, 4}) {
    ThreadPool pool(size);
    std::vector<std::uint64_t> values(37);
    constexpr std::uint64_t kRounds = 3000;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const int tasks = 1 + static_cast<int>(round % values.size());
      pool.parallel_for(tasks, [&](int task) { values[static_cast<std::size_t>(task)] += round; });
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::uint64_t expected = 0;
      for (std::uint64_t round = 0; round < kRounds; ++round) {
        if (i <= round % values.size()) expected += round;
      }
      EXPECT_EQ(values[i], expected) << "task " << i;
    }
  }
}

TEST(ThreadPool, WakesParkedWorkers) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 2 == 0 ? 1 : 0));
    // Each task waits for the others, so all three threads must take part.
    std::atomic<int> arrived{0};
    pool.parallel_for(3, [&](int) {
      arrived.fetch_add(1);
      while (arrived.load() < 3) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 3);
  }
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPool, IdlePoolUsesNoCpu) {
  ThreadPool pool(8);
  pool.parallel_for(64, [](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // let them park
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(cpu_seconds() - before, 0.02);
}

TEST(ThreadPool, StartsAndStopsAtOnce) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 8);
}

TEST(DefaultNumThreads, IsWithinTheAffinityMask) {
  EXPECT_GE(default_num_threads(), 1);
  EXPECT_LE(default_num_threads(), static_cast<int>(affinity_cpus().size()));
}

class CpuTopology : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) { folder_.write(path, text); }

  const TemporaryFolder folder_;
  const std::string& root_ = folder_.path();
};

TEST_F(CpuTopology, SiblingsShareACore) {
  write("cpu0/topology/thread_siblings_list", "0,4\n");
  write("cpu4/topology/thread_siblings_list", "0,4\n");
  write("cpu1/topology/thread_siblings_list", "1,5\n");
  EXPECT_EQ(count_physical_cores(std::vector<int>{0, 1, 4}, root_), 2);
  EXPECT_EQ(count_physical_cores(std::vector<int>{0, 1, 4, 9}, root_), 3);  // 9 is not described
  EXPECT_EQ(count_physical_cores(std::vector<int>{}, root_), 0);
}

TEST_F(CpuTopology, QuotaOfVersion2IsTheTightestAncestors) {
  write("a/b/cpu.max", "max 100000\n");
  write("a/cpu.max", "250000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("0::/a/b\n", root_), 2.5);
  write("a/b/cpu.max", "50000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("0::/a/b\n", root_), 0.5);
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("0::/elsewhere\n", root_), 0);
}

TEST_F(CpuTopology, QuotaInAContainerIsAtTheMount) {
  write("cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("0::/docker/0123\n", root_), 4);
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("0::/\n", root_), 4);
}

TEST_F(CpuTopology, QuotaOfVersion1) {
  write("cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
  write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  write("cpu,cpuacct/free/cpu.cfs_quota_us", "-1\n");
  write("cpu,cpuacct/free/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("5:memory:/x\n4:cpu,cpuacct:/job\n", root_), 3);
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("4:cpu,cpuacct:/free\n", root_), 0);
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("4:cpuset:/job\n", root_), 0);
  EXPECT_DOUBLE_EQ(cgroup_cpu_quota("garbage\n:\n\n", root_), 0);
}

}  // namespace
}  // namespace pagemill
