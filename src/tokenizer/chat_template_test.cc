// Chat templates against Transformers (make_chat_goldens.py), and templates that mean harm.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tokenizer/test_files.h"

namespace pagemill {
namespace {

using testing::golden_path;
using testing::load_fixture;

Result<std::string> render(const std::string& source, const nlohmann::ordered_json& context) {
  static auto tokenizer = load_fixture("byte_level");
  PM_ASSIGN(auto compiled, ChatTemplate::compile(source, *tokenizer));
  return compiled->render(context.dump());
}

const nlohmann::ordered_json kConversation = {{"messages",
                                               {{{"role", "system"}, {"content", "Be brief."}},
                                                {{"role", "user"}, {"content", "Hi"}},
                                                {{"role", "assistant"}, {"content", "Hello"}},
                                                {{"role", "user"}, {"content", "Bye"}}}},
                                              {"add_generation_prompt", true}};

TEST(ChatTemplate, RendersWhatTransformersRenders) {
  int refused = 0;
  int rendered = 0;
  // The order of keys counts: tojson keeps it.
  auto entries = nlohmann::ordered_json::parse(read_file(golden_path("chat.json")));
  for (const auto& entry : entries) {
    for (const auto& item : entry.at("cases")) {
      auto text = render(entry.at("template"), item.at("context"));
      SCOPED_TRACE(entry.at("name").get<std::string>() + " " + item.at("context").dump());
      if (item.at("text").is_null()) {
        ++refused;
        ASSERT_FALSE(text.ok()) << *text;
        EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
      } else {
        ++rendered;
        ASSERT_TRUE(text.ok()) << text.error().message;
        EXPECT_EQ(*text, item.at("text").get<std::string>());
      }
    }
  }
  EXPECT_GE(refused, 8);
  EXPECT_GE(rendered, 50);
}

TEST(ChatTemplate, ErrorsNameTheLineAndTheReason) {
  auto syntax = render("a\nb\n{% for %}", kConversation);
  ASSERT_FALSE(syntax.ok());
  EXPECT_NE(syntax.error().message.find("line 3"), std::string::npos) << syntax.error().message;
  auto raised = render("{{ raise_exception('roles must alternate') }}", kConversation);
  ASSERT_FALSE(raised.ok());
  EXPECT_NE(raised.error().message.find("roles must alternate"), std::string::npos);
  auto bad = render("\n{{ messages.x.y }}", kConversation);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message.find("line 2"), std::string::npos) << bad.error().message;
}

TEST(ChatTemplate, ContinuesTheFinalMessage) {
  nlohmann::ordered_json context = kConversation;
  context["add_generation_prompt"] = false;
  context["continue_final_message"] = true;
  context["messages"].push_back({{"role", "assistant"}, {"content", "Good b"}});
  auto text = render(std::string(builtin_chat_template("chatml")), context);
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_TRUE(text->ends_with("<|im_start|>assistant\nGood b")) << *text;
  context["add_generation_prompt"] = true;
  EXPECT_FALSE(render("{{ messages }}", context).ok());
  context["add_generation_prompt"] = false;
  EXPECT_FALSE(render("nothing of it", context).ok());
  context["messages"] = nlohmann::ordered_json::array();
  EXPECT_FALSE(render("", context).ok());
}

TEST(ChatTemplate, BuiltIn) {
  auto chatml = render(std::string(builtin_chat_template("chatml")), kConversation);
  ASSERT_TRUE(chatml.ok()) << chatml.error().message;
  EXPECT_EQ(*chatml,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n");
  // The fixture's bos is <|text|>, its eos <|end|>.
  auto llama2 = render(std::string(builtin_chat_template("llama2")), kConversation);
  ASSERT_TRUE(llama2.ok()) << llama2.error().message;
  EXPECT_EQ(*llama2,
            "<|text|>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello <|end|>"
            "<|text|>[INST] Bye [/INST]");
  auto vicuna = render(std::string(builtin_chat_template("vicuna")), kConversation);
  ASSERT_TRUE(vicuna.ok()) << vicuna.error().message;
  EXPECT_EQ(*vicuna, "Be brief. USER: Hi ASSISTANT: Hello<|end|> USER: Bye ASSISTANT:");
  EXPECT_EQ(builtin_chat_template("no such"), "");
}

TEST(ChatTemplate, StrftimeNow) {
  auto year = render("{{ strftime_now('%Y') }}", kConversation);
  ASSERT_TRUE(year.ok()) << year.error().message;
  EXPECT_GE(std::stoi(*year), 2024);
}

TEST(ChatTemplate, KeywordArgumentsReachTheTemplate) {
  nlohmann::ordered_json context = kConversation;
  context["enable_thinking"] = false;
  context["bos_token"] = "other";
  EXPECT_EQ(*render("{{ enable_thinking }} {{ bos_token }}", context), "False other");
}

long peak_memory_kb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

class HostileTemplateTest : public ::testing::TestWithParam<const char*> {};

TEST_P(HostileTemplateTest, IsAnErrorSoon) {
  auto text = render(GetParam(), kConversation);
  ASSERT_FALSE(text.ok()) << "rendered " << text->size() << " bytes";
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument) << text.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    All,
    HostileTemplateTest,
    ::testing::Values(
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(10000000000) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% "
        "endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% "
        "endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x * 9 %}{% "
        "endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set y %}{{ ns.x }}{{ ns.x }}{% "
        "endset %}"
        "{% set ns.x = y %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% "
        "endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% "
        "endfor %}"
        "{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(28) %}{% set ns.x = ns.x + ns.x %}{% "
        "endfor %}"
        "{{ ns.x | length }}{% for y in ns.x %}{% endfor %}",
        "{{ 'x' * 1000000000000 }}",
        "{{ 'a'.replace('', 'x' * 1000000).replace('x', 'y' * 1000000) }}",
        "{{ range(100000) | join('x' * 100000) }}",
        "{{ ('x' * 100000).join(range(100000)) }}",
        "{{ '{:999999999999}'.format(1) }}",
        "{{ '%999999999999d' | format(1) }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{% include 'other' %}",
        "{% extends 'other' %}",
        "{{ messages.__class__.__mro__ }}"));

// `statement` run `times` times, after `begin` and before `end`.
std::string repeated(std::string_view begin,
                     std::string_view statement,
                     int times,
                     std::string_view end) {
  return fmt::format(
      "{{% set ns = namespace(x={}, y=[2]) %}}{{% for i in range({}) %}}{}{{% endfor %}}{}",
      begin,
      times,
      statement,
      end);
}

// What doubles is small until something walks it. Each must end in an error, or in the answer where
// that is cheap, but in this process and in bounded memory.
TEST(HostileTemplate, DoublingIsBounded) {
  struct Case {
    const char *begin, *statement, *end;
  };
  const long before_kb = peak_memory_kb();
  for (const auto& [begin, statement, end] : std::vector<Case>{
           {"[1]",
            "{% set ns.x = ns.x + ns.x %}",
            "{{ ns.x | length }}{% for y in ns.x %}{% endfor %}"},
           {"[1]", "{% set ns.x = ns.x + ns.x %}", "{{ ns.x | join }}"},
           {"[1]", "{% set ns.x = ns.x * 2 %}", "{{ ns.x | list }}"},
           {"(1,)", "{% set ns.x = ns.x + ns.x %}", "{{ ns.x | last }}"},
           {"'ab'", "{% set ns.x = ns.x + ns.x %}", "{{ ns.x }}"},
           {"'ab'", "{% set ns.x = ns.x * 2 %}", "{{ ns.x }}"},
           {"'ab'", "{% set ns.x = [ns.x, ns.x] | join %}", "{{ ns.x }}"},
           {"'ab'", "{% set ns.x = 'aa'.replace('a', ns.x) %}", "{{ ns.x }}"},
           {"'ab'", "{% set ns.x = '%s%s' | format(ns.x, ns.x) %}", "{{ ns.x }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x ~ '' }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x | upper }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x in 'abc' }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x | pprint }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x | urlencode }}"},
           {"[1]", "{% set ns.x = [ns.x, ns.x] %}", "{{ raise_exception(ns.x) }}"},
           {"[1]", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x ~ '' }}"},
           {"[1]",
            "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}",
            "{{ ns.x < ns.y }}{{ [ns.x] == [ns.x + []] }}{{ ns.x in [ns.y] }}"},
           {"[1]",
            "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}",
            "{{ [ns.x, ns.y, ns.x + []] | unique | list | length }}"},
           {"[1]",
            "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.x, ns.x] %}",
            "{{ ns.x == ns.y }}{{ {ns.x: 1}[ns.y] }}{{ [ns.x, ns.y] | sort | length }}"},
       }) {
    // Beyond 32, minijinja copies lists that it otherwise joins lazily. Nested ones it never
    // copies.
    const bool nests =
        std::string_view(statement).find("= [ns.x, ns.x] %") != std::string_view::npos;
    for (int doublings : nests ? std::vector{64} : std::vector{28, 33, 64}) {
      const std::string source = repeated(begin, statement, doublings, end);
      SCOPED_TRACE(source);
      auto text = render(source, kConversation);
      if (text.ok()) continue;
      EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument) << text.error().message;
    }
  }
  EXPECT_LT(peak_memory_kb() - before_kb, 1024 * 1024);
}

