#include "simulate/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

namespace pagemill {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Whether tags nest, attributes are quoted and & begins an entity: enough of XML to find what
// breaks a document. (A test of the command gives the files to a real parser.)
bool well_formed(const std::string& xml) {
  std::vector<std::string> open;
  const std::regex tag(R"(<(/?)([A-Za-z]+)((?:\s+[A-Za-z][\w-]*="[^"<]*")*)\s*(/?)>)");
  std::size_t at = 0;
  while (at < xml.size()) {
    if (xml[at] == '<') {
      std::smatch match;
      const std::string rest = xml.substr(at, xml.find('>', at) - at + 1);
      if (!std::regex_match(rest, match, tag)) return false;
      if (match[1].length() > 0) {
        if (open.empty() || open.back() != match[2]) return false;
        open.pop_back();
      } else if (match[4].length() == 0) {
        open.push_back(match[2]);
      }
      at += rest.size();
    } else {
      if (xml[at] == '&' &&
          !std::regex_search(xml.substr(at, 6), std::regex("^&(amp|lt|gt|quot);")))
        return false;
      if (xml[at] == '>') return false;
      ++at;
    }
  }
  return open.empty();
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(SvgPlot, IsWellFormedWhateverTheLabelsSay) {
  Plot plot{"a < b & \"c\"", "x > 0", "y\x01", {{"<svg>", {0, 1}, {1, 2}, 0.5}}, false, 0};
  const std::string svg = draw_svg(plot);
  EXPECT_TRUE(well_formed(svg)) << svg;
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("\x01")));
  plot.stacked = true;
  EXPECT_TRUE(well_formed(draw_svg(plot)));
  EXPECT_FALSE(well_formed("<a><b></a></b>"));
  EXPECT_FALSE(well_formed("<a>1 & 2</a>"));
}

TEST(SvgPlot, HasAxesTicksAndALegend) {
  const std::string svg = draw_svg(
      {"Title", "seconds", "percent", {{"one", {0, 10}, {0, 4}}, {"two", {0, 10}, {1, 2}}}});
  for (const char* label : {">Title<", ">seconds<", ">percent<", ">one<", ">two<", ">10<", ">4<"}) {
    EXPECT_THAT(svg, HasSubstr(label));
  }
  EXPECT_EQ(count_of(svg, "<path"), 2);
}

TEST(SvgPlot, BreaksALineWhereThereIsNoFigure) {
  const std::string svg = draw_svg({"", "", "", {{"a", {0, 1, 2, 3}, {1, NAN, 1, INFINITY}}}});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  const std::string path = svg.substr(svg.find("<path d="), 60);
  EXPECT_EQ(count_of(path, "M"), 2) << path;
}

TEST(SvgPlot, DrawsNothingAndASinglePoint) {
  for (const Plot& plot : {Plot{}, Plot{"", "", "", {{"a", {3}, {0}}}}}) {
    const std::string svg = draw_svg(plot);
    EXPECT_TRUE(well_formed(svg));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
  }
}

TEST(AxisTicks, AreRoundNumbers) {
  EXPECT_THAT(axis_ticks(0, 10, 6), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(
      axis_ticks(0, 0.7, 8),
      ElementsAre(
          0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6000000000000001, 0.7000000000000001));
  EXPECT_THAT(axis_ticks(37, 112, 5), ElementsAre(40, 60, 80, 100));
}

}  // namespace
}  // namespace pagemill
