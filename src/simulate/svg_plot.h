// Line and area charts as SVG, without any library.
#pragma once

#include <string>
#include <vector>

namespace pagemill {

struct PlotSeries {
  std::string label;
  std::vector<double> x, y;  // of the same length, x ascending; not finite: a gap
  double marked_x = -1;      // a dashed vertical line here, >= 0
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  bool stacked = false;  // areas, the first at the bottom; all series have the same x
  double y_max = 0;      // > 0: the axis ends here and lines leave the chart
};

// A whole SVG document.
std::string draw_svg(const Plot& plot);

// Ticks of an axis from 0 or `low` to `high`: multiples of 1, 2 or 5 times a power of ten, at most
// max_ticks of them.
std::vector<double> axis_ticks(double low, double high, int max_ticks);

}  // namespace pagemill
