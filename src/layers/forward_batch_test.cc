#include "layers/forward_batch.h"

#include <gtest/gtest.h>

namespace pagemill {
namespace {

using QueryRun = std::vector<std::int32_t>;  // query_start, query_len, context_len

std::vector<QueryRun> select(const std::vector<std::int32_t>& rows) {
  static constexpr BlockId kTables[3][1] = {{1}, {2}, {3}};
  const AttentionSequence sequences[] = {{0, 1, 9, kTables[0]},  // a decoding one
                                         {1, 4, 10, kTables[1]},
                                         {5, 3, 3, kTables[2]}};
  std::vector<AttentionSequence> selected;
  select_queries(sequences, rows, selected);
  std::vector<QueryRun> runs;
  runs.reserve(selected.size());
  for (const AttentionSequence& run : selected) {
    EXPECT_EQ(run.block_table, kTables[run.query_start == 0 ? 0 : run.query_start < 5 ? 1 : 2]);
    runs.push_back({run.query_start, run.query_len, run.context_len});
  }
  return runs;
}

TEST(SelectQueries, EveryRowIsTheSequencesThemselves) {
  EXPECT_EQ(select({0, 1, 2, 3, 4, 5, 6, 7}),
            (std::vector<QueryRun>{{0, 1, 9}, {1, 4, 10}, {5, 3, 3}}));
}

TEST(SelectQueries, ARowSeesWhatItSaw) {
  EXPECT_EQ(select({0, 4, 7}), (std::vector<QueryRun>{{0, 1, 9}, {4, 1, 10}, {7, 1, 3}}));
  EXPECT_EQ(select({1, 3, 4, 5, 6}), (std::vector<QueryRun>{{1, 1, 7}, {3, 2, 10}, {5, 2, 2}}));
}

TEST(SelectQueries, NoRowNoSequence) { EXPECT_TRUE(select({}).empty()); }

}  // namespace
}  // namespace pagemill