TEST(HostileTemplate, DoublingTooOftenIsAnErrorThatSaysSo) {
  for (const char* source : {
           "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% "
           "endfor %}",
           "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% "
           "endfor %}{{ ns.x ~ '' }}",
           "{% macro f(x, n) %}{{ f(x + x, n - 1) if n else x | length }}{% endmacro %}{{ f([1], "
           "64) }}",
           "{% for i in range(10**9) %}{% endfor %}",
           "{{ range(10**9) | list }}",
           "{{ 'x' * 10**12 }}",
           "{{ ['x'] * 10**12 | list }}",
       }) {
    auto text = render(source, kConversation);
    ASSERT_FALSE(text.ok()) << source;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument) << source;
  }
  // A long list made item by item is none of that.
  auto list = render(
      "{% set ns = namespace(x=[]) %}{% for i in range(2000) %}{% set ns.x = ns.x + [i] %}{% "
      "endfor %}{{ ns.x | length }}",
      kConversation);
  ASSERT_TRUE(list.ok()) << list.error().message;
  EXPECT_EQ(*list, "2000");
}

// Constants are computed when the template is compiled.
TEST(HostileTemplate, HugeConstants) {
  std::string source;
  for (int i = 0; i < 5000; ++i) source += "{{ 'x' * 99999999 }}";
  const long before_kb = peak_memory_kb();
  EXPECT_FALSE(render(source, kConversation).ok());
  EXPECT_LT(peak_memory_kb() - before_kb, 512 * 1024);
}

