#include "hub/download_progress.h"

#include <gtest/gtest.h>

namespace pagemill {
namespace {

TEST(DownloadProgressTest, BytesAreShownAsTheHubShowsThem) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.0 kB");
  EXPECT_EQ(human_bytes(999949), "999.9 kB");
  EXPECT_EQ(human_bytes(999950), "1.0 MB");
  EXPECT_EQ(human_bytes(2500000000), "2.5 GB");
}

TEST(DownloadProgressTest, ALineSaysHowFarHowFastAndHowLong) {
  const DownloadProgress half{.file = "model.safetensors",
                              .resumed_bytes = 20'000'000,
                              .done_bytes = 50'000'000,
                              .total_bytes = 100'000'000};
  EXPECT_EQ(progress_line(half, 10, 200),
            "model.safetensors                 50% [============            ] 50.0 MB of 100.0 MB  "
            "3.0 MB/s  0:17");
  EXPECT_EQ(progress_line(half, 10, 20), "model.safetensors   ");
  EXPECT_NE(progress_line(half, 0, 200).find("-:--"), std::string::npos) << "no rate yet";
}

TEST(DownloadProgressTest, AnEmptyFileIsWhole) {
  const std::string line =
      progress_line({.file = "empty", .total_bytes = 0, .finished = true}, 61, 200);
  EXPECT_NE(line.find("100% [========================]"), std::string::npos) << line;
  EXPECT_TRUE(line.ends_with("1:01")) << line;
}

TEST(DownloadProgressTest, ALongNameKeepsItsEnd) {
  const std::string name = "some/folder/a-very-long-name-of-a-model-Q4_K_M.gguf";
  const std::string line = progress_line({.file = name, .total_bytes = 1}, 1, 200);
  EXPECT_TRUE(line.starts_with("...")) << line;
  EXPECT_NE(line.find("model-Q4_K_M.gguf "), std::string::npos) << line;
}

}  // namespace
}  // namespace pagemill
