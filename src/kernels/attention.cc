#include "kernels/attention.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/attention_isa.h"

namespace pagemill {
namespace {

// Past this many floats of unmerged parts, a task computes its splits one after the other itself.
constexpr std::size_t kPartialFloatsMax = std::size_t{4} << 20;
// With fewer tasks than this for each thread, they are cut smaller: what that costs in reading keys
// again is less than a thread that waits.
constexpr std::int64_t kTasksPerThread = 4;
constexpr int kMinTileRows = 16;

void check_layout(const KvLayout& layout) {
  PM_CHECK(layout.dtype == DType::kBF16 || layout.dtype == DType::kF32, "dtype of the KV cache");
  PM_CHECK(layout.head_size > 0 && layout.head_size <= kMaxHeadSize && layout.head_size % 2 == 0,
           "head_size {}",
           layout.head_size);
  PM_CHECK(layout.block_size > 0 && layout.block_size % kTileTokens == 0,
           "block_size {}",
           layout.block_size);
}

// Of one KV head within a block.
std::size_t head_bytes(const KvLayout& layout) {
  return layout.block_bytes() / static_cast<std::size_t>(layout.num_kv_heads);
}

int round_up_to_lanes(int n) { return (n + kTileTokens - 1) / kTileTokens * kTileTokens; }

// Queries of one sequence and the heads that share a KV head; all splits, or one of them.
struct Item {
  std::int32_t sequence;
  std::int32_t kv_head;
  std::int32_t head;  // the first, and how many
  std::int32_t heads;
  std::int32_t query;  // the first, and how many
  std::int32_t queries;
  std::int32_t split_begin;
  std::int32_t split_end;
  std::int64_t partial;  // where its unmerged splits go, in floats; -1: it merges them itself
};

// Reused from call to call, so that steady steps allocate nothing. One engine thread per pool.
struct Scratch {
  std::vector<Item> items;
  std::vector<Item> split_items;
  std::vector<float> partials;
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

class Attention {
 public:
  Attention(Isa isa,
            ThreadPool& pool,
            const KvLayout& layout,
            const std::byte* k_cache,
            const std::byte* v_cache,
            const AttentionParams& params,
            const float* q,
            std::int64_t q_stride,
            std::span<const AttentionSequence> sequences,
            float* out,
            std::int64_t out_stride)
      : kernels_(attention_kernels(isa)),
        attend_(layout.dtype == DType::kBF16 ? kernels_.attend_bf16 : kernels_.attend_f32),
        pool_(pool),
        layout_(layout),
        k_cache_(k_cache),
        v_cache_(v_cache),
        params_(params),
        q_(q),
        q_stride_(q_stride),
        sequences_(sequences),
        out_(out),
        out_stride_(out_stride),
        group_(params.num_heads / layout.num_kv_heads),
        padded_(round_up_to_lanes(layout.head_size)) {}

  void run() {
    Scratch& s = scratch();
    s.items.clear();
    s.split_items.clear();
    const std::int64_t wanted = kTasksPerThread * pool_.size();
    int tile_rows = kMaxTileRows;
    while (tile_rows > kMinTileRows && pool_.size() > 1 && count_items(tile_rows) < wanted) {
      tile_rows /= 2;
    }
    make_items(tile_rows, s.items);
    if (pool_.size() > 1 && static_cast<std::int64_t>(s.items.size()) < wanted) split_items(s);
    if (s.split_items.empty()) {
      pool_.parallel_for(static_cast<int>(s.items.size()),
                         [&](int i) { attend_whole(s.items[static_cast<std::size_t>(i)]); });
      return;
    }
    partials_ = s.partials.data();
    const auto splits = static_cast<int>(s.split_items.size());
    pool_.parallel_for(splits,
                       [&](int i) { attend_split(s.split_items[static_cast<std::size_t>(i)]); });
    pool_.parallel_for(static_cast<int>(s.items.size()),
                       [&](int i) { merge_splits(s.items[static_cast<std::size_t>(i)]); });
  }

 private:
  // Heads and query tokens of one item.
  int heads_per_item(int tile_rows) const { return std::min(group_, tile_rows); }
  int queries_per_item(int tile_rows) const { return std::max(1, tile_rows / group_); }

