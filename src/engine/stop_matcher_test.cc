#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace pagemill {
namespace {

struct Outcome {
  std::string text;
  std::optional<std::string> stop;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << '"' << outcome.text << "\" stopped by " << outcome.stop.value_or("nothing");
}

// What a reader sees of `text`, cut where the bits of `cuts` say: bit i cuts after character i.
Outcome run(const std::vector<std::string>& stop,
            bool include,
            const std::string& text,
            unsigned cuts) {
  StopMatcher matcher(stop, include);
  Outcome outcome;
  std::string piece;
  for (std::size_t i = 0; i < text.size(); ++i) {
    piece += text[i];
    if ((cuts >> i & 1) == 0 && i + 1 < text.size()) continue;
    StopMatcher::Match match = matcher.push(piece);
    piece.clear();
    outcome.text += match.text;
    if (match.stop) {
      outcome.stop = match.stop;
      return outcome;
    }
  }
  outcome.text += matcher.finish();
  return outcome;
}

// Straight from the definition: the match that ends first, of those the one that starts first.
Outcome reference(const std::vector<std::string>& stop, bool include, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    for (std::size_t begin = 0; begin < end; ++begin) {
      const std::string candidate = text.substr(begin, end - begin);
      if (std::find(stop.begin(), stop.end(), candidate) == stop.end()) continue;
      return {text.substr(0, include ? end : begin), candidate};
    }
  }
  return {text, {}};
}

TEST(StopMatcher, WithoutStopStringsEverythingPassesAtOnce) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, WithholdsOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"STOP"}, false);
  EXPECT_EQ(matcher.push("one ST").text, "one ");
  EXPECT_EQ(matcher.push("EP").text, "STEP");
  EXPECT_EQ(matcher.push(" S").text, " ");
  EXPECT_EQ(matcher.push("S").text, "S");
  EXPECT_EQ(matcher.finish(), "S");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, TheStopThatEndsFirstWins) {
  EXPECT_EQ(run({"bcd", "c"}, false, "abcd", 0), (Outcome{"ab", "c"}));
  EXPECT_EQ(run({"c", "bc"}, false, "abcd", 0),
            (Outcome{"a", "bc"}));  // both end there: the longer
  EXPECT_EQ(run({"c", "bc"}, true, "abcd", 0), (Outcome{"abc", "bc"}));
}

TEST(StopMatcher, AnOverlappingFalseStartIsNotSkipped) {
  EXPECT_EQ(run({"aab"}, false, "aaab", 0b111), (Outcome{"a", "aab"}));
  EXPECT_EQ(run({"abab", "abc"}, false, "ababc", 0b1111), (Outcome{"", "abab"}));
  EXPECT_EQ(run({"ababd", "abc"}, false, "ababc", 0b1111), (Outcome{"ab", "abc"}));
}

TEST(StopMatcher, EverySplitGivesTheSame) {
  std::mt19937 random(7);
  const auto word = [&](std::size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int num_stopped = 0, num_not = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> stop(1 + random() % 3);
    for (std::string& one : stop) one = word(5);
    const std::string text = word(10);
    for (bool include : {false, true}) {
      const Outcome expected = reference(stop, include, text);
      (expected.stop ? num_stopped : num_not) += 1;
      for (unsigned cuts = 0; cuts < 1u << (text.size() - 1); ++cuts) {
        ASSERT_EQ(run(stop, include, text, cuts), expected) << text << " cut at " << cuts;
      }
    }
  }
  EXPECT_GT(num_stopped, 50);
  EXPECT_GT(num_not, 50);
}

}  // namespace
}  // namespace pagemill
