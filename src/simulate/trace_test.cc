#include "simulate/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "simulate/workload.h"

namespace pagemill {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Trace, ReadsCsvByTheNamesOfItsColumns) {
  const auto trace =
      parse_trace("tenant,output_tokens,arrival_s,input_tokens\r\n7,3,1.5,20\n8,1,0.25,9\n", "t");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_TRUE(trace->has_arrivals);
  ASSERT_EQ(trace->requests.size(), 2u);
  EXPECT_EQ(trace->requests[0].arrival_s, 0.25) << "sorted by arrival";
  EXPECT_EQ(trace->requests[0].input_tokens, 9);
  EXPECT_EQ(trace->requests[1].output_tokens, 3);
  EXPECT_FALSE(parse_trace("input_tokens,output_tokens\n1,2", "t")->has_arrivals);
}

TEST(Trace, ReadsMooncakeLines) {
  const auto trace = parse_trace(
      "{\"timestamp\":1500,\"input_length\":700,\"output_length\":400,\"hash_ids\":[4,9]}\n", "t");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_DOUBLE_EQ(trace->requests[0].arrival_s, 1.5);
  EXPECT_EQ(trace->hash_block_tokens, 512);
  EXPECT_THAT(trace->requests[0].hash_ids, ElementsAre(4, 9));
  EXPECT_EQ(trace->token(0, 511), 4);
  EXPECT_EQ(trace->token(0, 699), 9);
  EXPECT_NE(trace->token(0, 700), 9) << "output: the ids cover the prompt only";
  const Trace small = with_hash_block_tokens(*trace, 16);
  EXPECT_EQ(small.requests[0].input_tokens, 32);
  EXPECT_EQ(small.requests[0].output_tokens, 13);  // 400 * 16 / 512, rounded
  EXPECT_EQ(small.token(0, 16), 9);
}

TEST(Trace, ReadsIdsThatCoverTheOutput) {
  const auto trace = parse_trace(
      "{\"arrival_s\":0,\"input_length\":17,\"output_length\":20,\"seq_hash_ids\":[3,5]}\n"
      "{\"arrival_s\":1,\"input_length\":17,\"output_length\":20,\"seq_hash_ids\":[3,6]}\n",
      "t");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_EQ(trace->token(0, 31), 5);
  EXPECT_EQ(trace->token(0, 15), trace->token(1, 15));
  EXPECT_NE(trace->token(0, 32), trace->token(1, 32)) << "past the ids";
}

struct BadTrace {
  const char* text;
  const char* message;
};

class BadTraces : public ::testing::TestWithParam<BadTrace> {};

