// pagemill._engine: the engine behind the Python package.
#include <cstdlib>

#include "base/logging.h"
#include "bindings.h"

NB_MODULE(_engine, module) {
  using namespace pagemill;
  module.doc() = "The engine behind the Python package pagemill, which is its public face.";
  // Objects that other libraries keep until the interpreter's end are no bug of this one.
  pagemill::python::nb::set_leak_warnings(false);
  const char* level = std::getenv("PAGEMILL_LOG_LEVEL");
  python::value_or_raise(init_logging(level != nullptr ? level : "warning"));
  python::bind_sampling_params(module);
  python::bind_tokenizer(module);
  python::bind_engine(module);
  python::bind_stream(module);
}