  std::int64_t count_items(int tile_rows) const {
    const int heads = heads_per_item(tile_rows);
    const std::int64_t per_query =
        std::int64_t{layout_.num_kv_heads} * ((group_ + heads - 1) / heads);
    const int queries = queries_per_item(tile_rows);
    std::int64_t items = 0;
    for (const AttentionSequence& s : sequences_)
      items += (s.query_len + queries - 1) / queries * per_query;
    return items;
  }

  // Long ones first: a sequence's prompt in tiles from its end, then those that decode.
  void make_items(int tile_rows, std::vector<Item>& items) const {
    for (bool prefill : {true, false}) {
      for (std::size_t i = 0; i < sequences_.size(); ++i) {
        if ((sequences_[i].query_len > 1) == prefill)
          add_items(static_cast<std::int32_t>(i), tile_rows, items);
      }
    }
  }

  void add_items(std::int32_t sequence, int tile_rows, std::vector<Item>& items) const {
    const AttentionSequence& s = sequences_[static_cast<std::size_t>(sequence)];
    const int heads = heads_per_item(tile_rows);
    const int queries = queries_per_item(tile_rows);
    const int tiles = (s.query_len + queries - 1) / queries;
    for (int kv_head = 0; kv_head < layout_.num_kv_heads; ++kv_head) {
      for (int tile = tiles - 1; tile >= 0; --tile) {
        for (int head = 0; head < group_; head += heads) {
          Item item{};
          item.sequence = sequence;
          item.kv_head = kv_head;
          item.head = kv_head * group_ + head;
          item.heads = std::min(heads, group_ - head);
          item.query = tile * queries;
          item.queries = std::min(queries, s.query_len - item.query);
          item.split_begin = first_visible(position(s, item.query)) / kAttentionSplit;
          item.split_end = position(s, item.query + item.queries - 1) / kAttentionSplit + 1;
          item.partial = -1;
          items.push_back(item);
        }
      }
    }
  }

  static std::int32_t position(const AttentionSequence& s, std::int32_t query) {
    return s.context_len - s.query_len + query;
  }
  std::int32_t first_visible(std::int32_t position) const {
    return params_.window > 0 ? std::max(0, position - params_.window + 1) : 0;
  }

  std::size_t partial_floats(const Item& item) const {
    const auto rows = static_cast<std::size_t>(item.heads) * static_cast<std::size_t>(item.queries);
    return rows * static_cast<std::size_t>(padded_ + 2);
  }

  // One item a split, where there are several and room for their parts.
  void split_items(Scratch& s) const {
    std::size_t used = 0;
    bool any = false;
    for (Item& item : s.items) {
      const auto splits = static_cast<std::size_t>(item.split_end - item.split_begin);
      const std::size_t floats = splits * partial_floats(item);
      if (splits < 2 || used + floats > kPartialFloatsMax) continue;
      item.partial = static_cast<std::int64_t>(used);
      used += floats;
      any = true;
    }
    if (!any) return;
    if (s.partials.size() < used) s.partials.resize(used);
    for (const Item& item : s.items) {
      if (item.partial < 0) {
        s.split_items.push_back(item);
        continue;
      }
      for (int split = item.split_begin; split < item.split_end; ++split) {
        Item part = item;
        part.split_begin = split;
        part.split_end = split + 1;
        part.partial += static_cast<std::int64_t>(
            static_cast<std::size_t>(split - item.split_begin) * partial_floats(item));
        s.split_items.push_back(part);
      }
    }
  }

  AttentionPartial partial_at(float* memory, int rows) const {
    return {memory + rows * padded_, memory + rows * padded_ + rows, memory, padded_};
  }

  AttentionTask task_of(const Item& item) const {
    const AttentionSequence& s = sequences_[static_cast<std::size_t>(item.sequence)];
    AttentionTask task;
    const std::size_t head_offset = static_cast<std::size_t>(item.kv_head) * head_bytes(layout_);
    task.k = k_cache_ + head_offset;
    task.v = v_cache_ + head_offset;
    task.block_stride = layout_.block_bytes();
    task.block_table = s.block_table;
    task.block_size = layout_.block_size;
    task.head_size = layout_.head_size;
    task.scale = params_.scale;
    task.softcap = params_.logit_softcap;
    task.has_alibi = params_.alibi_slopes != nullptr;
    task.rows = 0;
    for (int query = item.query; query < item.query + item.queries; ++query) {
      const std::int64_t token = s.query_start + query;
      for (int head = item.head; head < item.head + item.heads; ++head) {
        const int row = task.rows++;
        task.q[row] = q_ + token * q_stride_ + std::int64_t{head} * layout_.head_size;
        task.out[row] = out_ + token * out_stride_ + std::int64_t{head} * layout_.head_size;
        task.end[row] = position(s, query) + 1;
        task.first[row] = first_visible(position(s, query));
        task.slope[row] = task.has_alibi ? params_.alibi_slopes[head] : 0;
      }
    }
    return task;
  }

