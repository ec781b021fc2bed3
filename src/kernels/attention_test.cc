#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tensor/float_convert.h"

namespace pagemill {
namespace {

constexpr unsigned kSeed = 20261122;

struct Model {
  DType dtype = DType::kBF16;
  int kv_heads = 3;
  int group = 3;
  int head_size = 64;
  int window = 0;
  float softcap = 0;
  bool alibi = false;

  int heads() const { return kv_heads * group; }
  std::string name() const {
    return fmt::format("{} kv_heads {} group {} head_size {} window {} softcap {} alibi {}",
                       dtype_info(dtype).name,
                       kv_heads,
                       group,
                       head_size,
                       window,
                       softcap,
                       alibi);
  }
};

// Queries, keys and values of one sequence's every position.
struct Tokens {
  int len = 0;
  std::vector<float> q;  // [len, heads, head_size]
  std::vector<float> k;  // [len, kv_heads, head_size]
  std::vector<float> v;
};

Tokens random_tokens(const Model& model, int len, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Tokens tokens;
  tokens.len = len;
  const auto fill = [&](std::vector<float>& x, int heads) {
    x.resize(static_cast<std::size_t>(len) * static_cast<std::size_t>(heads * model.head_size));
    for (float& a : x) a = normal(rng);
  };
  fill(tokens.q, model.heads());
  fill(tokens.k, model.kv_heads);
  fill(tokens.v, model.kv_heads);
  return tokens;
}

struct Machine {
  Isa isa = Isa::kScalar;
  int threads = 1;
  int block_size = 16;
  unsigned shuffle = 1;  // which blocks the sequences get
};

// A cache full of NaN, and sequences that fill it step by step.
class Cache {
 public:
  Cache(const Model& model, const Machine& machine, const std::vector<const Tokens*>& sequences)
      : model_(model), machine_(machine), sequences_(sequences), pool_(machine.threads) {
    layout_ = {model.dtype, model.kv_heads, model.head_size, machine.block_size};
    std::size_t blocks = 1;
    for (const Tokens* s : sequences) blocks += blocks_of(s->len);
    blocks += 3;
    k_.assign(blocks * layout_.block_bytes(), std::byte{0xff});
    v_ = k_;
    std::vector<BlockId> ids(blocks - 1);
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(machine.shuffle));
    auto next = ids.begin();
    for (const Tokens* s : sequences) {
      const auto n = static_cast<std::ptrdiff_t>(blocks_of(s->len));
      tables_.emplace_back(next, next + n);
      next += n;
      done_.push_back(0);
      out_.emplace_back(static_cast<std::size_t>(s->len * model.heads() * model.head_size),
                        std::numeric_limits<float>::quiet_NaN());
    }
    for (int h = 0; h < model.heads(); ++h) {
      slopes_.push_back(
          std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(model.heads())));
    }
  }

