#include "cli/memory_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "metrics/serving_metrics.h"
#include "server/server.h"
#include "server/testing/fake_engine.h"

namespace pagemill::cli {
namespace {

using ::testing::HasSubstr;

TEST(MemoryReport, SharesOfWhatTheServerExports) {
  ServingMetricsOptions options;
  options.prefix = "vllm";
  options.model_name = "a{b} state=\"free\"";
  auto metrics = ServingMetrics::create(options).value();
  EngineSnapshot snapshot;
  snapshot.block_size = 16;
  snapshot.block_bytes = 1 << 20;
  snapshot.blocks_referenced = 50;
  snapshot.empty_slots = 80;  // 5 blocks' worth
  snapshot.blocks_cached = 20;
  snapshot.blocks_free = 29;
  snapshot.blocks_pinned = 1;
  snapshot.blocks_saved = 150;
  const auto report = memory_report(metrics->render(snapshot));
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(*report,
            "token states              45.0 MiB   45.0 %\n"
            "empty block tails          5.0 MiB    5.0 %\n"
            "cached                    20.0 MiB   20.0 %\n"
            "free                      29.0 MiB   29.0 %\n"
            "pinned                     1.0 MiB    1.0 %\n"
            "KV cache                 100.0 MiB  100.0 %\n"
            "saved by sharing         150.0 MiB  150.0 %\n");
}

TEST(MemoryReport, SaysWhatIsMissing) {
  const auto report = memory_report("# HELP x\nother:kv_cache_bytes{state=\"tokens\"} 1\n");
  ASSERT_FALSE(report.ok());
  EXPECT_THAT(report.error().message, HasSubstr("kv_cache_bytes state=\"empty\""));
}

TEST(MemoryReport, FromAServer) {
  FakeEngine engine({});
  ServerOptions options;
  options.port = 0;
  auto server = Server::start(engine, options);
  ASSERT_TRUE(server.ok()) << server.error().message;
  const auto report = fetch_memory_report((*server)->url());
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_THAT(*report, HasSubstr("token states               0.0 MiB    0.0 %\n"));
  EXPECT_EQ(fetch_memory_report((*server)->url() + "/nowhere").error().code, ErrorCode::kIo);
  EXPECT_EQ(fetch_memory_report("localhost").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace pagemill::cli
