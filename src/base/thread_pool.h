// A persistent pool of compute threads: fork-join per operation.
//
// Workers claim tasks by ticket, spin briefly between operations, then park: an idle pool costs
// nothing. The calling thread takes part. One caller at a time (the engine thread).
#pragma once

#include <memory>
#include <type_traits>

namespace pagemill {

// A reference to a callable void(int task); it does not own it.
class TaskRef {
 public:
  template <typename F>
  TaskRef(F&& f)  // NOLINT: implicit by design
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, int task) {
          (*static_cast<std::remove_reference_t<F>*>(object))(task);
        }) {}
  void operator()(int task) const { call_(object_, task); }

 private:
  void* object_;
  void (*call_)(void*, int);
};

class ThreadPool {
 public:
  // num_threads >= 1, the caller included: num_threads-1 workers are started.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Runs fn(task) once for each task in [0, num_tasks) and returns when all are done. Which thread
  // runs which task is unspecified: a task's result must not depend on it.
  void parallel_for(int num_tasks, TaskRef fn);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One per physical core within the affinity mask and the cgroup quota, at least 1.
int default_num_threads();

}  // namespace pagemill