  // One step: each sequence goes on by up to `chunks[i]` tokens.
  void step(const std::vector<int>& chunks) {
    const int kv_width = model_.kv_heads * model_.head_size;
    const int width = model_.heads() * model_.head_size;
    // Strides wider than the rows, as in a fused QKV projection.
    const int stride = width + 2 * kv_width;
    std::vector<float> qkv;
    std::vector<std::int64_t> slots;
    std::vector<AttentionSequence> batch;
    for (std::size_t i = 0; i < sequences_.size(); ++i) {
      const Tokens& s = *sequences_[i];
      const int n = std::min(chunks[i], s.len - done_[i]);
      batch.push_back(
          {static_cast<std::int32_t>(slots.size()), n, done_[i] + n, tables_[i].data()});
      for (int t = done_[i]; t < done_[i] + n; ++t) {
        const auto append = [&](const std::vector<float>& x, int w) {
          qkv.insert(qkv.end(), x.begin() + t * w, x.begin() + (t + 1) * w);
        };
        append(s.q, width);
        append(s.k, kv_width);
        append(s.v, kv_width);
        const auto block = static_cast<std::size_t>(t / machine_.block_size);
        slots.push_back(std::int64_t{tables_[i][block]} * machine_.block_size +
                        t % machine_.block_size);
      }
    }
    if (slots.empty()) return;
    write_kv(machine_.isa,
             pool_,
             layout_,
             k_.data(),
             v_.data(),
             qkv.data() + width,
             stride,
             qkv.data() + width + kv_width,
             stride,
             slots);
    AttentionParams params;
    params.num_heads = model_.heads();
    params.scale = 1 / std::sqrt(static_cast<float>(model_.head_size));
    params.window = model_.window;
    params.logit_softcap = model_.softcap;
    params.alibi_slopes = model_.alibi ? slopes_.data() : nullptr;
    std::vector<float> out(slots.size() * static_cast<std::size_t>(width));
    paged_attention(machine_.isa,
                    pool_,
                    layout_,
                    k_.data(),
                    v_.data(),
                    params,
                    qkv.data(),
                    stride,
                    batch,
                    out.data(),
                    width);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto first = out.begin() + std::int64_t{batch[i].query_start} * width;
      std::copy(first,
                first + std::int64_t{batch[i].query_len} * width,
                out_[i].begin() + std::int64_t{done_[i]} * width);
      done_[i] += batch[i].query_len;
    }
  }

  bool finished() const {
    for (std::size_t i = 0; i < done_.size(); ++i) {
      if (done_[i] < sequences_[i]->len) return false;
    }
    return true;
  }

  const std::vector<float>& out(std::size_t i) const { return out_[i]; }
  const std::vector<float>& slopes() const { return slopes_; }
  const std::vector<std::byte>& k() const { return k_; }
  const std::vector<std::byte>& v() const { return v_; }
  const std::vector<BlockId>& table(std::size_t i) const { return tables_[i]; }

 private:
  std::size_t blocks_of(int len) const {
    return static_cast<std::size_t>((len + machine_.block_size - 1) / machine_.block_size);
  }

  Model model_;
  Machine machine_;
  std::vector<const Tokens*> sequences_;
  ThreadPool pool_;
  KvLayout layout_;
  std::vector<std::byte> k_;
  std::vector<std::byte> v_;
  std::vector<std::vector<BlockId>> tables_;
  std::vector<int> done_;
  std::vector<std::vector<float>> out_;
  std::vector<float> slopes_;
};

// Every position's output of each sequence, in steps of `chunk` tokens.
std::vector<std::vector<float>> run(const Model& model,
                                    const Machine& machine,
                                    const std::vector<const Tokens*>& sequences,
                                    int chunk) {
  Cache cache(model, machine, sequences);
  while (!cache.finished()) cache.step(std::vector<int>(sequences.size(), chunk));
  std::vector<std::vector<float>> out;
  out.reserve(sequences.size());
  for (std::size_t i = 0; i < sequences.size(); ++i) out.push_back(cache.out(i));
  return out;
}

std::vector<const Tokens*> pointers_to(const std::vector<Tokens>& tokens) {
  std::vector<const Tokens*> out(tokens.size());
  std::transform(tokens.begin(), tokens.end(), out.begin(), [](const Tokens& t) { return &t; });
  return out;
}

