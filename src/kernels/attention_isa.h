// What attention.cc asks of an ISA's kernels: a table per ISA, from one source
// (attention_generic.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/ids.h"
#include "kernels/attention.h"

namespace pagemill {

inline constexpr int kTileTokens = 16;   // of the cache layout: one token a lane
inline constexpr int kMaxTileRows = 64;  // (query token, head) pairs of one task
inline constexpr int kMaxHeadSize = 256;
// The softmax rescales its sums at the multiples of this position, whatever the chunking.
inline constexpr int kChunkTokens = 256;

// One KV head of one sequence, and the (query token, head) rows that read it together.
struct AttentionTask {
  const std::byte* k = nullptr;  // the head's part of block 0
  const std::byte* v = nullptr;
  std::size_t block_stride = 0;  // bytes
  const BlockId* block_table = nullptr;
  int block_size = 0;
  int head_size = 0;
  float scale = 0;
  float softcap = 0;
  bool has_alibi = false;

  int rows = 0;  // 1 .. kMaxTileRows
  const float* q[kMaxTileRows];
  float* out[kMaxTileRows];
  std::int32_t first[kMaxTileRows];  // a row sees the tokens first .. end-1; its own is end-1
  std::int32_t end[kMaxTileRows];
  float slope[kMaxTileRows];
};

// A row's softmax over some tokens, not yet divided: max of the scores, sum of exp(score - max),
// and the values weighted by exp(score - max). A row that saw no token has sum 0 and max -inf.
struct AttentionPartial {
  float* max;      // [rows]
  float* sum;      // [rows]
  float* out;      // [rows][out_stride]
  int out_stride;  // a multiple of 16 >= head_size
};

struct AttentionKernels {
  // Each row over the tokens that it sees among [begin, end); begin is a multiple of kChunkTokens.
  using Attend = void (*)(const AttentionTask& task,
                          int begin,
                          int end,
                          const AttentionPartial& to);
  Attend attend_bf16;
  Attend attend_f32;
  // `into` covers tokens before those of `from`.
  void (*merge)(const AttentionTask& task,
                const AttentionPartial& from,
                const AttentionPartial& into);
  // Divides and stores to task.out.
  void (*finish)(const AttentionTask& task, const AttentionPartial& from);
  void (*to_bf16)(const float* x, int n, std::uint16_t* y);  // round to nearest even
};

// The parts of kAttentionAvx512Bf16 that multiply or round by AVX-512 BF16; the rest is
// kAttentionAvx512's.
namespace avx512bf16 {
void attend_bf16(const AttentionTask& task, int begin, int end, const AttentionPartial& to);
void to_bf16(const float* x, int n, std::uint16_t* y);
}  // namespace avx512bf16

extern const AttentionKernels kAttentionScalar;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
extern const AttentionKernels kAttentionAvx512Bf16;

const AttentionKernels& attention_kernels(Isa isa);

}  // namespace pagemill
