#include "base/tracer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <string_view>
#include <tuple>

#include "base/json_string.h"

namespace pagemill {
namespace {

constexpr std::string_view kFileBegin = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
constexpr std::int64_t kMaxFileEnd = 256;  // bytes
constexpr std::size_t kMinBufferedEvents = 64;
// Of the file's limit, so that a small file is not missed by a buffer of more: an event takes about
// 100 bytes there.
constexpr std::int64_t kFileBytesPerBufferedEvent = 400;
constexpr std::size_t kEventsPerStep = 4;  // fewer than any step has: a step and its phases

std::int64_t steady_nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Writes all of `bytes` at `offset`, or says that it could not.
bool write_all(int file, std::string_view bytes, std::int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset += count;
  }
  return true;
}

std::string metadata(const char* kind, std::string_view name) {
  std::string out = fmt::format(R"({{"ph":"M","pid":1,"tid":1,"name":"{}","args":{{"name":)", kind);
  append_json_string(name, &out);
  return out + "}}";
}

}  // namespace

thread_local constinit Tracer* Tracer::active_ = nullptr;

Result<std::unique_ptr<Tracer>> Tracer::open(std::string path, Limits limits) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    return io_error(fmt::format("{}: cannot write the profile: {}", path, std::strerror(errno)));
  }
  const auto worthwhile = static_cast<std::size_t>(std::max<std::int64_t>(limits.file_bytes, 0) /
                                                   kFileBytesPerBufferedEvent);
  limits.buffered_events =
      std::max(std::min(limits.buffered_events, worthwhile), kMinBufferedEvents);
  std::unique_ptr<Tracer> tracer(new Tracer(std::move(path), file, limits));
  if (tracer->has_failed_) {
    return io_error(
        fmt::format("{}: cannot write the profile: it must be a file that can be "
                    "written at any place, on a disk with room",
                    tracer->path_));
  }
  return tracer;
}

Tracer::Tracer(std::string path, int file, Limits limits)
    : path_(std::move(path)), limits_(limits), start_(steady_nanoseconds()), file_(file) {
  for (Buffer* buffer : {&filling_, &writing_}) {
    buffer->events.reserve(limits.buffered_events);
    buffer->args.reserve(limits.buffered_events / kEventsPerStep);
  }
  std::string begin = std::string(kFileBegin) + metadata("process_name", "pagemill") + ",\n" +
                      metadata("thread_name", "engine");
  has_failed_ = !write_piece(std::move(begin));
  writer_ = std::thread([this] { write_loop(); });
}

Tracer::~Tracer() { finish(); }

// ---- the traced thread ----

std::int64_t Tracer::now() const { return steady_nanoseconds() - start_; }

void Tracer::begin_step() {
  in_step_ = true;
  step_fits_ = filling_.args.size() < filling_.args.capacity();
  step_first_event_ = filling_.events.size();
  phase_ = nullptr;
  depth_ = 2;
  step_begin_ = phase_begin_ = now();
}

void Tracer::phase(const char* name) {
  if (!in_step_) return;
  if (phase_ != nullptr && name != nullptr && std::strcmp(phase_, name) == 0) return;
  // The first phase begins with the step.
  const std::int64_t time = phase_ == nullptr ? phase_begin_ : now();
  if (phase_ != nullptr) add_event({phase_, phase_begin_, time, 1, -1});
  phase_ = name;
  phase_begin_ = time;
}

std::int64_t Tracer::open_scope() {
  ++depth_;
  return now();
}

void Tracer::close_scope(const char* name, std::int64_t begin) {
  --depth_;
  if (in_step_) add_event({name, begin, now(), depth_, -1});
}

void Tracer::end_step(std::span<const Arg> args) {
  PM_CHECK(in_step_ && args.size() <= kMaxArgs, "{} args", args.size());
  phase(nullptr);
  add_event(
      {"step", step_begin_, phase_begin_, 0, static_cast<std::int32_t>(filling_.args.size())});
  in_step_ = false;
  if (step_fits_) {
    StepArgs& stored = filling_.args.emplace_back();
    stored.count = args.size();
    std::copy(args.begin(), args.end(), stored.values.begin());
  } else {
    filling_.events.resize(step_first_event_);
    ++filling_.dropped_steps;
  }
  const auto half_full = [](const auto& vector) { return vector.size() >= vector.capacity() / 2; };
  if (!step_fits_ || half_full(filling_.events) || half_full(filling_.args)) flush();
}

void Tracer::add_event(const Event& event) {
  step_fits_ = step_fits_ && filling_.events.size() < limits_.buffered_events;
  if (step_fits_) filling_.events.push_back(event);
}

void Tracer::flush() {
  if (filling_.events.empty() && filling_.dropped_steps == 0) return;
  {
    const std::lock_guard lock(mutex_);
    if (busy_) return;
    std::swap(filling_, writing_);
    busy_ = true;
  }
  changed_.notify_all();
  filling_.events.clear();
  filling_.args.clear();
  filling_.dropped_steps = 0;
}

std::string Tracer::finish() {
  if (!writer_.joinable()) return {};
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
  }
  flush();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !busy_; });
    finishing_ = true;
  }
  changed_.notify_all();
  writer_.join();
  close(file_);
  return table();
}

