#include "kernels/limits.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/limits_isa.h"
#include "tensor/aligned_buffer.h"

namespace pagemill {
namespace {

// Every byte is read once, whatever the streams: the sum of exclusive ors says so.
TEST(Limits, ReadLoopsReadEverything) {
  std::vector<ReadLoop> loops = {kReadLoopScalar};
  if (isa_supported(Isa::kAvx2)) loops.push_back(kReadLoopAvx2);
  if (isa_supported(Isa::kAvx512)) loops.push_back(kReadLoopAvx512);
  AlignedBuffer buffer(std::size_t{kMaxReadStreams} * 4096);
  std::uint64_t expected = 0;
  std::uint64_t value = 1;
  for (std::uint64_t& word : buffer.as<std::uint64_t>()) {
    word = value = value * 6364136223846793005u + 1442695040888963407u;
    expected ^= word;
  }
  for (const ReadLoop loop : loops) {
    for (int streams = 1; streams <= kMaxReadStreams; streams *= 2) {
      for (const bool prefetch : {false, true}) {
        EXPECT_EQ(loop(buffer.data(), buffer.size(), streams, prefetch), expected) << streams;
      }
    }
  }
}

TEST(Limits, AreThoseOfWhatTheMachineHas) {
  const auto measured = measure_limits(2, {.repeats = 1, .buffer_bytes = 1 << 20});
  ASSERT_TRUE(measured.ok()) << measured.error().message;
  const MachineLimits& limits = *measured;
  EXPECT_EQ(limits.threads, 2);
  EXPECT_EQ(limits.read.size(), 8u);
  EXPECT_GT(limits.gb_per_s(), 0);
  EXPECT_GT(limits.fork_join_us, 0);
  for (const ComputeLimit& limit : limits.compute) {
    EXPECT_TRUE(isa_supported(limit.isa)) << limit.instruction;
    EXPECT_GT(limit.gflops, 0) << limit.instruction;
    EXPECT_LE(limit.median_gflops, limit.gflops) << limit.instruction;
  }
  EXPECT_EQ(limits.gflops(Isa::kScalar, ActivationFormat::kF32), 0);
  for (const Isa isa : supported_isas()) {
    if (isa == Isa::kScalar) continue;
    EXPECT_GT(limits.gflops(isa, ActivationFormat::kF32), 0) << to_string(isa);
    EXPECT_GT(limits.gflops(isa, ActivationFormat::kBF16), 0) << to_string(isa);
    EXPECT_GT(limits.gflops(isa, ActivationFormat::kQ16), 0) << to_string(isa);
  }
}

TEST(Limits, TheInstructionIsThatOfTheKernels) {
  MachineLimits limits;
  limits.compute = {{Isa::kAvx2, "VFMADD", 1, 1},
                    {Isa::kAvx2, "VPMADDWD+VPADDD", 2, 2},
                    {Isa::kAvx512, "VFMADD", 3, 3},
                    {Isa::kAvx512, "VPDPWSSD", 4, 4},
                    {Isa::kAvx512Bf16, "VDPBF16PS", 5, 5}};
  using Format = ActivationFormat;
  EXPECT_EQ(limits.gflops(Isa::kAvx2, Format::kF32), 1);
  EXPECT_EQ(limits.gflops(Isa::kAvx2, Format::kBF16), 1);
  EXPECT_EQ(limits.gflops(Isa::kAvx2, Format::kQ16), 2);
  EXPECT_EQ(limits.gflops(Isa::kAvx512, Format::kF32), 3);
  EXPECT_EQ(limits.gflops(Isa::kAvx512, Format::kBF16), 3);
  EXPECT_EQ(limits.gflops(Isa::kAvx512, Format::kFixed16), 4);
  EXPECT_EQ(limits.gflops(Isa::kAvx512, Format::kQ16), 4);
  EXPECT_EQ(limits.gflops(Isa::kAvx512Bf16, Format::kF32), 3);
  EXPECT_EQ(limits.gflops(Isa::kAvx512Bf16, Format::kBF16), 5);
  EXPECT_EQ(limits.gflops(Isa::kAvx512Bf16, Format::kQ16), 4);
}

}  // namespace
}  // namespace pagemill
