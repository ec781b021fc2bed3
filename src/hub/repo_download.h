// A model of the Hub to a path in the cache, fetching what is missing.
#pragma once

#include <string>

#include "base/result.h"
#include "hub/download_progress.h"
#include "hub/file_choice.h"
#include "hub/hub_client.h"
#include "hub/hub_settings.h"

namespace pagemill {

struct RepoRequest {
  std::string repo;  // "org/name"
  std::string revision = "main";
  FileWish wish;
};

// The folder of the snapshot, or the GGUF file in it. Asks the Hub which commit the revision is and
// fetches what is missing of it; the revision is recorded in the cache when all is there. A
// complete snapshot in the cache is taken, with a warning, where the Hub can't be reached or does
// not answer this user, and without asking where the settings say offline.
Result<std::string> download_model(const HubSettings& settings,
                                   const RepoRequest& request,
                                   const OnDownload& on_progress,
                                   const RetryPolicy& policy = {});

}  // namespace pagemill
