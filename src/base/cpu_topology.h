// How many CPUs this process may use: its affinity mask, shared cores, and the cgroup's quota.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace pagemill {

// CPUs of the calling thread's affinity mask, ascending.
std::vector<int> affinity_cpus();

// Physical cores among `cpus`: those that share one count once. `sys_cpu` is the kernel's CPU
// folder
// (/sys/devices/system/cpu); a CPU that it does not describe counts as a core.
int count_physical_cores(std::span<const int> cpus, const std::filesystem::path& sys_cpu);

// The tightest CPU quota, in CPUs, among the process's cgroup and its ancestors, version 1 or 2;
// 0 if there is none. `proc_cgroup` is the text of /proc/self/cgroup, `mount` is /sys/fs/cgroup.
double cgroup_cpu_quota(std::string_view proc_cgroup, const std::filesystem::path& mount);

}  // namespace pagemill