// ---- the writer ----

void Tracer::write_loop() {
  pthread_setname_np(pthread_self(), "pm-profile");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return busy_ || finishing_; });
    if (!busy_) return;
    lock.unlock();
    write_buffer();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void Tracer::write_buffer() {
  // A parent comes before what it holds; it was recorded after it.
  std::sort(writing_.events.begin(), writing_.events.end(), [](const Event& a, const Event& b) {
    return std::tie(a.begin, a.depth) < std::tie(b.begin, b.depth);
  });
  add_totals();
  dropped_steps_ += writing_.dropped_steps;
  const std::uint64_t steps = writing_.args.size(), events = writing_.events.size();
  std::string piece;
  if (!is_full_) {
    for (const Event& event : writing_.events) append_event(event, &piece);
    const std::int64_t size = file_size_ + static_cast<std::int64_t>(piece.size());
    is_full_ = size + kMaxFileEnd > limits_.file_bytes;
  }
  if (!is_full_) {
    num_steps_ += steps;
    num_events_ += events;
    if (write_piece(piece)) return;
    has_failed_ = is_full_ = true;
    num_steps_ -= steps;
    num_events_ -= events;
  }
  dropped_steps_ += steps;
  write_piece({});
}

void Tracer::append_event(const Event& event, std::string* out) const {
  *out += ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"name\":";
  append_json_string(event.name, out);
  const auto microseconds = [out](const char* key, std::int64_t ns) {
    fmt::format_to(std::back_inserter(*out), ",\"{}\":{}.{:03}", key, ns / 1000, ns % 1000);
  };
  microseconds("ts", event.begin);
  microseconds("dur", event.end - event.begin);
  if (event.step >= 0) {
    const StepArgs& args = writing_.args[static_cast<std::size_t>(event.step)];
    *out += ",\"args\":{";
    for (std::size_t i = 0; i < args.count; ++i) {
      if (i > 0) out->push_back(',');
      append_json_string(args.values[i].first, out);
      fmt::format_to(std::back_inserter(*out), ":{}", args.values[i].second);
    }
    out->push_back('}');
  }
  out->push_back('}');
}

std::string Tracer::file_end() const {
  return fmt::format("\n],\"otherData\":{{\"steps\":{},\"events\":{},\"dropped_steps\":{}}}}}\n",
                     num_steps_,
                     num_events_,
                     dropped_steps_);
}

// The counts in the file's end never fall: it never gets shorter, and no rest of it is left over.
bool Tracer::write_piece(std::string piece) {
  const std::size_t size = piece.size();
  piece += file_end();
  if (!write_all(file_, piece, file_size_)) {
    // What was half written is taken back; that makes room for the end, which is written next.
    [[maybe_unused]] const int ignored = ftruncate(file_, file_size_);
    return false;
  }
  file_size_ += static_cast<std::int64_t>(size);
  return true;
}

void Tracer::add_totals() {
  const char* phase = "";
  for (const Event& event : writing_.events) {
    if (event.depth == 0) phase = "";
    if (event.depth == 1) phase = event.name;
    const auto is_same = [&](const Total& total) {
      return total.depth == event.depth && std::string_view(total.phase) == phase &&
             std::string_view(total.name) == event.name;
    };
    auto it = std::find_if(totals_.begin(), totals_.end(), is_same);
    if (it == totals_.end()) {
      totals_.push_back({phase, event.name, event.depth});
      it = std::prev(totals_.end());
    }
    ++it->count;
    it->nanoseconds += event.end - event.begin;
  }
}

std::string Tracer::table() const {
  std::string out;
  const auto line = [&](const Total& total, std::int64_t of) {
    const double ms = static_cast<double>(total.nanoseconds) * 1e-6;
    out += fmt::format("\n{:<24}{:>10}{:>12.1f}{:>9.1f}{:>12.1f}",
                       std::string(static_cast<std::size_t>(total.depth) * 2, ' ') + total.name,
                       total.count,
                       ms,
                       of > 0 ? 100.0 * static_cast<double>(total.nanoseconds) / of : 0.0,
                       1e3 * ms / static_cast<double>(total.count));
  };
  const auto step = std::find_if(
      totals_.begin(), totals_.end(), [](const Total& total) { return total.depth == 0; });
  const std::int64_t all = step == totals_.end() ? 0 : step->nanoseconds;
  for (const Total& head : totals_) {
    if (head.depth > 1) continue;
    line(head, all);
    for (const Total& part : totals_) {
      if (head.depth == 1 && part.depth > 1 && std::string_view(part.phase) == head.name) {
        line(part, all);
      }
    }
  }
  return fmt::format(
      "{}: {} steps{}{}\n{:<24}{:>10}{:>12}{:>9}{:>12}{}",
      path_,
      num_steps_,
      dropped_steps_ > 0 ? fmt::format(" ({} more were dropped)", dropped_steps_) : "",
      has_failed_ ? "; the disk refused the rest" : "",
      "",
      "count",
      "ms",
      "%",
      "mean us",
      out);
}

}  // namespace pagemill
