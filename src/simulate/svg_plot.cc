#include "simulate/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pagemill {
namespace {

constexpr double kWidth = 760, kHeight = 440;
constexpr double kLeft = 76, kRight = 20, kTop = 44, kBottom = 56;
constexpr double kLegendWidth = 190;
constexpr double kPlotRight = kWidth - kRight - kLegendWidth, kPlotBottom = kHeight - kBottom;

// Okabe and Ito's palette: told apart by colour-blind readers as well.
constexpr const char* kColours[] = {
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"};
constexpr const char* kDashes[] = {"", "7 3", "2 3", "9 3 2 3", "4 4", "1 2", "12 4"};
constexpr std::size_t kNumStyles = std::size(kColours);

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (static_cast<unsigned char>(c) >= ' ') {  // XML has no other control characters
      out += c;
    }
  }
  return out;
}

struct Axis {
  double low = 0, high = 1;   // values
  double begin = 0, end = 1;  // pixels
  double at(double value) const { return begin + (value - low) / (high - low) * (end - begin); }
};

std::string text(double x, double y, const char* attributes, const std::string& content) {
  return fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escaped(content));
}

std::string line(double x1, double y1, double x2, double y2, const std::string& attributes) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n",
                     x1,
                     y1,
                     x2,
                     y2,
                     attributes);
}

Axis x_axis(const Plot& plot) {
  double low = INFINITY, high = -INFINITY;
  for (const PlotSeries& series : plot.series) {
    for (const double x : series.x) low = std::min(low, x), high = std::max(high, x);
  }
  if (!(low <= high)) low = 0, high = 1;
  if (low > 0 && low < 0.5 * high) low = 0;
  if (low == high) high = low + 1;
  return {low, high, kLeft, kPlotRight};
}

Axis y_axis(const Plot& plot) {
  double high = plot.y_max;
  if (high <= 0) {
    std::vector<double> sums;
    for (const PlotSeries& series : plot.series) {
      sums.resize(std::max(sums.size(), series.y.size()));
      for (std::size_t i = 0; i < series.y.size(); ++i) {
        if (!std::isfinite(series.y[i])) continue;
        sums[i] = plot.stacked ? sums[i] + series.y[i] : std::max(sums[i], series.y[i]);
      }
    }
    for (const double sum : sums) high = std::max(high, sum);
    if (!plot.stacked) high *= 1.05;
  }
  return {0, high > 0 ? high : 1, kPlotBottom, kTop};
}

std::string draw_axes(const Plot& plot, const Axis& x, const Axis& y) {
  std::string out;
  for (const double tick : axis_ticks(y.low, y.high, 8)) {
    out += line(kLeft, y.at(tick), kPlotRight, y.at(tick), "stroke=\"#dddddd\"");
    out += text(kLeft - 8, y.at(tick) + 4, "text-anchor=\"end\"", fmt::format("{:.6g}", tick));
  }
  for (const double tick : axis_ticks(x.low, x.high, 9)) {
    out += line(x.at(tick), kPlotBottom, x.at(tick), kPlotBottom + 5, "stroke=\"#333333\"");
    out +=
        text(x.at(tick), kPlotBottom + 19, "text-anchor=\"middle\"", fmt::format("{:.6g}", tick));
  }
  out += line(kLeft, kPlotBottom, kPlotRight, kPlotBottom, "stroke=\"#333333\"");
  out += line(kLeft, kTop, kLeft, kPlotBottom, "stroke=\"#333333\"");
  const double middle = (kTop + kPlotBottom) / 2;
  out += text((kLeft + kPlotRight) / 2, kHeight - 14, "text-anchor=\"middle\"", plot.x_label);
  out += text(
      20,
      middle,
      fmt::format("text-anchor=\"middle\" transform=\"rotate(-90 20 {:.1f})\"", middle).c_str(),
      plot.y_label);
  out += text(kLeft, 26, "font-size=\"15\" font-weight=\"bold\"", plot.title);
  return out;
}

