// Tracer: where each step of one thread goes, as a file in the Chrome trace event format, which
// Perfetto and chrome://tracing open.
// Format: "Trace Event Format", complete ("X") events; times in microseconds since the start.
//
// A step is cut into phases without a gap: phase() ends the phase before it at the same instant.
// Within a phase, TraceScopes nest. Code below does not know the tracer: it asks the thread for the
// active one, and without one a phase or scope costs a load, and branches that are never taken.
//
// The thread appends to one of two buffers of fixed size, a writer thread formats and writes the
// other. A step that finds no room, because the writer is behind or the file has reached its limit,
// is dropped whole; the file says how many were. Every piece is written together with the file's
// end: what a killed process leaves is valid JSON.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"

namespace pagemill {

class Tracer {
 public:
  // Shown with a step. The names, as all names here, must outlive the tracer: literals.
  using Arg = std::pair<const char*, std::int64_t>;
  static constexpr std::size_t kMaxArgs = 6;

  struct Limits {
    std::int64_t file_bytes = std::int64_t{256} << 20;
    std::size_t buffered_events = 32768;  // of each of the two buffers, 32 bytes each
  };

  // Makes the file, or empties it. kIo where it cannot be written; the path in the message.
  static Result<std::unique_ptr<Tracer>> open(std::string path, Limits limits);
  ~Tracer();  // finish()
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  // What the calling thread traces to, or null.
  static Tracer* active() { return active_; }

  // One thread calls these. Outside of a step, phase() and scopes are ignored.
  void begin_step();
  void phase(const char* name);  // the one that is under way goes on if it has this name
  void end_step(std::span<const Arg> args);
  void flush();  // hands what is buffered to the writer if it has nothing to do; returns at once
  // Writes the rest and closes the file; called once that thread has ended. A table for people: of
  // each phase and scope its count, total, share and mean.
  std::string finish();

 private:
  friend class ActiveTracer;
  friend class TraceScope;

  struct Event {
    const char* name;
    std::int64_t begin, end;  // nanoseconds since start_
    std::int32_t depth;       // 0: a step, 1: a phase, more: scopes
    std::int32_t step;        // of a step: index in Buffer::args
  };
  struct StepArgs {
    std::array<Arg, kMaxArgs> values;
    std::size_t count = 0;
  };
  struct Buffer {
    std::vector<Event> events;
    std::vector<StepArgs> args;
    std::uint64_t dropped_steps = 0;
  };
  struct Total {
    const char* phase;  // that it is part of, or is
    const char* name;
    std::int32_t depth;
    std::int64_t count = 0, nanoseconds = 0;
  };

  Tracer(std::string path, int file, Limits limits);
  std::int64_t now() const;
  std::int64_t open_scope();
  void close_scope(const char* name, std::int64_t begin);
  void add_event(const Event& event);
  void write_loop();
  void write_buffer();
  void add_totals();
  void append_event(const Event& event, std::string* out) const;
  bool write_piece(std::string piece);
  std::string file_end() const;
  std::string table() const;

  static thread_local constinit Tracer* active_;

  const std::string path_;
  const Limits limits_;
  const std::int64_t start_;

  // Of the traced thread.
  Buffer filling_;
  bool in_step_ = false, step_fits_ = true;
  std::size_t step_first_event_ = 0;
  std::int64_t step_begin_ = 0, phase_begin_ = 0;
  const char* phase_ = nullptr;
  std::int32_t depth_ = 0;

  // Of the writer, while `busy_`; of the traced thread, else.
  Buffer writing_;

  // Of the writer.
  int file_;
  std::int64_t file_size_ = 0;  // without its end
  bool is_full_ = false, has_failed_ = false;
  std::uint64_t num_steps_ = 0, num_events_ = 0, dropped_steps_ = 0;  // written; not written
  std::vector<Total> totals_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool busy_ = false, finishing_ = false;
  std::thread writer_;
};

// Makes `tracer` (or null) the thread's, until the end of the scope.
class ActiveTracer {
 public:
  explicit ActiveTracer(Tracer* tracer) : before_(Tracer::active_) { Tracer::active_ = tracer; }
  ~ActiveTracer() { Tracer::active_ = before_; }
  ActiveTracer(const ActiveTracer&) = delete;
  ActiveTracer& operator=(const ActiveTracer&) = delete;

 private:
  Tracer* before_;
};

inline void trace_phase(const char* name) {
  if (Tracer* tracer = Tracer::active(); tracer != nullptr) [[unlikely]]
    tracer->phase(name);
}

// An operation, from here to the end of the scope.
class TraceScope {
 public:
  explicit TraceScope(const char* name) : tracer_(Tracer::active()), name_(name) {
    if (tracer_ != nullptr) [[unlikely]]
      begin_ = tracer_->open_scope();
  }
  ~TraceScope() {
    if (tracer_ != nullptr) [[unlikely]]
      tracer_->close_scope(name_, begin_);
  }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  Tracer* tracer_;
  const char* name_;
  std::int64_t begin_ = 0;
};

}  // namespace pagemill
