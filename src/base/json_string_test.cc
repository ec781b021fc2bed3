#include "base/json_string.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace pagemill {
namespace {

TEST(JsonString, ParsesToWhatItWas) {
  std::string text = "plain, \"quoted\", back\\slash, \xc3\xa9 \xf0\x9f\x98\x80 ";
  for (char c = 0; c < 0x7f; ++c) text.push_back(c);
  std::string out = "x";
  append_json_string(text, &out);
  ASSERT_EQ(out.substr(0, 2), "x\"");
  EXPECT_EQ(nlohmann::json::parse(out.substr(1)).get<std::string>(), text);
}

}  // namespace
}  // namespace pagemill
