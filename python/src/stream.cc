#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <mutex>

#include "engine.h"

namespace pagemill::python {
namespace {

// Where streams say that they have something new: an event loop watches its descriptor. The
// engine's threads only write to it, so that they never wait for the GIL.
class Mailbox {
 public:
  Mailbox() : descriptor_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (descriptor_ < 0)
      raise(Error{ErrorCode::kIo, std::string("eventfd: ") + std::strerror(errno), {}});
  }
  ~Mailbox() { close(descriptor_); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  int descriptor() const { return descriptor_; }

  void put(std::uint64_t key) {
    const std::lock_guard lock(mutex_);
    keys_.push_back(key);
    const std::uint64_t one = 1;
    if (keys_.size() == 1) (void)!write(descriptor_, &one, sizeof(one));
  }

  std::vector<std::uint64_t> take() {
    const std::lock_guard lock(mutex_);
    std::uint64_t count = 0;
    (void)!read(descriptor_, &count, sizeof(count));
    return std::exchange(keys_, {});
  }

 private:
  const int descriptor_;
  std::mutex mutex_;
  std::vector<std::uint64_t> keys_;
};

enum class Kind { kCumulative, kDelta, kFinalOnly };

// What Python holds of it: a nanobind shared_ptr to a Python object would need the GIL to be let
// go.
struct PyMailbox {
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
};

// One request's output so far, between the output thread and the event loop.
class Inbox {
 public:
  Inbox(std::shared_ptr<Mailbox> mailbox, std::uint64_t key, RequestOutput output, Kind kind)
      : mailbox_(std::move(mailbox)), key_(key), kind_(kind), output_(std::move(output)) {}

  void add(const RequestDelta& delta) {
    const std::lock_guard lock(mutex_);
    append(output_, delta);
    if (kind_ == Kind::kFinalOnly && !output_.finished) return;
    if (!std::exchange(is_new_, true)) mailbox_->put(key_);
  }

  // What to yield next, or nothing.
  std::optional<RequestOutput> take() {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(is_new_, false)) return std::nullopt;
    RequestOutput taken = output_;
    if (kind_ == Kind::kDelta) {
      for (CompletionOutput& completion : output_.outputs) {
        completion.text.clear();
        completion.token_ids.clear();
        completion.logprobs.clear();
      }
    }
    return taken;
  }

  bool finished() const {
    const std::lock_guard lock(mutex_);
    return output_.finished;
  }

 private:
  const std::shared_ptr<Mailbox> mailbox_;
  const std::uint64_t key_;
  const Kind kind_;
  mutable std::mutex mutex_;
  RequestOutput output_;
  bool is_new_ = false;
};

// A request that runs. It is aborted when nobody holds it any more.
class Stream {
 public:
  Stream(nb::object engine,
         nb::handle prompt,
         const PySamplingParams& params,
         const PyMailbox& mailbox,
         std::uint64_t key,
         std::string name,
         std::int32_t priority)
      : owner_(std::move(engine)), params_(params), name_(std::move(name)) {
    LLM& llm = nb::cast<const Engine&>(owner_).llm();
    const Prompt read = read_prompt(prompt);
    const auto submit = [&] {
      const nb::gil_scoped_release release;
      return submit_prompt(llm, read, mailbox.mailbox, key, priority);
    };
    id_ = value_or_raise(submit());
  }
  ~Stream() {
    if (nb::cast<const Engine&>(owner_).is_here()) abort();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void abort() const {
    if (!inbox_->finished()) nb::cast<const Engine&>(owner_).llm().engine().abort(id_);
  }

  nb::object take() const {
    const auto output = inbox_->take();
    if (!output) return nb::none();
    if (output->error) raise(*output->error);
    return OutputConverter().convert(*output, params_, to_str(name_));
  }

 private:
  Result<RequestId> submit_prompt(LLM& llm,
                                  const Prompt& prompt,
                                  const std::shared_ptr<Mailbox>& mailbox,
                                  std::uint64_t key,
                                  std::int32_t priority) {
    PM_ASSIGN(RequestOutput output, encode_prompt(llm, prompt));
    Request request;
    request.prompt_token_ids = output.prompt_token_ids;
    request.params = resolve_params(llm, params_, request.prompt_token_ids.size());
    request.priority = priority;
    expect_outputs(output, request.params.n);
    inbox_ = std::make_shared<Inbox>(
        mailbox, key, std::move(output), static_cast<Kind>(params_.output_kind));
    return llm.engine().submit(std::move(request),
                               [inbox = inbox_](const RequestDelta& delta) { inbox->add(delta); });
  }

  nb::object owner_;  // an Engine, kept alive
  PySamplingParams params_;
  std::string name_;
  std::shared_ptr<Inbox> inbox_;
  RequestId id_ = 0;
};

}  // namespace

void bind_stream(nb::module_& module) {
  nb::class_<PyMailbox>(module, "Mailbox", "Where an event loop hears of streams.")
      .def(nb::init<>())
      .def(
          "fileno",
          [](const PyMailbox& self) { return self.mailbox->descriptor(); },
          "Readable while take() has something.")
      .def(
          "take",
          [](const PyMailbox& self) { return self.mailbox->take(); },
          "Keys of streams that have something new.");
  nb::class_<Stream>(module, "Stream", "A request that runs; aborted when it is deleted.")
      .def(nb::init<nb::object,
                    nb::handle,
                    const PySamplingParams&,
                    const PyMailbox&,
                    std::uint64_t,
                    std::string,
                    std::int32_t>(),
           nb::arg("engine"),
           nb::arg("prompt"),
           nb::arg("params"),
           nb::arg("mailbox"),
           nb::arg("key"),
           nb::arg("request_id"),
           nb::arg("priority"))
      .def("take", &Stream::take, "The next RequestOutput, or None if nothing is new.")
      .def("abort", &Stream::abort, "Ends it with finish_reason 'abort'; frees its blocks.");
}

}  // namespace pagemill::python
