// StopMatcher: finds stop strings in a growing text, however it is cut into pieces, and withholds
// what may still become one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pagemill {

class StopMatcher {
 public:
  // `include_stop`: the stop string itself is emitted (include_stop_str_in_output).
  StopMatcher(std::vector<std::string> stop, bool include_stop);

  struct Match {
    std::string text;                 // what may be shown now
    std::optional<std::string> stop;  // the stop string that ended the text; nothing follows it
  };
  // Appends `piece`. Of several stop strings the one that ends first wins; of those the one that
  // starts first.
  Match push(std::string_view piece);
  // The text is over: what was withheld.
  std::string finish();

 private:
  std::vector<std::string> stop_;
  bool include_stop_;
  std::string pending_;  // a proper prefix of some stop string, and nothing before it
};

}  // namespace pagemill
