#include "base/cpu_topology.h"

#include <sched.h>

#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>

namespace pagemill {
namespace {

std::optional<std::string> read_line(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::string line;
  if (!in || !std::getline(in, line)) return std::nullopt;
  return line;
}

std::optional<double> read_number(const std::filesystem::path& path) {
  std::ifstream in(path);
  double value = 0;
  if (!in || !(in >> value)) return std::nullopt;
  return value;
}

// Quota of one cgroup folder in CPUs, 0 if it sets none.
double folder_quota(const std::filesystem::path& folder) {
  if (const auto line =
          read_line(folder / "cpu.max")) {  // version 2: "max 100000", "150000 100000"
    std::istringstream in(*line);
    double quota = 0;
    double period = 0;
    if (in >> quota >> period && quota > 0 && period > 0) return quota / period;
    return 0;
  }
  const double quota = read_number(folder / "cpu.cfs_quota_us").value_or(-1);
  const double period = read_number(folder / "cpu.cfs_period_us").value_or(0);
  return quota > 0 && period > 0 ? quota / period : 0;
}

void take_tighter(double candidate, double* quota) {
  if (candidate > 0 && (*quota == 0 || candidate < *quota)) *quota = candidate;
}

// The folder itself, then each ancestor up to `root`. In a container the path may be the host's and
// absent here; the mount's own files then hold the limit, and they are always looked at.
double tightest_quota(const std::filesystem::path& root, const std::filesystem::path& relative) {
  double quota = 0;
  for (std::filesystem::path path = relative; !path.empty(); path = path.parent_path()) {
    take_tighter(folder_quota(root / path), &quota);
  }
  take_tighter(folder_quota(root), &quota);
  return quota;
}

bool lists_cpu(std::string_view controllers) {
  std::istringstream in{std::string(controllers)};
  for (std::string name; std::getline(in, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::vector<int> affinity_cpus() {
  std::vector<int> cpus;
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(capacity));
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; known && cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (known) break;
  }
  return cpus;
}

int count_physical_cores(std::span<const int> cpus, const std::filesystem::path& sys_cpu) {
  std::set<std::string> cores;
  for (int cpu : cpus) {
    const std::filesystem::path topology =
        sys_cpu / ("cpu" + std::to_string(cpu)) / "topology" / "thread_siblings_list";
    cores.insert(read_line(topology).value_or("alone " + std::to_string(cpu)));
  }
  return static_cast<int>(cores.size());
}

double cgroup_cpu_quota(std::string_view proc_cgroup, const std::filesystem::path& mount) {
  double quota = 0;
  std::istringstream in{std::string(proc_cgroup)};
  for (std::string line; std::getline(in, line);) {  // "id:controllers:/path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::filesystem::path relative =
        std::filesystem::path(line.substr(second + 1)).relative_path();
    if (controllers.empty()) {
      take_tighter(tightest_quota(mount, relative), &quota);
    } else if (lists_cpu(controllers)) {
      take_tighter(tightest_quota(mount / controllers, relative), &quota);
      take_tighter(tightest_quota(mount / "cpu", relative), &quota);
    }
  }
  return quota;
}

}  // namespace pagemill