TEST(HostileTemplate, NestingInTheSource) {
  for (const auto& [open, close] : std::vector<std::pair<std::string, std::string>>{
           {"(", ")"}, {"[", "]"}, {"{'a':", "}"}, {"not ", ""}, {"-", ""}, {"f(", ")"}}) {
    std::string source = "{{ ";
    for (int i = 0; i < 50000; ++i) source += open;
    source += '1';
    for (int i = 0; i < 50000; ++i) source += close;
    // Prefix operators are a chain, which may be as long as it likes; brackets nest.
    bool chain = close.empty();
    EXPECT_TRUE(chain || !render(source + " }}", kConversation).ok()) << open;
  }
  std::string blocks;
  for (int i = 0; i < 50000; ++i) blocks += "{% if true %}";
  EXPECT_FALSE(render(blocks, kConversation).ok());
  std::string sum = "{{ 1";
  for (int i = 0; i < 50000; ++i) sum += " + 1";
  (void)render(sum + " }}", kConversation);  // either way, but no crash
  std::string filters = "{{ 1";
  for (int i = 0; i < 50000; ++i) filters += "|string";
  (void)render(filters + " }}", kConversation);
  std::string elifs = "{% if a %}";
  for (int i = 0; i < 50000; ++i) elifs += "{% elif a %}";
  (void)render(elifs + "{% endif %}", kConversation);
}

TEST(HostileTemplate, DeepValuesAreFreed) {
  (void)render(
      "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor "
      "%}",
      kConversation);
}

TEST(HostileTemplate, DeepOrBrokenContexts) {
  auto tokenizer = load_fixture("byte_level");
  auto compiled = ChatTemplate::compile("{{ messages }}", *tokenizer);
  ASSERT_TRUE(compiled.ok());
  std::string deep = "{\"messages\": " + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_FALSE((*compiled)->render(deep).ok());
  for (const char* context : {"", "[]", "{", "{\"messages\": \xff}", "null"}) {
    EXPECT_FALSE((*compiled)->render(context).ok()) << context;
  }
}

}  // namespace
}  // namespace pagemill
