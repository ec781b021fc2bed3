#include "cli/terminal_stream.h"

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <mutex>

namespace pagemill::cli {

Result<std::string> stream_to_stdout(EngineClient& engine, Request request) {
  const auto room =
      engine.model().max_model_len - static_cast<std::int32_t>(request.prompt_token_ids.size());
  request.params.max_tokens = std::min(request.params.max_tokens, std::max(room, 1));
  std::mutex mutex;
  std::condition_variable finished;
  std::string whole;
  bool done = false;
  std::optional<Error> error;
  PM_TRY(engine.submit(std::move(request), [&](const RequestDelta& delta) {
    for (const CompletionDelta& completion : delta.completions) {
      std::fwrite(completion.text.data(), 1, completion.text.size(), stdout);
      std::fflush(stdout);
      whole += completion.text;
    }
    if (!delta.finished) return;
    const std::lock_guard lock(mutex);
    error = delta.error;
    done = true;
    finished.notify_one();
  }));
  std::unique_lock lock(mutex);
  finished.wait(lock, [&] { return done; });
  std::fputc('\n', stdout);
  std::fflush(stdout);
  if (error) return *error;
  return whole;
}

}  // namespace pagemill::cli