bool same_bits(const float* a, const float* b, std::size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// The answer in double precision for one (position, head), and sum of p |v| over its sum of p, by
// which errors are measured.
struct Exact {
  std::vector<double> out;
  std::vector<double> size;
};

Exact exact_attention(const Model& model,
                      const Tokens& s,
                      const std::vector<float>& slopes,
                      bool round_q,
                      int position,
                      int head) {
  const auto stored = [&](float x) {
    return model.dtype == DType::kBF16 ? bf16_to_float(float_to_bf16(x)) : x;
  };
  const int hd = model.head_size;
  const int kv_head = head / model.group;
  const int first = model.window > 0 ? std::max(0, position - model.window + 1) : 0;
  const float* q = s.q.data() + (position * model.heads() + head) * hd;
  std::vector<double> scores;
  for (int t = first; t <= position; ++t) {
    const float* k = s.k.data() + (t * model.kv_heads + kv_head) * hd;
    double dot = 0;
    for (int d = 0; d < hd; ++d) {
      const float a = round_q ? bf16_to_float(float_to_bf16(q[d])) : q[d];
      dot += static_cast<double>(a) * stored(k[d]);
    }
    dot /= std::sqrt(static_cast<double>(hd));
    if (model.softcap > 0) dot = model.softcap * std::tanh(dot / model.softcap);
    if (model.alibi) dot += slopes[static_cast<std::size_t>(head)] * (t - position);
    scores.push_back(dot);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  Exact exact{std::vector<double>(static_cast<std::size_t>(hd)),
              std::vector<double>(static_cast<std::size_t>(hd))};
  double sum = 0;
  for (int t = first; t <= position; ++t) {
    const double p = std::exp(scores[static_cast<std::size_t>(t - first)] - top);
    sum += p;
    const float* v = s.v.data() + (t * model.kv_heads + kv_head) * hd;
    for (int d = 0; d < hd; ++d) {
      exact.out[static_cast<std::size_t>(d)] += p * stored(v[d]);
      exact.size[static_cast<std::size_t>(d)] += p * std::abs(stored(v[d]));
    }
  }
  for (double& x : exact.out) x /= sum;
  for (double& x : exact.size) x /= sum;
  return exact;
}

class Attention : public ::testing::TestWithParam<Isa> {
 protected:
  Machine machine() const {
    Machine m;
    m.isa = GetParam();
    return m;
  }

  // kAvx512Bf16 rounds queries and weights to bf16: a weight's rounding costs up to 2^-8 of p |v|.
  bool rounds(const Model& model) const {
    return model.dtype == DType::kBF16 && GetParam() == Isa::kAvx512Bf16;
  }

  void expect_near_exact(const Model& model, const Tokens& s, const std::vector<float>& out) {
    Cache cache(model, machine(), {&s});  // for its slopes
    const double relative = rounds(model) ? 1.0 / 256 + 2e-5 : 2e-5;
    double worst = 0;
    std::mt19937 rng(kSeed);
    for (int i = 0; i < 40; ++i) {
      // The ends of tiles, chunks and splits are where it goes wrong; the last token sees the most.
      const int position =
          i == 0 ? s.len - 1
                 : std::clamp(static_cast<int>(rng() % static_cast<unsigned>(s.len) / 16 * 16) +
                                  static_cast<int>(rng() % 3) - 1,
                              0,
                              s.len - 1);
      const int head = static_cast<int>(rng() % static_cast<unsigned>(model.heads()));
      const Exact exact = exact_attention(model, s, cache.slopes(), rounds(model), position, head);
      for (std::size_t d = 0; d < exact.out.size(); ++d) {
        const float got =
            out[static_cast<std::size_t>((position * model.heads() + head) * model.head_size) + d];
        const double error = std::abs(got - exact.out[d]) / (exact.size[d] + 1e-3);
        worst = std::isnan(error) ? 1e9 : std::max(worst, error);
      }
    }
    EXPECT_LE(worst, relative) << model.name() << " len " << s.len << " seed " << kSeed;
  }
};

TEST_P(Attention, MatchesDoublePrecisionOverRandomShapes) {
  std::mt19937 rng(kSeed);
  const auto pick = [&](std::initializer_list<int> from) {
    return from.begin()[rng() % from.size()];
  };
  for (int round = 0; round < 60; ++round) {
    Model model;
    model.dtype = round % 2 == 0 ? DType::kBF16 : DType::kF32;
    model.kv_heads = pick({1, 2, 3});
    model.group = pick({1, 3, 4, 8});
    model.head_size = pick({32, 64, 80, 96, 128});
    model.window = pick({0, 0, 0, 1, 7, 16, 33, 100});
    model.softcap = pick({0, 0, 0, 5});
    model.alibi = pick({0, 0, 1}) == 1;
    Machine m = machine();
    m.block_size = pick({16, 32, 64});
    m.threads = pick({1, 2});
    std::vector<Tokens> tokens;
    tokens.reserve(3);
    for (int i = 0; i < 3; ++i) {
      tokens.push_back(
          random_tokens(model, 1 + static_cast<int>(rng() % 200), static_cast<unsigned>(rng())));
    }
    const std::vector<const Tokens*> sequences = pointers_to(tokens);
    const auto out = run(model, m, sequences, pick({40, 64, 1000}));
    for (std::size_t i = 0; i < tokens.size(); ++i) expect_near_exact(model, tokens[i], out[i]);
  }
}

TEST_P(Attention, UnusualHeadSizes) {
  for (int head_size : {2, 6, 10, 18, 30, 34, 72, 112, 192, 250, 256}) {
    for (DType dtype : {DType::kBF16, DType::kF32}) {
      Model model{dtype, 2, 3, head_size, 0, 0, false};
      const Tokens tokens = random_tokens(model, 150, kSeed);
      const auto out = run(model, machine(), {&tokens}, 150);
      expect_near_exact(model, tokens, out[0]);
      EXPECT_TRUE(same_bits(out[0], run(model, machine(), {&tokens}, 7)[0])) << model.name();
    }
  }
}

// More query heads to a KV head than a task takes rows (MQA).
TEST_P(Attention, ManyHeadsShareAKvHead) {
  const Model model{DType::kBF16, 1, 71, 64, 0, 0, false};
  const Tokens tokens = random_tokens(model, 40, kSeed);
  const auto out = run(model, machine(), {&tokens}, 40);
  expect_near_exact(model, tokens, out[0]);
  EXPECT_TRUE(same_bits(out[0], run(model, machine(), {&tokens}, 1)[0]));
}

TEST_P(Attention, LongContextsSplit) {
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    for (int window : {0, 1500}) {
      const Model model{dtype, 1, 3, 32, window, 0, false};
      const Tokens tokens = random_tokens(model, 2 * kAttentionSplit + 70, kSeed);
      const auto whole = run(model, machine(), {&tokens}, tokens.len);
      expect_near_exact(model, tokens, whole[0]);
      for (int threads : {2, 4}) {
        Machine m = machine();
        m.threads = threads;
        EXPECT_TRUE(same_bits(whole[0], run(model, m, {&tokens}, 700)[0]))
            << model.name() << " threads " << threads;
      }
      // Token by token around the splits' ends, where one thread merges and several do.
      for (int threads : {1, 4}) {
        Machine m = machine();
        m.threads = threads;
        Cache cache(model, m, {&tokens});
        cache.step({kAttentionSplit - 2});
        for (int i = 0; i < 5; ++i) cache.step({1});
        cache.step({kAttentionSplit - 5});
        while (!cache.finished()) cache.step({1});
        EXPECT_TRUE(same_bits(whole[0], cache.out(0))) << model.name() << " threads " << threads;
      }
    }
  }
}

TEST_P(Attention, SameBitsInAnyChunksOfAnyBlocks) {
  for (const Model& model : {Model{DType::kBF16, 3, 3, 64, 0, 0, false},
                             Model{DType::kF32, 3, 3, 64, 0, 0, false},
                             Model{DType::kBF16, 2, 4, 80, 37, 0, false},
                             Model{DType::kF32, 1, 8, 96, 16, 4.0f, false},
                             Model{DType::kBF16, 2, 1, 128, 0, 3.0f, true}}) {
    const Tokens tokens = random_tokens(model, 333, kSeed);
    const auto whole = run(model, machine(), {&tokens}, tokens.len);
    for (int chunk : {1, 5, 16, 100}) {
      Machine m = machine();
      m.shuffle = static_cast<unsigned>(chunk);
      m.block_size = chunk == 5 ? 32 : chunk == 100 ? 64 : 16;
      EXPECT_TRUE(same_bits(whole[0], run(model, m, {&tokens}, chunk)[0]))
          << model.name() << " chunk " << chunk;
    }
  }
}

TEST_P(Attention, SameBitsAloneOrAmongOthersOnAnyThreads) {
  for (const Model& model :
       {Model{DType::kBF16, 3, 3, 64, 0, 0, false}, Model{DType::kF32, 2, 4, 64, 50, 0, false}}) {
    std::vector<Tokens> tokens;
    for (int len : {1, 15, 16, 17, 129, 300, 31, 200}) {
      tokens.push_back(random_tokens(model, len, static_cast<unsigned>(len)));
    }
    const std::vector<const Tokens*> sequences = pointers_to(tokens);
    std::vector<std::vector<float>> alone;
    alone.reserve(sequences.size());
    for (const Tokens* s : sequences) alone.push_back(run(model, machine(), {s}, s->len)[0]);
    for (int threads : {1, 2, 4}) {
      Machine m = machine();
      m.threads = threads;
      m.shuffle = static_cast<unsigned>(threads);
      // Prompts in chunks of their own beside sequences that decode, and some that wait a step.
      Cache cache(model, m, sequences);
      std::mt19937 rng(kSeed + static_cast<unsigned>(threads));
      while (!cache.finished()) {
        std::vector<int> chunks;
        for (std::size_t i = 0; i < sequences.size(); ++i) {
          const unsigned kind = rng() % 4;
          chunks.push_back(kind == 0 ? 0 : kind == 1 ? 1 : static_cast<int>(rng() % 90));
        }
        cache.step(chunks);
      }
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        EXPECT_TRUE(same_bits(alone[i], cache.out(i)))
            << model.name() << " threads " << threads << " len " << sequences[i]->len;
      }
    }
  }
}

