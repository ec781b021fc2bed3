// Attention over one task, written once over Vec (vec_*.h) and a cache format; included by
// attention_<isa>.cc after both. A format `Kv` has
//   kPack         elements of K, and tokens of V, that one 32-bit lane packs (bf16: 2, f32: 1)
//   Elem          what queries and probabilities are stored as; store_elems: 16 floats to 16 Elem
//
//   KStep, load_k, dot: 16 tokens x kPack elements of K; dot(acc, k, q) adds k . q
//
//   VStep, load_v, load_v_part, add_v: kPack tokens x 16 elements of V; add_v(acc, v, p) adds p v
//
// Same bits: a row is computed by the same operations in the same order whatever rows surround it.
// Scores are one chain over the head's elements; weighted values are one chain over the tokens that
// the row sees, in order, rescaled at multiples of kChunkTokens. The blocking below only
// interleaves independent chains.
#pragma once

#include "kernels/attention_isa.h"

namespace pagemill {
namespace {

constexpr float kNoScore = -__builtin_inff();
constexpr float kShiftSlack = 10.0f;  // exp(10) = 22026: far from overflow even as a sum of 2^31
constexpr int kChunkTiles = kChunkTokens / kTileTokens;
constexpr int kAheadTiles = 4;
constexpr int kStepBytes = 64;  // one K step, or one V step of 16 elements, of either format

inline int int_min(int a, int b) { return a < b ? a : b; }
inline int int_max(int a, int b) { return a > b ? a : b; }

template <typename Kv>
struct Attender {
  using Elem = typename Kv::Elem;

  // A block of rows is scored, normalised and applied to the values before the next one, so that
  // its scores stay in the first-level cache.
  static constexpr int kRows = Kv::kScoreRows;

  const AttentionTask& task;
  const AttentionPartial& to;
  int chunk = 0;  // first token of the chunk
  // Those of the chunk that some row sees, then the next chunk's first ones, to prefetch.
  const std::byte* k_tiles[kChunkTiles + kAheadTiles] = {};
  const std::byte* v_tiles[kChunkTiles + kAheadTiles] = {};
  int tiles_end = 0;
  alignas(64) Elem q[kMaxTileRows * kMaxHeadSize];
  alignas(64) float sums[kMaxTileRows * kLanes];  // of exp, by lane
  alignas(64) float scores[kRows * kChunkTokens];
  alignas(64) Elem weights[kRows * kChunkTokens];

  Attender(const AttentionTask& t, const AttentionPartial& p) : task(t), to(p) {}

  int row_first(int row) const { return int_max(task.first[row] - chunk, 0); }
  int row_end(int row) const { return int_min(task.end[row] - chunk, kChunkTokens); }

  void prepare() {
    for (int row = 0; row < task.rows; ++row) {
      Elem* q_row = q + row * task.head_size;
      int d = 0;
      for (; d + kLanes <= task.head_size; d += kLanes) {
        Kv::store_elems(q_row + d, load(task.q[row] + d));
      }
      if (d < task.head_size) {
        alignas(64) Elem rest[kLanes];
        Kv::store_elems(rest, load_first(task.q[row] + d, task.head_size - d));
        __builtin_memcpy(
            q_row + d, rest, static_cast<std::size_t>(task.head_size - d) * sizeof(Elem));
      }
      to.max[row] = kNoScore;
      store(sums + row * kLanes, splat(0));
      for (int i = 0; i < to.out_stride; i += kLanes) store(out_row(row) + i, splat(0));
    }
  }

  float* out_row(int row) const { return to.out + row * to.out_stride; }

  // The tiles of the chunk's tokens [first, end), relative to the chunk.
  void find_tiles(int first, int end) {
    const std::size_t tile_bytes =
        static_cast<std::size_t>(task.head_size / Kv::kPack) * kStepBytes;
    for (int tile = first / kTileTokens; tile * kTileTokens < end; ++tile) {
      const int token = chunk + tile * kTileTokens;
      const auto block = static_cast<std::size_t>(task.block_table[token / task.block_size]);
      const auto inside = static_cast<std::size_t>(token % task.block_size / kTileTokens);
      const std::size_t at = block * task.block_stride + inside * tile_bytes;
      k_tiles[tile] = task.k + at;
      v_tiles[tile] = task.v + at;
      tiles_end = tile + 1;
    }
  }

  // ---- Scores: R rows by T tiles of independent chains.

