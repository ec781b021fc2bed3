// Speed of the matrix products on the shapes of SmolLM2-135M.
//
//   pm_kernels_bench --benchmark_filter='avx512/Q4_1/gate_up/M:16/threads:2'
//
// The rate of one run is the best of its repetitions ("best"): what the machine can do when nobody
// else wants it. GB/s counts the packed weights once; of_limit is the share of what the machine's
// limits, measured at the start, allow at that shape (kernels/roofline_testing.h). Layer shapes
// rotate through enough copies of the weights that they come from memory, or the last-level cache,
// as they do in a model.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "kernels/matmul_testing.h"
#include "kernels/roofline_testing.h"

namespace pagemill {
namespace {

struct Shape {
  const char* name;
  std::int64_t cols;
  std::vector<std::int64_t> rows;  // of each target
};

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> kAll = {{"qkv", 576, {576, 192, 192}},
                                          {"o", 576, {576}},
                                          {"gate_up", 576, {1536, 1536}},
                                          {"down", 1536, {576}},
                                          {"lm_head", 576, {49152}}};
  return kAll;
}

constexpr std::size_t kWorkingSet = std::size_t{96}
                                    << 20;  // bytes of weights that a run goes through

void run_matmul(benchmark::State& state,
                Isa isa,
                DType dtype,
                const Shape& shape,
                std::int64_t m,
                int threads) {
  ThreadPool pool(threads);
  std::mt19937_64 rng(1);
  std::vector<PackedMatrix> matrices;
  std::size_t bytes = 0;  // of one set of targets
  std::size_t resident = 0;
  std::int64_t outputs = 0;
  while (resident < kWorkingSet && matrices.size() < 64 * shape.rows.size()) {
    bytes = 0;
    outputs = 0;
    for (const std::int64_t n : shape.rows) {
      const testing::RandomWeight weight(dtype, n, shape.cols, rng);
      matrices.push_back(testing::pack(isa, weight, dtype, pool));
      bytes += matrices.back().bytes();
      outputs += n;
    }
    resident += bytes;
    // Many rows reuse what they read: one copy is enough.
    if (m > 64) break;
  }
  const std::vector<float> x = testing::random_floats(m * shape.cols, rng);
  ActivationBuffer buffer(m, shape.cols);
  for (std::int64_t r = 0; r < m; ++r) {
    prepare_row(
        isa, matrices[0].activation_format(), x.data() + r * shape.cols, shape.cols, buffer, r);
  }
  std::vector<float> y(static_cast<std::size_t>(m * outputs));
  std::size_t next = 0;
  std::vector<MatmulTarget> targets(shape.rows.size());
  for (auto _ : state) {
    std::int64_t at = 0;
    for (MatmulTarget& target : targets) {
      target = {.weight = &matrices[next], .y = y.data() + at, .ldy = outputs};
      at += target.weight->rows();
      next = (next + 1) % matrices.size();
    }
    matmul(pool, buffer, m, targets);
  }
  const double flops = 2.0 * static_cast<double>(m * outputs * shape.cols);
  const MachineLimits& limits = machine_limits(threads);
  set_roofline_counters(state,
                        flops,
                        static_cast<double>(bytes),
                        limits.gflops(isa, matrices[0].activation_format()),
                        limits.gb_per_s());
}

// Counters are rates, times are not: `best` is the larger of the former, the smaller of the latter.
double largest(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

void register_all() {
  for (Isa isa : supported_isas()) {
    if (isa == Isa::kScalar) continue;
    for (DType dtype : testing::stored_dtypes()) {
      for (const Shape& shape : shapes()) {
        for (const std::int64_t m : {1, 2, 4, 8, 16, 32, 64, 256, 512}) {
          for (const int threads : {1, 2}) {
            const std::string name = fmt::format("{}/{}/{}/M:{}/threads:{}",
                                                 to_string(isa),
                                                 dtype_info(dtype).name,
                                                 shape.name,
                                                 m,
                                                 threads);
            benchmark::RegisterBenchmark(name.c_str(),
                                         [=, &shape](benchmark::State& state) {
                                           run_matmul(state, isa, dtype, shape, m, threads);
                                         })
                ->UseRealTime()
                ->MinTime(0.05)
                ->Repetitions(7)
                ->ReportAggregatesOnly()
                ->ComputeStatistics("best", largest);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pagemill

int main(int argc, char** argv) {
  pagemill::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const int threads : {1, 2}) pagemill::print_machine_limits(threads);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
