#include "engine/memory_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include "layers/kv_storage.h"

namespace pagemill {
namespace {

std::optional<std::int64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (!(file >> value)) return std::nullopt;  // also "max": no limit
  return value;
}

// Value of "key: N kB" or "key N" in a file of such lines.
std::optional<std::int64_t> read_key(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::int64_t value = 0;
    if (words >> name >> value && (name == key || name == key + ":")) return value;
  }
  return std::nullopt;
}

// What a limit leaves, counting pages of files that the kernel can drop as free.
std::optional<std::int64_t> cgroup_available(const std::string& limit_file,
                                             const std::string& usage_file,
                                             const std::string& stat_file,
                                             const std::string& inactive_key) {
  const auto limit = read_number(limit_file);
  const auto usage = read_number(usage_file);
  if (!limit || !usage) return std::nullopt;
  const std::int64_t droppable = read_key(stat_file, inactive_key).value_or(0);
  return std::max<std::int64_t>(0, *limit - *usage + droppable);
}

// Block ids are 32 bits.
constexpr std::int64_t kMaxBlocks = std::numeric_limits<BlockId>::max();

std::int64_t blocks_for(std::int64_t tokens, std::int32_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

}  // namespace

std::int64_t available_memory_bytes() {
  constexpr std::int64_t kUnknown = std::int64_t{1} << 30;
  const auto meminfo = read_key("/proc/meminfo", "MemAvailable");
  std::int64_t available = meminfo ? *meminfo * 1024 : kUnknown;
  const auto v2 = cgroup_available("/sys/fs/cgroup/memory.max",
                                   "/sys/fs/cgroup/memory.current",
                                   "/sys/fs/cgroup/memory.stat",
                                   "inactive_file");
  const auto v1 = cgroup_available("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                   "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                   "/sys/fs/cgroup/memory/memory.stat",
                                   "total_inactive_file");
  for (const auto& limit : {v2, v1}) {
    if (limit) available = std::min(available, *limit);
  }
  return available;
}

Result<MemoryBudget> plan_memory(const EngineOptions& options,
                                 std::span<const KvSpec> specs,
                                 DType kv_dtype,
                                 std::int32_t model_max_len) {
  const bool is_explicit = options.max_model_len > 0;
  MemoryBudget budget;
  budget.block_size = options.block_size;
  budget.bytes_per_block =
      static_cast<std::int64_t>(KvStorage::bytes_per_block(specs, kv_dtype, options.block_size));
  budget.free_bytes = available_memory_bytes();
  budget.max_model_len = is_explicit ? options.max_model_len : model_max_len;
  const auto groups = static_cast<std::int64_t>(specs.size());
  const std::int64_t per_sequence = blocks_for(budget.max_model_len, options.block_size) * groups;

  std::int64_t bytes = options.kv_cache_memory_bytes;
  if (bytes <= 0)
    bytes = static_cast<std::int64_t>(kDefaultKvShare * static_cast<double>(budget.free_bytes));
  const std::int64_t affordable = options.num_blocks_override.value_or(static_cast<std::int32_t>(
      std::min<std::int64_t>(bytes / budget.bytes_per_block, kMaxBlocks)));
  // One block more than the sequences hold: the null block.
  budget.num_blocks =
      static_cast<std::int32_t>(std::min(affordable, per_sequence * options.max_num_seqs + 1));
  budget.kv_cache_bytes = budget.num_blocks * budget.bytes_per_block;

  const std::int64_t fits = (budget.num_blocks - 1) / groups * options.block_size;
  if (fits < budget.max_model_len && (is_explicit || fits < options.block_size)) {
    return invalid_argument(
        fmt::format("the KV cache has {} bytes: {} blocks of {} tokens ({} bytes each), but one "
                    "sequence of {} "
                    "tokens needs {}; raise --kv-cache-memory to {} or lower --max-model-len",
                    bytes,
                    affordable,
                    options.block_size,
                    budget.bytes_per_block,
                    budget.max_model_len,
                    per_sequence + 1,
                    (per_sequence + 1) * budget.bytes_per_block),
        "kv_cache_memory");
  }
  budget.max_model_len =
      static_cast<std::int32_t>(std::min<std::int64_t>(fits, budget.max_model_len));
  return budget;
}

}  // namespace pagemill
