// Where the Hub is and where its files are kept here: the environment variables of the
// huggingface_hub Python package, so that both share one cache.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"

namespace pagemill {

struct HubSettings {
  std::string cache_dir;     // HF_HUB_CACHE; else $HF_HOME/hub; else ~/.cache/huggingface/hub
  std::string endpoint;      // HF_ENDPOINT, without a slash at its end
  std::string token;         // empty: none
  std::string token_source;  // where the token is from, for messages: "HF_TOKEN" or a file
  bool offline = false;      // HF_HUB_OFFLINE: no network at all
  bool progress_bars = true;
  double timeout_s =
      10;  // HF_HUB_DOWNLOAD_TIMEOUT: to connect, and for a transfer that stands still
};

// A variable's value, or null. std::getenv outside tests.
using GetVariable = std::function<const char*(const char* name)>;

// kInvalidArgument names the variable whose value can't be right.
Result<HubSettings> read_hub_settings(const GetVariable& get);

}  // namespace pagemill
