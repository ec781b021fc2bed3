// Result<T>: a value, or an Error that says what went wrong, where, and what would be right.
//
// For everything that a file, a client or a full pool can cause. What only a bug can cause is a
// PM_CHECK (base/check.h). Exceptions never cross the engine loop.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace pagemill {

enum class ErrorCode {
  kInvalidArgument,    // the caller's input is wrong: HTTP 400
  kNotFound,           // no such model, file or tensor: HTTP 404
  kTooLarge,           // over a stated limit: HTTP 413
  kResourceExhausted,  // a queue or pool is full, try later: HTTP 429
  kUnavailable,        // shutting down or not loaded: HTTP 503
  kCorrupt,            // a file's content is damaged or hostile
  kUnsupported,        // well formed, but not implemented
  kIo,                 // the operating system refused
  kCancelled,          // the client went away
  kInternal,           // a bug that was contained
};

// `param` names the field at fault in the client's own words ("messages[0].content"), or is empty.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  std::string param;
};

inline Error invalid_argument(std::string message, std::string param = {}) {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(param)};
}
inline Error corrupt(std::string message) { return {ErrorCode::kCorrupt, std::move(message), {}}; }
inline Error unsupported(std::string message) {
  return {ErrorCode::kUnsupported, std::move(message), {}};
}
inline Error not_found(std::string message) {
  return {ErrorCode::kNotFound, std::move(message), {}};
}
inline Error io_error(std::string message) { return {ErrorCode::kIo, std::move(message), {}}; }

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    PM_CHECK(ok(), "value() of an error: {}", error_message());
    return std::get<0>(state_);
  }
  const T& value() const& {
    PM_CHECK(ok(), "value() of an error: {}", error_message());
    return std::get<0>(state_);
  }
  T&& value() && {
    PM_CHECK(ok(), "value() of an error: {}", error_message());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    PM_CHECK(!ok(), "error() of a value");
    return std::get<1>(state_);
  }
  Error&& error() && {
    PM_CHECK(!ok(), "error() of a value");
    return std::get<1>(std::move(state_));
  }

 private:
  std::string error_message() const { return ok() ? "" : std::get<1>(state_).message; }

  std::variant<T, Error> state_;
};

// The Result of an operation that returns nothing.
using Status = Result<std::monostate>;
inline Status ok_status() { return std::monostate{}; }

}  // namespace pagemill

// PM_TRY(expr): returns the error of a Status or Result from the enclosing function, else goes on.
#define PM_TRY(expr)                                                  \
  do {                                                                \
    auto pm_try_result = (expr);                                      \
    if (!pm_try_result.ok()) return std::move(pm_try_result).error(); \
  } while (false)

// PM_ASSIGN(auto x, expr): declares or assigns the value, or returns the error.
#define PM_CONCAT_INNER(a, b) a##b
#define PM_CONCAT(a, b) PM_CONCAT_INNER(a, b)
#define PM_ASSIGN(lhs, expr) PM_ASSIGN_IMPL(PM_CONCAT(pm_result_, __LINE__), lhs, expr)
#define PM_ASSIGN_IMPL(tmp, lhs, expr)          \
  auto tmp = (expr);                            \
  if (!tmp.ok()) return std::move(tmp).error(); \
  lhs = std::move(tmp).value()
