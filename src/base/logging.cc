#include "base/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <string>

#include "base/json_string.h"

namespace pagemill {
namespace {

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& dest) override {
    spdlog::memory_buf_t time;
    time_.format(msg, time);
    const auto level = spdlog::level::to_string_view(msg.level);
    const std::string line = json_log_line({time.data(), time.size()},
                                           {level.data(), level.size()},
                                           {msg.payload.data(), msg.payload.size()}) +
                             "\n";
    dest.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<JsonFormatter>(); }

 private:
  spdlog::pattern_formatter time_{"%Y-%m-%dT%H:%M:%S.%eZ", spdlog::pattern_time_type::utc, ""};
};

}  // namespace

std::string json_log_line(std::string_view time, std::string_view level, std::string_view message) {
  std::string line = "{\"time\":";
  append_json_string(time, &line);
  line += ",\"level\":";
  append_json_string(level, &line);
  line += ",\"message\":";
  append_json_string(message, &line);
  line.push_back('}');
  return line;
}

Status init_logging(std::string_view level, bool json) {
  const auto parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off") {
    return invalid_argument(fmt::format(
        "log level: expected trace, debug, info, warning, error, critical or off, got '{}'",
        level));
  }
  auto logger = std::make_shared<spdlog::logger>("pagemill",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  if (json) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  }
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
  return ok_status();
}

}  // namespace pagemill