  void attend_part(const AttentionTask& task, int split, const AttentionPartial& to) const {
    attend_(task, split * kAttentionSplit, (split + 1) * kAttentionSplit, to);
  }

  void attend_whole(const Item& item) const {
    constexpr int kFloats = kMaxTileRows * (kMaxHeadSize + 2);
    alignas(64) float memory[kFloats];
    const AttentionTask task = task_of(item);
    const AttentionPartial total = partial_at(memory, task.rows);
    attend_part(task, item.split_begin, total);
    if (item.split_end - item.split_begin > 1) {
      alignas(64) float more[kFloats];
      const AttentionPartial next = partial_at(more, task.rows);
      for (int split = item.split_begin + 1; split < item.split_end; ++split) {
        attend_part(task, split, next);
        kernels_.merge(task, next, total);
      }
    }
    kernels_.finish(task, total);
  }

  void attend_split(const Item& part) const {
    if (part.partial < 0) return attend_whole(part);
    const AttentionTask task = task_of(part);
    attend_part(task, part.split_begin, partial_at(memory_of(part.partial), task.rows));
  }

  void merge_splits(const Item& item) const {
    if (item.partial < 0) return;
    const AttentionTask task = task_of(item);
    const auto stride = static_cast<std::int64_t>(partial_floats(item));
    const AttentionPartial total = partial_at(memory_of(item.partial), task.rows);
    for (int i = 1; i < item.split_end - item.split_begin; ++i) {
      kernels_.merge(task, partial_at(memory_of(item.partial + i * stride), task.rows), total);
    }
    kernels_.finish(task, total);
  }

  float* memory_of(std::int64_t at) const { return partials_ + at; }

  const AttentionKernels& kernels_;
  const AttentionKernels::Attend attend_;
  ThreadPool& pool_;
  const KvLayout& layout_;
  const std::byte* const k_cache_;
  const std::byte* const v_cache_;
  const AttentionParams& params_;
  const float* const q_;
  const std::int64_t q_stride_;
  const std::span<const AttentionSequence> sequences_;
  float* const out_;
  const std::int64_t out_stride_;
  const int group_;   // query heads that share a KV head
  const int padded_;  // head_size in whole vectors
  float* partials_ = nullptr;
};

}  // namespace

const AttentionKernels& attention_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return kAttentionAvx512Bf16;
    case Isa::kAvx512:
      return kAttentionAvx512;
    case Isa::kAvx2:
      return kAttentionAvx2;
    case Isa::kScalar:
      break;
  }
  return kAttentionScalar;
}

std::size_t KvLayout::block_bytes() const {
  return dtype_bytes(dtype, std::int64_t{num_kv_heads} * block_size * head_size);
}

void paged_attention(Isa isa,
                     ThreadPool& pool,
                     const KvLayout& layout,
                     const std::byte* k_cache,
                     const std::byte* v_cache,
                     const AttentionParams& params,
                     const float* q,
                     std::int64_t q_stride,
                     std::span<const AttentionSequence> sequences,
                     float* out,
                     std::int64_t out_stride) {
  check_layout(layout);
  PM_CHECK(params.num_heads > 0 && params.num_heads % layout.num_kv_heads == 0,
           "{} heads share {} KV heads",
           params.num_heads,
           layout.num_kv_heads);
  for (const AttentionSequence& s : sequences) {
    PM_CHECK(s.query_len >= 0 && s.query_len <= s.context_len,
             "{} queries in a context of {}",
             s.query_len,
             s.context_len);
  }
  Attention(isa, pool, layout, k_cache, v_cache, params, q, q_stride, sequences, out, out_stride)
      .run();
}

}  // namespace pagemill