TEST_P(BadTraces, NameTheLineAndWhatIsWrong) {
  const auto trace = parse_trace(GetParam().text, "file");
  ASSERT_FALSE(trace.ok());
  EXPECT_EQ(trace.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(trace.error().message, HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Trace,
    BadTraces,
    ::testing::Values(
        BadTrace{"", "file: the file is empty"},
        BadTrace{"a,b\n1,2\n", "file:1: expected a header with input_tokens"},
        BadTrace{"input_tokens,output_tokens\n", "file: there is no request"},
        BadTrace{"input_tokens,output_tokens\n1,2\n\n3\n", "file:4: expected 2 fields, got 1"},
        BadTrace{"input_tokens,output_tokens\n1,x\n", "file:2: output_tokens: expected an integer"},
        BadTrace{"input_tokens,output_tokens\n0,1\n", "file:2: input_tokens: expected an integer"},
        BadTrace{"input_tokens,output_tokens\n99999999999,1\n", "got '99999999999'"},
        BadTrace{"arrival_s,input_tokens,output_tokens\nnan,1,1\n", "file:2: arrival_s: expected"},
        BadTrace{"arrival_s,input_tokens,output_tokens\n-1,1,1\n", "file:2: arrival_s: expected"},
        BadTrace{"{\"input_length\":1,\"output_length\":1}\n[1]\n",
                 "file:2: expected a JSON object"},
        BadTrace{"{\"input_length\":1,\"output_length\"", "file:1: expected a JSON object"},
        BadTrace{"{\"input_length\":1}", "file:1: output_length is missing"},
        BadTrace{"{\"input_length\":1.5,\"output_length\":1}", "file:1: input_length: expected"},
        BadTrace{"{\"timestamp\":\"x\",\"input_length\":1,\"output_length\":1}",
                 "file:1: timestamp: expected a time"},
        BadTrace{"{\"input_length\":1,\"output_length\":1,\"hash_ids\":3}",
                 "file:1: hash_ids: expected an array"},
        BadTrace{"{\"input_length\":1,\"output_length\":1,\"hash_ids\":[1,-2]}",
                 "file:1: hash_ids: 2 blocks of 512 tokens are more than 2 tokens need"},
        BadTrace{"{\"input_length\":1,\"output_length\":1,\"hash_ids\":[-2]}",
                 "file:1: hash_ids: expected integers"},
        BadTrace{"{\"timestamp\":0,\"input_length\":1,\"output_length\":1}\n"
                 "{\"input_length\":1,\"output_length\":1}\n",
                 "file:2: timestamp: expected a time that is not negative, got 'nothing'"}));

TEST(Trace, ClipsToTheModelAsAServerDoes) {
  Trace trace = *parse_trace("input_tokens,output_tokens\n10,100\n50,1\n49,9\n", "t");
  EXPECT_EQ(clip_to_model_len(trace, 50), 1);
  ASSERT_EQ(trace.requests.size(), 2u);
  EXPECT_EQ(trace.requests[0].output_tokens, 40);
  EXPECT_EQ(trace.requests[1].output_tokens, 1);
}

TEST(Workload, HasTheMeansThatItSays) {
  for (const char* name : {"sharegpt", "alpaca"}) {
    const auto lengths = find_distribution(name);
    ASSERT_TRUE(lengths.ok());
    const Trace trace = synthetic_trace(*lengths, 2000, 3);
    double input = 0, output = 0;
    for (const TraceRequest& request : trace.requests) {
      input += request.input_tokens / 2000.0;
      output += request.output_tokens / 2000.0;
      EXPECT_TRUE(request.input_tokens >= 1 && request.output_tokens <= 1024);
    }
    EXPECT_NEAR(input, lengths->mean_input, 0.01 * lengths->mean_input);
    EXPECT_NEAR(output, lengths->mean_output, 0.01 * lengths->mean_output);
  }
  EXPECT_FALSE(find_distribution("shakespeare").ok());
}

TEST(Workload, ArrivesAtTheRateAndTheSameForTheSameSeed) {
  Trace a = synthetic_trace(*find_distribution("alpaca"), 5000, 1), b = a, c = a;
  set_poisson_arrivals(a, 4, 9);
  set_poisson_arrivals(b, 4, 9);
  set_poisson_arrivals(c, 4, 10);
  EXPECT_NEAR(a.requests.back().arrival_s, 1250, 60);  // three standard deviations
  EXPECT_EQ(a.requests[77].arrival_s, b.requests[77].arrival_s);
  EXPECT_NE(a.requests[77].arrival_s, c.requests[77].arrival_s);
  set_poisson_arrivals(a, 0, 9);
  EXPECT_EQ(a.requests.back().arrival_s, 0);
}

TEST(Workload, RepeatsATraceToTheLengthAskedFor) {
  Trace trace = *parse_trace("input_tokens,output_tokens\n1,1\n2,2\n3,3\n", "t");
  resize_trace(trace, 5);
  ASSERT_EQ(trace.requests.size(), 5u);
  EXPECT_EQ(trace.requests[4].input_tokens, 2);
  resize_trace(trace, 2);
  EXPECT_EQ(trace.requests.size(), 2u);
}

}  // namespace
}  // namespace pagemill