// Infinite values of later tokens, and of tokens that left the window, are 0 times nothing.
TEST_P(Attention, TokensOutOfSightHaveNoInfluence) {
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    const Model model{dtype, 1, 3, 64, 20, 0, false};
    const Tokens clean = random_tokens(model, 90, kSeed);
    const auto expected = run(model, machine(), {&clean}, 90);
    for (int bad : {0, 33, 34, 63, 89}) {
      Tokens tokens = clean;
      for (int d = 0; d < 64; ++d) {
        const auto at = static_cast<std::size_t>(bad) * 64 + static_cast<std::size_t>(d);
        tokens.v[at] = d % 2 == 0 ? std::numeric_limits<float>::infinity()
                                  : std::numeric_limits<float>::quiet_NaN();
        tokens.k[at] = tokens.v[at];
      }
      const auto out = run(model, machine(), {&tokens}, 90);
      for (int t = 0; t < 90; ++t) {
        const std::size_t width = 3 * 64;
        const auto at = static_cast<std::size_t>(t) * width;
        const bool sees = bad <= t && bad > t - 20;
        EXPECT_EQ(same_bits(expected[0].data() + at, out[0].data() + at, width), !sees)
            << "token " << t << " bad " << bad;
      }
    }
  }
}

TEST_P(Attention, LargeScoresDoNotOverflow) {
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    const Model model{dtype, 1, 1, 64, 0, 0, false};
    Tokens tokens = random_tokens(model, 300, kSeed);
    for (float& x : tokens.q) x *= 100;
    const auto out = run(model, machine(), {&tokens}, 300);
    for (float x : out[0]) ASSERT_TRUE(std::isfinite(x));
  }
}

