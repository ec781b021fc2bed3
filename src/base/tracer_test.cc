#include "base/tracer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files_testing.h"

namespace pagemill {
namespace {

using nlohmann::json;

class TracerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Tracer> open(Tracer::Limits limits = {}) {
    auto tracer = Tracer::open(path_, limits);
    EXPECT_TRUE(tracer.ok()) << tracer.error().message;
    return std::move(tracer).value();
  }
  json parse() const { return json::parse(read_file(path_)); }
  static std::vector<json> complete(const json& file) {
    std::vector<json> events;
    for (const json& event : file.at("traceEvents")) {
      if (event.at("ph") == "X") events.push_back(event);
    }
    return events;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() + "/trace.json";
};

// Nanoseconds: the file has microseconds with three decimals.
std::int64_t begin_of(const json& event) {
  return std::llround(event.at("ts").get<double>() * 1e3);
}
std::int64_t end_of(const json& event) {
  return begin_of(event) + std::llround(event.at("dur").get<double>() * 1e3);
}

void one_step(Tracer& tracer, int ops = 2) {
  tracer.begin_step();
  tracer.phase("plan");
  tracer.phase("run");
  for (int i = 0; i < ops; ++i) {
    const TraceScope outer("outer");
    const TraceScope inner("inner");
  }
  trace_phase("commit");
  const Tracer::Arg args[] = {{"tokens", 7}, {"sequences", 3}};
  tracer.end_step(args);
}

TEST_F(TracerTest, PhasesFillAStepAndScopesNest) {
  const auto tracer = open();
  {
    const ActiveTracer active(tracer.get());
    for (int i = 0; i < 3; ++i) one_step(*tracer);
  }
  EXPECT_EQ(Tracer::active(), nullptr);
  const std::string table = tracer->finish();
  const json file = parse();
  const std::vector<json> events = complete(file);
  ASSERT_EQ(events.size(), 3u * (1 + 3 + 4));
  EXPECT_EQ(file["otherData"]["steps"], 3);
  EXPECT_EQ(file["otherData"]["events"], events.size());
  EXPECT_EQ(file["otherData"]["dropped_steps"], 0);
  for (std::size_t i = 0; i < events.size(); i += 8) {
    const json& step = events[i];
    ASSERT_EQ(step["name"], "step");
    EXPECT_EQ(step["args"], json({{"tokens", 7}, {"sequences", 3}}));
    const char* const order[] = {"plan", "run", "outer", "inner", "outer", "inner", "commit"};
    for (std::size_t k = 0; k < 7; ++k) EXPECT_EQ(events[i + 1 + k]["name"], order[k]);
    const json &plan = events[i + 1], &run = events[i + 2], &commit = events[i + 7];
    EXPECT_EQ(begin_of(plan), begin_of(step));
    EXPECT_EQ(end_of(plan), begin_of(run));
    EXPECT_EQ(end_of(run), begin_of(commit));
    EXPECT_EQ(end_of(commit), end_of(step));
    for (std::size_t k : {3, 5}) {
      EXPECT_LE(begin_of(run), begin_of(events[i + k]));
      EXPECT_LE(begin_of(events[i + k]), begin_of(events[i + k + 1]));
      EXPECT_LE(end_of(events[i + k + 1]), end_of(events[i + k]));
      EXPECT_LE(end_of(events[i + k]), end_of(run));
    }
  }
  EXPECT_NE(table.find(": 3 steps\n"), std::string::npos) << table;
  EXPECT_NE(table.find("\n    outer                        6 "), std::string::npos) << table;
}

TEST_F(TracerTest, NamesAreEscaped) {
  const auto tracer = open();
  tracer->begin_step();
  tracer->phase("a \"phase\"\n\\ \x01 \xc3\xa9");
  tracer->end_step(std::vector<Tracer::Arg>{{"\"key\"", -5}});
  tracer->finish();
  const std::vector<json> events = complete(parse());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["args"]["\"key\""], -5);
  EXPECT_EQ(events[1]["name"], "a \"phase\"\n\\ \x01 \xc3\xa9");
}

TEST_F(TracerTest, WithoutAStepNothingIsRecorded) {
  const auto tracer = open();
  const ActiveTracer active(tracer.get());
  trace_phase("flush");
  { const TraceScope scope("op"); }
  one_step(*tracer, 0);
  tracer->finish();
  EXPECT_EQ(complete(parse()).size(), 4u);
}

TEST_F(TracerTest, AStepLargerThanTheBufferIsDroppedWholeAndCounted) {
  const auto tracer = open({.buffered_events = 100});
  const ActiveTracer active(tracer.get());
  one_step(*tracer, 2);
  one_step(*tracer, 100);
  one_step(*tracer, 2);
  tracer->finish();
  const json file = parse();
  EXPECT_EQ(file["otherData"]["steps"], 2);
  EXPECT_EQ(file["otherData"]["dropped_steps"], 1);
  EXPECT_EQ(complete(file).size(), 16u);
}

// Whatever the writer keeps up with: every step is in the file or counted, and whole.
TEST_F(TracerTest, FileStaysBelowItsLimitAndAccountsForEveryStep) {
  constexpr int kSteps = 20000;
  constexpr std::int64_t kLimit = 200 << 10;
  const auto tracer = open({.file_bytes = kLimit, .buffered_events = 200});
  {
    const ActiveTracer active(tracer.get());
    for (int i = 0; i < kSteps; ++i) one_step(*tracer, 3);
  }
  tracer->finish();
  EXPECT_LE(std::filesystem::file_size(path_), static_cast<std::uintmax_t>(kLimit));
  const json file = parse();
  const auto steps = file["otherData"]["steps"].get<int>();
  EXPECT_GT(steps, 20);
  EXPECT_EQ(steps + file["otherData"]["dropped_steps"].get<int>(), kSteps);
  std::map<std::string, int> counts;
  for (const json& event : complete(file)) ++counts[event["name"]];
  EXPECT_EQ(counts,
            (std::map<std::string, int>{{"step", steps},
                                        {"plan", steps},
                                        {"run", steps},
                                        {"commit", steps},
                                        {"outer", 3 * steps},
                                        {"inner", 3 * steps}}));
}

TEST_F(TracerTest, TheFileIsValidWhileItIsWritten) {
  const auto tracer = open();
  EXPECT_TRUE(complete(parse()).empty());
  const ActiveTracer active(tracer.get());
  one_step(*tracer);
  tracer->flush();
  std::string text;
  for (int i = 0; i < 5000; ++i) {  // a read may meet the write in the middle
    text = read_file(path_);
    if (json::accept(text) && text.find("inner") != std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(complete(json::parse(text)).size(), 8u);
}

// As on a full disk: writing past the process's limit of a file's size fails.
TEST_F(TracerTest, ADiskThatRefusesLeavesAValidFile) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const auto tracer = open({.buffered_events = 200});
  rlimit tight = before;
  tight.rlim_cur = 800;  // the first step does not fit
  setrlimit(RLIMIT_FSIZE, &tight);
  {
    const ActiveTracer active(tracer.get());
    for (int i = 0; i < 200; ++i) {
      one_step(*tracer, 3);
      tracer->flush();
    }
  }
  const std::string table = tracer->finish();
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  const json file = parse();
  EXPECT_EQ(file["otherData"], json({{"steps", 0}, {"events", 0}, {"dropped_steps", 200}}));
  EXPECT_TRUE(complete(file).empty());
  EXPECT_NE(table.find("refused"), std::string::npos) << table;
}

TEST_F(TracerTest, RefusesWhatIsNoFile) {
  for (const std::string& path : {folder_.path() + "/none/trace.json", std::string("/dev/full")}) {
    const auto tracer = Tracer::open(path, {});
    ASSERT_FALSE(tracer.ok());
    EXPECT_NE(tracer.error().message.find(path), std::string::npos) << tracer.error().message;
  }
}

}  // namespace
}  // namespace pagemill
