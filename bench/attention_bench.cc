// Speed of attention at the demo model's shape (SmolLM2-135M: 9 heads, 3 KV heads, head_size 64),
// one layer. Counters: GFLOP/s of the two products, GB/s of the keys and values read, and the share
// of the machine's limits (kernels/roofline_testing.h).
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/roofline_testing.h"

namespace pagemill {
namespace {

constexpr int kHeads = 9;
constexpr int kKvHeads = 3;
constexpr int kHeadSize = 64;

struct Shape {
  int sequences;
  int context_len;
  int query_len;
  int block_size = 16;
};

class Setup {
 public:
  Setup(DType dtype, const Shape& shape, int layers) : shape_(shape) {
    layout_ = {dtype, kKvHeads, kHeadSize, shape.block_size};
    const int per_sequence = (shape.context_len + shape.block_size - 1) / shape.block_size;
    const auto blocks =
        static_cast<std::size_t>(shape.sequences) * static_cast<std::size_t>(per_sequence) + 1;
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    std::vector<BlockId> ids(blocks - 1);
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), rng);
    tables_ = ids;
    for (int i = 0; i < shape.sequences; ++i) {
      batch_.push_back(
          {i * shape.query_len,
           shape.query_len,
           shape.context_len,
           tables_.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(per_sequence)});
    }
    const auto tokens =
        static_cast<std::size_t>(shape.sequences) * static_cast<std::size_t>(shape.query_len);
    q_.resize(tokens * kHeads * kHeadSize);
    for (float& x : q_) x = normal(rng);
    out_.resize(q_.size());
    const std::size_t elements = blocks * kKvHeads * shape.block_size * kHeadSize;
    std::vector<std::byte> one(blocks * layout_.block_bytes());
    for (std::size_t i = 0; i < elements; ++i) {
      const float x = normal(rng);
      if (dtype == DType::kF32) {
        std::memcpy(one.data() + i * 4, &x, 4);
      } else {
        std::memcpy(one.data() + i * 2, reinterpret_cast<const char*>(&x) + 2, 2);
      }
    }
    // As many layers as a step walks through, so that decoding finds cold keys and values.
    for (int i = 0; i < 2 * layers; ++i) caches_.push_back(one);
  }

  void run(Isa isa, ThreadPool& pool) {
    AttentionParams params;
    params.num_heads = kHeads;
    params.scale = 0.125f;
    const std::vector<std::byte>& k = caches_[next_];
    const std::vector<std::byte>& v = caches_[next_ + 1];
    next_ = (next_ + 2) % caches_.size();
    constexpr int kWidth = kHeads * kHeadSize;
    paged_attention(isa,
                    pool,
                    layout_,
                    k.data(),
                    v.data(),
                    params,
                    q_.data(),
                    kWidth,
                    batch_,
                    out_.data(),
                    kWidth);
  }

  double flops() const {
    const double first = shape_.context_len - shape_.query_len + 1;
    const double seen = shape_.query_len * (first + shape_.context_len) / 2;
    return shape_.sequences * seen * kHeads * kHeadSize * 4;
  }
  double bytes() const {
    return static_cast<double>(batch_.size()) * shape_.context_len * kKvHeads * kHeadSize * 2 *
           (layout_.dtype == DType::kF32 ? 4 : 2);
  }

 private:
  Shape shape_;
  KvLayout layout_;
  std::vector<BlockId> tables_;
  std::vector<AttentionSequence> batch_;
  std::vector<float> q_;
  std::vector<float> out_;
  std::vector<std::vector<std::byte>> caches_;
  std::size_t next_ = 0;
};

void attention(benchmark::State& state, Isa isa, DType dtype, Shape shape, int layers) {
  Setup setup(dtype, shape, layers);
  ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) setup.run(isa, pool);
  // A bf16 cache is multiplied as bf16 by kAvx512Bf16 alone, widened by the others.
  const MachineLimits& limits = machine_limits(pool.size());
  const bool as_bf16 = dtype == DType::kBF16;
  set_roofline_counters(
      state,
      setup.flops(),
      setup.bytes(),
      limits.gflops(isa, as_bf16 ? ActivationFormat::kBF16 : ActivationFormat::kF32),
      limits.gb_per_s());
}

struct Named {
  const char* name;
  Shape shape;
  int layers;
};
constexpr Named kShapes[] = {
    {"decode_64x300", {64, 300, 1}, 30},
    {"decode_1x2000", {1, 2000, 1}, 30},
    {"prefill_512", {1, 512, 512}, 1},
    {"prefill_2048", {1, 2048, 2048}, 1},
    {"chunk_256_of_2048", {1, 2048, 256}, 1},
};

void register_all() {
  for (Isa isa : supported_isas()) {
    for (DType dtype : {DType::kBF16, DType::kF32}) {
      for (const Named& n : kShapes) {
        const std::string name = std::string(n.name) + "/" + std::string(to_string(isa)) + "/" +
                                 std::string(dtype_info(dtype).name) + "/threads";
        benchmark::RegisterBenchmark(name.c_str(), attention, isa, dtype, n.shape, n.layers)
            ->Arg(1)
            ->Arg(default_num_threads())
            ->Unit(benchmark::kMicrosecond)
            ->UseRealTime();
      }
    }
  }
}

// The default KV dtype, all threads, by block size.
void register_block_sizes(Isa isa) {
  for (const Named& n : kShapes) {
    for (const int block_size : {16, 32, 64, 128, 256}) {
      Shape shape = n.shape;
      shape.block_size = block_size;
      const std::string name = std::string(n.name) + "/block_size:" + std::to_string(block_size);
      benchmark::RegisterBenchmark(name.c_str(), attention, isa, DType::kBF16, shape, n.layers)
          ->Arg(default_num_threads())
          ->Unit(benchmark::kMicrosecond)
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace pagemill

int main(int argc, char** argv) {
  pagemill::register_all();
  const pagemill::Result<pagemill::Isa> isa = pagemill::choose_isa();
  if (!isa.ok()) {
    std::fprintf(stderr, "%s\n", isa.error().message.c_str());
    return 1;
  }
  pagemill::register_block_sizes(*isa);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const int threads : {1, pagemill::default_num_threads()}) {
    pagemill::print_machine_limits(threads);
  }
  benchmark::RunSpecifiedBenchmarks();
}