std::string draw_line(const PlotSeries& series, const Axis& x, const Axis& y, std::size_t style) {
  std::string path;
  bool pen_down = false;
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const bool drawn = std::isfinite(series.y[i]);
    if (drawn) {
      // Far outside is far enough: huge coordinates upset viewers.
      const double py = std::max(y.at(series.y[i]), kTop - 10 * kHeight);
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x.at(series.x[i]), py);
    }
    pen_down = drawn;
  }
  std::string out = fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>\n",
      path,
      kColours[style],
      kDashes[style]);
  if (series.marked_x >= 0) {
    out += line(
        x.at(series.marked_x),
        kTop,
        x.at(series.marked_x),
        kPlotBottom,
        fmt::format("stroke=\"{}\" stroke-dasharray=\"3 3\" opacity=\"0.6\"", kColours[style]));
  }
  return out;
}

// `base` is what lies below, and then with this one on top.
std::string draw_area(const PlotSeries& series,
                      const Axis& x,
                      const Axis& y,
                      std::size_t style,
                      std::vector<double>& base) {
  std::string top, bottom;
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const double px = x.at(series.x[i]);
    bottom.insert(0, fmt::format("L{:.1f} {:.1f}", px, y.at(base[i])));  // back from the right
    base[i] += std::isfinite(series.y[i]) ? series.y[i] : 0;
    top += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", px, y.at(base[i]));
  }
  return fmt::format(
      "<path d=\"{}{}Z\" fill=\"{}\" opacity=\"0.85\"/>\n", top, bottom, kColours[style]);
}

std::string draw_legend(const Plot& plot) {
  std::string out;
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    // In the order in which areas lie.
    const std::size_t row = plot.stacked ? plot.series.size() - 1 - i : i;
    const double x = kPlotRight + 16, py = kTop + 12 + 22 * static_cast<double>(row);
    const std::size_t style = i % kNumStyles;
    if (plot.stacked) {
      out += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"22\" height=\"12\" fill=\"{}\" "
          "opacity=\"0.85\"/>\n",
          x,
          py - 6,
          kColours[style]);
    } else {
      out += line(x,
                  py,
                  x + 22,
                  py,
                  fmt::format("stroke=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{}\"",
                              kColours[style],
                              kDashes[style]));
    }
    out += text(x + 28, py + 4, "", plot.series[i].label);
  }
  return out;
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int max_ticks) {
  const double raw = (high - low) / std::max(1, max_ticks - 1);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double multiple : {1.0, 2.0, 5.0}) {
    if (multiple * power >= raw * (1 - 1e-9)) {
      step = multiple * power;
      break;
    }
  }
  std::vector<double> ticks;
  const auto first = static_cast<std::int64_t>(std::ceil(low / step - 1e-9));
  const auto last = static_cast<std::int64_t>(std::floor(high / step + 1e-9));
  for (std::int64_t k = first; k <= last; ++k) ticks.push_back(static_cast<double>(k) * step);
  return ticks;
}

std::string draw_svg(const Plot& plot) {
  const Axis x = x_axis(plot), y = y_axis(plot);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"12\" "
      "fill=\"#222222\">\n<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#ffffff\"/>\n"
      "<clipPath id=\"chart\"><rect x=\"{2:.1f}\" y=\"{3:.1f}\" width=\"{4:.1f}\" "
      "height=\"{5:.1f}\"/></clipPath>\n",
      kWidth,
      kHeight,
      kLeft,
      kTop,
      kPlotRight - kLeft,
      kPlotBottom - kTop);
  out += draw_axes(plot, x, y);
  out += "<g clip-path=\"url(#chart)\">\n";
  std::vector<double> base(plot.series.empty() ? 0 : plot.series.front().x.size(), 0);
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const std::size_t style = i % kNumStyles;
    out += plot.stacked ? draw_area(plot.series[i], x, y, style, base)
                        : draw_line(plot.series[i], x, y, style);
  }
  return out + "</g>\n" + draw_legend(plot) + "</svg>\n";
}

}  // namespace pagemill
