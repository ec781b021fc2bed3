// The Hub's API, as far as fetching files needs it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "hub/hub_settings.h"
#include "hub/web_client.h"

namespace pagemill {

struct RepoInfo {
  std::string commit;              // of the revision that was asked for
  std::vector<std::string> files;  // all of them, at that commit
};

// A file as the Hub has it now.
struct RemoteFile {
  std::string name;
  std::string etag;       // names the bytes; a safe file name
  std::int64_t size = 0;  // bytes
};

// The JSON of /api/models/{repo}/revision/{revision}. kCorrupt names what is not right in it.
Result<RepoInfo> parse_repo_info(std::string_view json, const std::string& url);

// How often something is tried that may pass (kUnavailable), and how long is waited in between.
struct RetryPolicy {
  int attempts = 6;
  double first_delay_s = 0.5, max_delay_s = 8;  // doubled each time
};

// Messages say what would be right: kInvalidArgument ("revision") for a revision that the
// repository does not have, kNotFound for a repository, a file or the right to read them,
// kUnavailable for what may pass, kCancelled when keep_going said so.
class HubClient {
 public:
  // keep_going is called at least once a second while something is waited for; false cancels.
  HubClient(const HubSettings& settings,
            const RetryPolicy& policy,
            std::function<bool()> keep_going);

  // attempts: at most that many, whatever the policy says.
  Result<RepoInfo> repo_info(const std::string& repo, const std::string& revision, int attempts);
  Result<RemoteFile> file_info(const std::string& repo,
                               const std::string& commit,
                               const std::string& file);
  // Gives the file's bytes from `offset` on to `sink`, in one attempt. A server may send all from
  // the start instead: the status is 200 then, 206 otherwise. kCorrupt: it ends before `offset`.
  Status fetch(const std::string& repo,
               const std::string& commit,
               const std::string& file,
               std::int64_t offset,
               const BodySink& sink);

  // Says why attempt number `attempt`, the first being 0, failed, and waits before the next;
  // kCancelled if it is not wanted any more.
  Status wait_before_retry(int attempt, const Error& error);
  const RetryPolicy& policy() const { return policy_; }

 private:
  struct Answer {
    WebResponse response;
    std::string url;  // after redirects
  };
  // Follows redirects, for HEAD only within the endpoint, and sends the token nowhere else.
  Result<Answer> follow(WebRequest request);
  Result<Answer> follow_with_retries(const WebRequest& request,
                                     const std::string& repo,
                                     const std::string& what,
                                     int attempts);
  Error refusal(const Answer& answer, const std::string& repo, const std::string& what) const;

  const HubSettings settings_;
  const RetryPolicy policy_;
  const std::function<bool()> keep_going_;
  WebClient web_;
};

}  // namespace pagemill