  template <int R, int T>
  void score_block(int row, int tile) {
    const int stride = task.head_size;
    const Elem* q_rows = q + row * stride;
    Vec acc[R][T];
    for (int r = 0; r < R; ++r) {
      for (int t = 0; t < T; ++t) acc[r][t] = splat(0);
    }
    // Few rows do little with each key: memory is the limit, so fetch what is read next.
    constexpr bool kFetch = R <= kRows / 2;
    const std::byte* k[T];
    const std::byte* next_k[T];
    const std::byte* v[T];
    for (int t = 0; t < T; ++t) {
      k[t] = k_tiles[tile + t];
      v[t] = v_tiles[tile + t];
      next_k[t] = tile + t + T < tiles_end ? k_tiles[tile + t + T] : k[t];
    }
    for (int d = 0; d < task.head_size; d += Kv::kPack) {
      typename Kv::KStep step[T];
      for (int t = 0; t < T; ++t) {
        step[t] = Kv::load_k(k[t]);
        k[t] += kStepBytes;
        if constexpr (kFetch) {
          __builtin_prefetch(next_k[t]);
          __builtin_prefetch(v[t]);
          next_k[t] += kStepBytes;
          v[t] += kStepBytes;
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
          acc[r][t] = Kv::dot(acc[r][t], step[t], q_rows + r * stride + d);
      }
    }
    float* to_scores = scores + (row % kRows) * kChunkTokens + tile * kTileTokens;
    for (int r = 0; r < R; ++r) {
      for (int t = 0; t < T; ++t) store(to_scores + r * kChunkTokens + t * kTileTokens, acc[r][t]);
    }
  }

  template <int R>
  void score_rows(int row, int tile_begin, int tile_end) {
    constexpr int kTiles = R <= kRows / 2 ? Kv::kScoreTiles * 2 : Kv::kScoreTiles;
    int tile = tile_begin;
    for (; tile + kTiles <= tile_end; tile += kTiles) score_block<R, kTiles>(row, tile);
    if constexpr (kTiles > 2) {
      for (; tile + 2 <= tile_end; tile += 2) score_block<R, 2>(row, tile);
    }
    for (; tile < tile_end; ++tile) score_block<R, 1>(row, tile);
  }

  template <int R>
  void score_dispatch(int rows, int row, int tile_begin, int tile_end) {
    if constexpr (R > 1) {
      if (rows < R) return score_dispatch<R - 1>(rows, row, tile_begin, tile_end);
    }
    score_rows<R>(row, tile_begin, tile_end);
  }

  // ---- Softmax of one row: scores to weights.

  Vec finish_scores(Vec x, int row, int token) const {
    x = x * splat(task.scale);
    if (task.softcap > 0) x = splat(task.softcap) * vec_tanh(x / splat(task.softcap));
    if (task.has_alibi) {
      static constexpr float kLane[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
      const auto distance = static_cast<float>(chunk + token - (task.end[row] - 1));
      x = x + splat(task.slope[row]) * (splat(distance) + load(kLane));
    }
    return x;
  }

  void softmax_row(int row) {
    const int first_token = row_first(row);
    const int end_token = row_end(row);
    if (first_token >= end_token) return;
    float* s = scores + (row % kRows) * kChunkTokens;
    Elem* w = weights + (row % kRows) * kChunkTokens;
    const int begin = first_token / kTileTokens * kTileTokens;

    Vec top = splat(kNoScore);
    for (int token = begin; token < end_token; token += kTileTokens) {
      Vec x = finish_scores(load(s + token), row, token);
      if (token < first_token || token + kTileTokens > end_token) {
        // Lanes beyond may hold anything, NaN included.
        const int from = int_max(first_token - token, 0);
        x = keep_range(x, from, int_min(end_token - token, kTileTokens), kNoScore);
      }
      store(s + token, x);
      top = vec_max(top, x);
    }
    // The shift need not be the maximum, only near enough that nothing overflows: keeping the old
    // one saves the rescaling, and the exponentials need not wait for the maximum.
    const float old_shift = to.max[row];
    const float chunk_max = max_lanes(top);
    float new_shift = old_shift;
    Vec sum = load(sums + row * kLanes);
    if (!(chunk_max <= old_shift + kShiftSlack)) {
      new_shift = chunk_max;
      if (old_shift != kNoScore) {
        const Vec rescale = vec_exp(splat(old_shift - new_shift));
        sum = sum * rescale;
        float* o = out_row(row);
        for (int i = 0; i < to.out_stride; i += kLanes) store(o + i, load(o + i) * rescale);
      }
    }
    const Vec shift = splat(new_shift);
    for (int token = begin; token < end_token; token += kTileTokens) {
      const Vec p = vec_exp(load(s + token) - shift);
      sum = sum + p;
      Kv::store_elems(w + token, p);
    }
    store(sums + row * kLanes, sum);
    to.max[row] = new_shift;
  }

  // ---- Weighted values: R rows by D vectors of the head's elements, over whole V steps.

  std::size_t v_row_bytes() const { return static_cast<std::size_t>(task.head_size) * 4; }

  template <int R, int D>
  void value_block(int row, int d, int step_begin, int step_end) {
    constexpr int kSteps = kTileTokens / Kv::kPack;  // of a tile
    const std::size_t stride = v_row_bytes();
    float* o[R];
    Vec acc[R][D];
    for (int r = 0; r < R; ++r) {
      o[r] = out_row(row + r) + d;
      for (int i = 0; i < D; ++i) acc[r][i] = load(o[r] + i * kLanes);
    }
    const Elem* w = weights + (row % kRows) * kChunkTokens;
    for (int step = step_begin; step < step_end;) {
      const int tile = step / kSteps;
      const int stop = int_min(step_end, (tile + 1) * kSteps);
      const std::byte* v = v_tiles[tile] + static_cast<std::size_t>(step % kSteps) * stride +
                           static_cast<std::size_t>(d) * 4;
      for (; step < stop; ++step, v += stride) {
        typename Kv::VStep values[D];
        for (int i = 0; i < D; ++i) values[i] = Kv::load_v(v + i * kStepBytes);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
          for (int i = 0; i < D; ++i) {
            acc[r][i] = Kv::add_v(acc[r][i], values[i], w + r * kChunkTokens + step * Kv::kPack);
          }
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < D; ++i) store(o[r] + i * kLanes, acc[r][i]);
    }
  }

  template <int R>
  void value_rows(int row, int step_begin, int step_end) {
    if (step_begin >= step_end) return;
    int d = 0;
    constexpr int kWide = R <= Kv::kValueRows / 2 ? Kv::kValueVecs * 2 : Kv::kValueVecs;
    for (; d + kWide * kLanes <= task.head_size; d += kWide * kLanes) {
      value_block<R, kWide>(row, d, step_begin, step_end);
    }
    if constexpr (kWide > 2) {
      for (; d + 2 * kLanes <= task.head_size; d += 2 * kLanes) {
        value_block<R, 2>(row, d, step_begin, step_end);
      }
    }
    if constexpr (kWide > 1) {
      for (; d + kLanes <= task.head_size; d += kLanes) {
        value_block<R, 1>(row, d, step_begin, step_end);
      }
    }
    if (d < task.head_size) {
      for (int r = 0; r < R; ++r) {
        for (int step = step_begin; step < step_end; ++step) {
          value_part(row + r, d, step, true, true);
        }
      }
    }
  }

  // One V step of one row from element d on, at most 16; a token that the row does not see (or that
  // the head's width cuts off) counts as zeros, whatever is stored there.
  void value_part(int row, int d, int step, bool use_first, bool use_second) {
    constexpr int kSteps = kTileTokens / Kv::kPack;
    const std::byte* v = v_tiles[step / kSteps] +
                         static_cast<std::size_t>(step % kSteps) * v_row_bytes() +
                         static_cast<std::size_t>(d) * 4;
    const int lanes = int_min(task.head_size - d, kLanes);
    const auto values = Kv::load_v_part(v, lanes, use_first, use_second);
    float* o = out_row(row) + d;
    const Elem* w = weights + (row % kRows) * kChunkTokens + step * Kv::kPack;
    store(o, Kv::add_v(load(o), values, w));
  }

  void value_edge(int row, int step, bool use_first, bool use_second) {
    for (int d = 0; d < task.head_size; d += kLanes)
      value_part(row, d, step, use_first, use_second);
  }

  // The whole V steps of a row are those whose tokens it sees all of.
  int whole_begin(int row) const { return (row_first(row) + Kv::kPack - 1) / Kv::kPack; }
  int whole_end(int row) const { return row_end(row) / Kv::kPack; }

  // Up to the row's first whole step `stop`, then below from `start`: the parts of its chain
  // outside the steps that it shares with its neighbours.
  void value_head(int row, int stop) {
    if (row_first(row) % Kv::kPack != 0) value_edge(row, row_first(row) / Kv::kPack, false, true);
    value_rows<1>(row, whole_begin(row), stop);
  }
  void value_tail(int row, int start) {
    value_rows<1>(row, start, whole_end(row));
    if (row_end(row) % Kv::kPack != 0) value_edge(row, row_end(row) / Kv::kPack, true, false);
  }

  template <int R>
  void values(int row) {
    int begin = 0;
    int end = kChunkTokens;
    for (int r = row; r < row + R; ++r) {
      const bool sees = row_first(r) < row_end(r);
      begin = int_max(begin, sees ? whole_begin(r) : kChunkTokens);
      end = int_min(end, sees ? whole_end(r) : 0);
    }
    if (begin >= end) {  // no step in common
      for (int r = row; r < row + R; ++r) {
        if (row_first(r) >= row_end(r)) continue;
        value_head(r, whole_end(r));
        value_tail(r, whole_end(r));
      }
      return;
    }
    for (int r = row; r < row + R; ++r) value_head(r, begin);
    value_rows<R>(row, begin, end);
    for (int r = row; r < row + R; ++r) value_tail(r, end);
  }

  // Fewer rows than a whole block: 0 .. R.
  template <int R>
  void values_dispatch(int rows, int row) {
    if constexpr (R > 0) {
      if (rows < R) return values_dispatch<R - 1>(rows, row);
      values<R>(row);
    }
  }

  // ---- A chunk.

  void attend_rows(int row, int rows) {
    int first = kChunkTokens;
    int end = 0;
    for (int r = row; r < row + rows; ++r) {
      if (row_first(r) >= row_end(r)) continue;
      first = int_min(first, row_first(r));
      end = int_max(end, row_end(r));
    }
    if (first >= end) return;
    const int tile_end = (end + kTileTokens - 1) / kTileTokens;
    score_dispatch<kRows>(rows, row, first / kTileTokens, tile_end);
    for (int r = row; r < row + rows; ++r) softmax_row(r);
    int r = row;
    for (; r + Kv::kValueRows <= row + rows; r += Kv::kValueRows) values<Kv::kValueRows>(r);
    values_dispatch<Kv::kValueRows - 1>(row + rows - r, r);
  }

  void run(int begin, int end) {
    prepare();
    int first = end;
    int stop = begin;
    for (int row = 0; row < task.rows; ++row) {
      first = int_min(first, task.first[row]);
      stop = int_max(stop, task.end[row]);
    }
    first = int_max(first, begin);
    stop = int_min(stop, end);
    for (chunk = first / kChunkTokens * kChunkTokens; chunk < stop; chunk += kChunkTokens) {
      find_tiles(int_max(first - chunk, 0),
                 int_min(stop - chunk, kChunkTokens + kAheadTiles * kTileTokens));
      for (int row = 0; row < task.rows; row += kRows) {
        attend_rows(row, int_min(kRows, task.rows - row));
      }
    }
    for (int row = 0; row < task.rows; ++row) to.sum[row] = sum_lanes(load(sums + row * kLanes));
  }
};

template <typename Kv>
void attend(const AttentionTask& task, int begin, int end, const AttentionPartial& to) {
  Attender<Kv>(task, to).run(begin, end);
}

[[maybe_unused]] void merge(const AttentionTask& task,
                            const AttentionPartial& from,
                            const AttentionPartial& into) {
  for (int row = 0; row < task.rows; ++row) {
    if (from.sum[row] == 0) continue;  // the row sees none of its tokens
    float* o = into.out + row * into.out_stride;
    const float* add = from.out + row * from.out_stride;
    if (into.sum[row] == 0) {
      into.max[row] = from.max[row];
      into.sum[row] = from.sum[row];
      for (int i = 0; i < into.out_stride; i += kLanes) store(o + i, load(add + i));
      continue;
    }
    const float max = into.max[row] > from.max[row] ? into.max[row] : from.max[row];
    const Vec a = vec_exp(splat(into.max[row] - max));
    const Vec b = vec_exp(splat(from.max[row] - max));
    into.max[row] = max;
    into.sum[row] = into.sum[row] * pagemill::first(a) + from.sum[row] * pagemill::first(b);
    for (int i = 0; i < into.out_stride; i += kLanes) {
      store(o + i, load(o + i) * a + load(add + i) * b);
    }
  }
}

[[maybe_unused]] void finish(const AttentionTask& task, const AttentionPartial& from) {
  for (int row = 0; row < task.rows; ++row) {
    const Vec sum = splat(from.sum[row]);
    const float* o = from.out + row * from.out_stride;
    for (int d = 0; d < task.head_size; d += kLanes) {
      store_first(task.out[row] + d, load(o + d) / sum, int_min(task.head_size - d, kLanes));
    }
  }
}

}  // namespace
}  // namespace pagemill
