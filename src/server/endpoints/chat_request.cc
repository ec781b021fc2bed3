#include <fmt/format.h>

#include <array>

#include "server/endpoints/chat_protocol.h"

namespace pagemill {
namespace {

constexpr std::int32_t kMaxTopLogprobs = 20;
// What chat_template_kwargs may not replace: the request has fields of its own for these.
constexpr std::array<std::string_view, 4> kReserved = {
    "messages", "tools", "add_generation_prompt", "continue_final_message"};

std::string minified(JsonElement element) { return simdjson::minify(element); }

// One part of an array content: only text can be served.
Status read_text_part(JsonElement part, const std::string& path, std::string& out) {
  if (part.is_string()) {
    out = std::string(std::string_view(part));
    return ok_status();
  }
  if (!part.is_object()) return json_expected(path, "object", part);
  std::string type = "text";
  JsonElement value;
  if (part["type"].get(value) == simdjson::SUCCESS) {
    PM_TRY(read_json(value, json_join(path, "type"), type));
  }
  if (type != "text" && type != "input_text" && type != "refusal") {
    return invalid_argument(
        fmt::format("{}.type: '{}' is not supported: this model reads text only", path, type),
        json_join(path, "type"));
  }
  const char* key = type == "refusal" ? "refusal" : "text";
  if (part[key].get(value) != simdjson::SUCCESS) {
    return invalid_argument(fmt::format("{}.{}: is required", path, key), json_join(path, key));
  }
  return read_json(value, json_join(path, key), out);
}

// Templates of text models expect a string: parts are joined by newlines.
Status read_content(JsonElement element, const std::string& path, std::string& out) {
  if (element.is_string()) {
    out = std::string(std::string_view(element));
    return ok_status();
  }
  if (!element.is_array()) return json_expected(path, "string", element);
  out.clear();
  std::size_t index = 0;
  for (const JsonElement part : simdjson::dom::array(element)) {
    std::string text;
    PM_TRY(read_text_part(part, json_index(path, index), text));
    if (index++ > 0) out += '\n';
    out += text;
  }
  return ok_status();
}

// OpenAI sends a function's arguments as a string of JSON; templates print them as an object.
void put_function(JsonOut& json, simdjson::dom::object function) {
  json.begin_object();
  for (const auto& [key, value] : function) {
    json.key(key);
    if (key == "arguments" && value.is_string()) {
      const auto arguments = JsonDocument::parse(std::string_view(value));
      if (arguments.ok() && arguments->root().is_object()) {
        json.raw(minified(arguments->root()));
        continue;
      }
    }
    json.raw(minified(value));
  }
  json.end_object();
}

Status put_tool_calls(JsonOut& json, JsonElement calls, const std::string& path) {
  if (!calls.is_array()) return json_expected(path, "array", calls);
  json.begin_array();
  std::size_t index = 0;
  for (const JsonElement call : simdjson::dom::array(calls)) {
    const std::string where = json_index(path, index++);
    if (!call.is_object()) return json_expected(where, "object", call);
    json.begin_object();
    for (const auto& [key, value] : simdjson::dom::object(call)) {
      json.key(key);
      if (key == "function" && value.is_object()) {
        put_function(json, value);
      } else {
        json.raw(minified(value));
      }
    }
    json.end_object();
  }
  json.end_array();
  return ok_status();
}

Status put_message(JsonOut& json, JsonElement message, const std::string& path, ChatRequest& out) {
  if (!message.is_object()) return json_expected(path, "object", message);
  out.last_role.clear();
  out.last_content.clear();
  bool has_content = false, has_calls = false;
  json.begin_object();
  for (const auto& [key, value] : simdjson::dom::object(message)) {
    const std::string where = json_join(path, key);
    json.key(key);
    if (key == "role") {
      PM_TRY(read_json(value, where, out.last_role));
      json.value(out.last_role);
    } else if (key == "content" && !value.is_null()) {
      has_content = true;
      PM_TRY(read_content(value, where, out.last_content));
      json.value(out.last_content);
    } else if (key == "tool_calls" && !value.is_null()) {
      has_calls = true;
      PM_TRY(put_tool_calls(json, value, where));
    } else {
      if (key == "name" && !value.is_null() && !value.is_string()) {
        return json_expected(where, "string", value);
      }
      json.raw(minified(value));
    }
  }
  json.end_object();
  if (out.last_role.empty()) return invalid_argument(path + ".role: is required", path + ".role");
  if (!has_content && !has_calls && out.last_role != "assistant") {
    return invalid_argument(path + ".content: is required", path + ".content");
  }
  return ok_status();
}

Status read_messages(JsonElement element, const std::string& path, ChatRequest& out) {
  if (!element.is_array()) return json_expected(path, "array", element);
  out.messages_json.clear();
  JsonOut json(out.messages_json);
  json.begin_array();
  std::size_t index = 0;
  for (const JsonElement message : simdjson::dom::array(element)) {
    PM_TRY(put_message(json, message, json_index(path, index++), out));
  }
  json.end_array();
  if (index == 0) return invalid_argument("messages: the array is empty", "messages");
  return ok_status();
}

Status read_tools(JsonElement element, const std::string& path, ChatRequest& out) {
  if (!element.is_array()) return json_expected(path, "array", element);
  std::size_t index = 0;
  for (const JsonElement tool : simdjson::dom::array(element)) {
    if (!tool.is_object()) return json_expected(json_index(path, index), "object", tool);
    ++index;
  }
  out.tools_json = index == 0 ? std::string() : minified(element);
  return ok_status();
}

// The model may call a tool in its text; being made to is structured output.
Status read_tool_choice(JsonElement element, const std::string& path, ChatRequest&) {
  if (element.is_string()) {
    const std::string_view choice = element;
    if (choice == "none" || choice == "auto") return ok_status();
  }
  return invalid_argument(path + ": only 'none' and 'auto' are supported yet", path);
}

Status read_kwargs(JsonElement element, const std::string& path, ChatRequest& out) {
  if (!element.is_object()) return json_expected(path, "object", element);
  out.template_kwargs.clear();
  for (const auto& [key, value] : simdjson::dom::object(element)) {
    for (const std::string_view reserved : kReserved) {
      if (key != reserved) continue;
      return invalid_argument(fmt::format("{}.{}: set the request's own field instead", path, key),
                              json_join(path, key));
    }
    out.template_kwargs.emplace_back(std::string(key), minified(value));
  }
  return ok_status();
}

using C = ChatRequest;
constexpr JsonField<C> kFields[] = {
    {"messages", read_messages},
    {"tools", read_tools},
    {"tool_choice", read_tool_choice},
    {"chat_template_kwargs", read_kwargs},
    json_field<&C::logprobs>("logprobs"),
    json_field<&C::top_logprobs>("top_logprobs"),
    json_field<&C::max_completion_tokens>("max_completion_tokens"),
    json_field<&C::add_generation_prompt>("add_generation_prompt"),
    json_field<&C::continue_final_message>("continue_final_message"),
};

Status check(ChatRequest& request) {
  PM_TRY(check_generation_request(request));
  if (request.messages_json.empty()) return invalid_argument("messages: is required", "messages");
  if (request.top_logprobs < 0 || request.top_logprobs > kMaxTopLogprobs) {
    return invalid_argument(fmt::format("top_logprobs: must be between 0 and {}, got {}",
                                        kMaxTopLogprobs,
                                        request.top_logprobs),
                            "top_logprobs");
  }
  if (request.top_logprobs > 0 && !request.logprobs) {
    return invalid_argument("top_logprobs: needs logprobs to be true", "top_logprobs");
  }
  if (request.logprobs) request.params.logprobs = request.top_logprobs;
  if (request.max_completion_tokens) request.max_tokens = request.max_completion_tokens;
  if (request.continue_final_message && request.add_generation_prompt.value_or(false)) {
    return invalid_argument("continue_final_message: can't be combined with add_generation_prompt",
                            "continue_final_message");
  }
  return ok_status();
}

}  // namespace

Result<ChatRequest> parse_chat_request(std::string_view body, const SamplingParams& defaults) {
  PM_ASSIGN(const JsonDocument document, JsonDocument::parse(body));
  ChatRequest request;
  request.params = defaults;
  PM_TRY(refuse_unsupported(document.root()));
  PM_TRY(read_generation_request(document.root(), request));
  PM_TRY(read_json_fields<ChatRequest>(document.root(), "", kFields, request));
  PM_TRY(check(request));
  return request;
}

std::string chat_template_context(const ChatRequest& request) {
  std::string out;
  JsonOut json(out);
  json.begin_object();
  for (const auto& [name, value] : request.template_kwargs) json.key(name).raw(value);
  json.key("messages").raw(request.messages_json);
  request.tools_json.empty() ? json.null_field("tools") : json.key("tools").raw(request.tools_json);
  json.field("add_generation_prompt",
             request.add_generation_prompt.value_or(!request.continue_final_message));
  json.field("continue_final_message", request.continue_final_message);
  json.end_object();
  return out;
}

}  // namespace pagemill