// The layout of attention.h, element by element.
TEST_P(Attention, WritesKeysAndValuesInTheStatedLayout) {
  for (int block_size : {16, 32}) {
    for (DType dtype : {DType::kBF16, DType::kF32}) {
      const Model model{dtype, 2, 1, 10, 0, 0, false};
      const Tokens tokens = random_tokens(model, 37, kSeed);
      Machine m = machine();
      m.block_size = block_size;
      m.threads = 2;
      Cache cache(model, m, {&tokens});
      cache.step({37});
      const int hd = model.head_size;
      const auto element = [&](const std::vector<std::byte>& from, int index) {
        if (dtype == DType::kF32) {
          float x = 0;
          std::memcpy(&x, from.data() + index * 4, 4);
          return x;
        }
        std::uint16_t x = 0;
        std::memcpy(&x, from.data() + index * 2, 2);
        return bf16_to_float(x);
      };
      for (int t = 0; t < 38; ++t) {
        for (int head = 0; head < 2; ++head) {
          const int block = cache.table(0)[static_cast<std::size_t>(t / block_size)];
          const int offset = t % block_size;
          const int tile = (block * 2 + head) * (block_size / 16) + offset / 16;
          const int lane = offset % 16;
          for (int d = 0; d < hd; ++d) {
            const int pack = dtype == DType::kBF16 ? 2 : 1;
            const int at_k = tile * 16 * hd + (d / pack * 16 + lane) * pack + d % pack;
            const int at_v = tile * 16 * hd + (lane / pack * hd + d) * pack + lane % pack;
            if (t == 37) {  // not written: only the odd partner of token 36's values is cleared
              EXPECT_TRUE(std::isnan(element(cache.k(), at_k)));
              if (pack == 2) {
                EXPECT_EQ(element(cache.v(), at_v), 0.0f);
              } else {
                EXPECT_TRUE(std::isnan(element(cache.v(), at_v)));
              }
              continue;
            }
            const auto from =
                static_cast<std::size_t>(t * 2 + head) * static_cast<std::size_t>(hd) +
                static_cast<std::size_t>(d);
            const auto rounded = [&](float x) {
              return pack == 2 ? bf16_to_float(float_to_bf16(x)) : x;
            };
            ASSERT_EQ(element(cache.k(), at_k), rounded(tokens.k[from])) << t << " " << d;
            ASSERT_EQ(element(cache.v(), at_v), rounded(tokens.v[from])) << t << " " << d;
          }
        }
      }
    }
  }
}

TEST_P(Attention, PaddingIsNotWritten) {
  KvLayout layout{DType::kBF16, 1, 16, 16};
  std::vector<std::byte> cache(layout.block_bytes(), std::byte{0xff});
  std::vector<std::byte> v = cache;
  const std::vector<float> x(16, 1.0f);
  const std::vector<std::int64_t> slots = {-1};
  ThreadPool pool(1);
  write_kv(GetParam(), pool, layout, cache.data(), v.data(), x.data(), 16, x.data(), 16, slots);
  for (std::byte b : cache) EXPECT_EQ(b, std::byte{0xff});
  EXPECT_EQ(cache, v);
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         Attention,
                         ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace pagemill
