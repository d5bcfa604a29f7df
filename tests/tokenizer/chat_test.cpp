// Chat templates give the text of transformers' own jinja2 environment (tests/data/tokenizer/chat.json, made by
// make_chat_goldens.py), are found in the order of families.md, section 3.3, and hostile ones are stopped.
#include <gtest/gtest.h>

#include "engine/tokenizer/chat_template.h"
#include "tests/tokenizer/support.h"

namespace switchyard {
namespace {

const Json& data() {
  static const Json json = Json::parse(read(kSource / "tests/data/tokenizer/chat.json"));
  return json;
}

ChatTemplate with_source(const std::string& source) {
  const ScratchFolder folder;
  folder.write("chat_template.jinja", source);
  folder.write("tokenizer_config.json", data()["special_tokens"].dump());
  auto loaded = ChatTemplate::load(folder.path());
  if (!loaded) ADD_FAILURE() << loaded.error().message();
  return loaded ? *loaded : ChatTemplate();
}

class ChatGolden : public testing::TestWithParam<size_t> {};

TEST_P(ChatGolden, RendersAsTransformersDoes) {
  const Json& golden = data()["templates"][GetParam()];
  const ChatTemplate chat = with_source(golden["source"]);
  ASSERT_GE(golden["cases"].size(), 6u);
  for (const Json& one : golden["cases"]) {
    const std::string title = one["conversation"];
    const auto text = chat.render(data()["conversations"][title].get<std::string>());
    if (one.contains("error")) {
      ASSERT_FALSE(text) << title << ": " << *text;
      EXPECT_NE(text.error().what.find(one["error"].get<std::string>()), std::string::npos) << text.error().message();
    } else {
      ASSERT_TRUE(text) << title << ": " << text.error().message();
      EXPECT_EQ(*text, one["text"].get<std::string>()) << title;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Templates, ChatGolden, testing::Range<size_t>(0, data()["templates"].size()), [](const auto& info) {
  return data()["templates"][info.param]["name"].template get<std::string>();
});

// Files of a folder, the wanted name, and the source that must be found.
TEST(ChatTemplate, IsFoundInTheOrderOfItsSources) {
  const ScratchFolder folder;
  const auto found = [&](std::string_view name) {
    const auto chat = ChatTemplate::load(folder.path(), name);
    return chat ? chat->source() : std::string(chat.error().code == ErrorCode::kNotFound ? "none" : chat.error().message());
  };
  EXPECT_EQ(found(""), "none");
  folder.write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(found(""), "config");
  EXPECT_EQ(found("tool_use"), "none");
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "list"}]})");
  EXPECT_EQ(found(""), "list");
  EXPECT_EQ(found("tool_use"), "tools");
  folder.write("additional_chat_templates/tool_use.jinja", "file tools");
  EXPECT_EQ(found("tool_use"), "file tools");
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(found(""), "file");
  EXPECT_NE(found("../../etc/passwd").find("is no name of a chat template"), std::string::npos);
}

TEST(ChatTemplate, SaysWhatIsWrongWithItsSource) {
  const auto refused = [](const std::string& name, const std::string& text) {
    const ScratchFolder folder;
    folder.write(name, text);
    const auto chat = ChatTemplate::load(folder.path());
    return chat ? std::string("loads") : chat.error().message();
  };
  EXPECT_NE(refused("chat_template.jinja", "\xFF").find("chat_template.jinja: is not valid UTF-8"), std::string::npos);
  EXPECT_NE(refused("chat_template.jinja", std::string((1 << 20) + 1, 'x')).find("chat_template.jinja"), std::string::npos);
  EXPECT_NE(refused("tokenizer_config.json", R"({"chat_template": 7})").find("/chat_template needs to be a text or a list"), std::string::npos);
  EXPECT_NE(refused("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})").find("/chat_template/0/template is missing"), std::string::npos);
}

TEST(ChatTemplate, WrapsOnePrompt) {
  const ChatTemplate chat = with_source("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
  EXPECT_EQ(chat.render_prompt("say \"hi\"\n\xFF").value(), "<s>[user] say \"hi\"\n\xEF\xBF\xBD[assistant]");
}

// Each must end, in an error or in a text, and never take the program with it (reliability.md, section 5).
struct Hostile {
  const char* name;
  std::string source;
  const char* message;  // nullptr: may also render
};

std::string repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

const std::vector<Hostile>& hostile() {
  static const std::vector<Hostile> list = {
      {"endless_range", "{% for i in range(1000000000) %}{% endfor %}", "the chat template"},
      {"nested_loops", "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}", "does not end within"},
      {"endless_text", "{% for i in range(100000) %}" + std::string(1000, 'x') + "{% endfor %}", "the chat template"},
      {"doubling", "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", "the chat template"},
      {"long_repetition", "{{ 'x' * 10000000000 }}", "the chat template"},
      {"nine_megabytes", "{% set s = '" + std::string(100000, 'x') + "' %}{% for i in range(90) %}{{ s }}{% endfor %}", "writes more than 8 MiB"},
      {"recursive_macro", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "the chat template"},
      {"mutual_macros", "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template"},
      {"deep_parentheses", "{{ " + repeated("(", 200000) + "1" + repeated(")", 200000) + " }}", "the chat template"},
      {"deep_lists", "{{ " + repeated("[", 200000) + repeated("]", 200000) + " }}", "the chat template"},
      {"deep_ifs", repeated("{% if true %}", 40000) + repeated("{% endif %}", 40000), nullptr},
      {"self_reference", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a | tojson }}", nullptr},
      {"division_by_zero", "{{ 1 / 0 }}", nullptr},
      {"modulo_zero", "{{ 7 % 0 }}", nullptr},
      {"divisible_by_zero", "{{ 7 is divisibleby 0 }}", "the chat template"},
      {"negative_minimum", "{{ -9223372036854775808 }}{{ 9223372036854775807 + 1 }}", nullptr},
      {"huge_number", "{{ 999999999999999999999999999999 }}", nullptr},
      {"negative_index", "{{ messages[-99999] }}{{ 'abc'[99999999999] }}", nullptr},
      {"zero_step", "{{ range(1, 5, 0) }}{{ [1, 2][::0] }}", nullptr},
      {"wild_slice", "{{ 'abc'[-9223372036854775807:9223372036854775807:-9223372036854775807] }}", nullptr},
      {"open_expression", "{{ messages", ""},
      {"open_statement", "{% if", ""},
      {"open_block", "{% for m in messages %}", ""},
      {"open_string", "{{ 'abc }}", ""},
      {"open_comment", "{# abc", ""},
      {"open_escape", "{{ 'abc\\", ""},
      {"stray_end", "{% endfor %}", ""},
      {"unknown_statement", "{% include '/etc/passwd' %}", ""},
      {"import", "{% import 'os' as os %}{{ os }}", ""},
      {"extends", "{% extends 'base' %}", ""},
      {"unknown_filter", "{{ 1 | system }}", ""},
      {"unknown_function", "{{ open('/etc/passwd') }}", ""},
      {"python_internals", "{{ ''.__class__.__mro__[1].__subclasses__() }}", ""},
      {"python_globals", "{{ messages.__init__.__globals__ }}", nullptr},
      {"call_of_text", "{{ 'abc'() }}", ""},
      {"raised", "{{ raise_exception('no') }}", "no"},
      {"long_date", "{{ strftime_now('" + repeated("%c", 10000) + "') }}", ""},
      {"odd_date", "{{ strftime_now('%') }}{{ strftime_now('%Q%#') }}", nullptr},
      {"nul", std::string("a\0{{ 1 }}\0b", 11), nullptr},
      {"only_braces", "{{{{{{{{{{", ""},
      {"empty", "", nullptr},
      {"join_of_all", "{% set a = range(3000) | list %}{% for i in a %}{{ a | join(',') | length }}{% endfor %}", nullptr},
  };
  return list;
}

class HostileTemplate : public testing::TestWithParam<size_t> {};

TEST_P(HostileTemplate, EndsWithoutHarm) {
  const Hostile& one = hostile()[GetParam()];
  const ChatTemplate chat = with_source(one.source);
  const auto text = chat.render(R"({"messages": [{"role": "user", "content": "hi"}]})");
  if (!text) {
    EXPECT_FALSE(text.error().what.empty());
    EXPECT_NE(text.error().message().find("chat_template.jinja"), std::string::npos) << text.error().message();
    EXPECT_NE(text.error().what.find(one.message ? one.message : ""), std::string::npos) << text.error().what;
  } else {
    EXPECT_EQ(one.message, nullptr) << "renders: " << text->substr(0, 200);
    EXPECT_LE(text->size(), size_t{8} << 20);
  }
}

INSTANTIATE_TEST_SUITE_P(Templates, HostileTemplate, testing::Range<size_t>(0, hostile().size()),
                         [](const auto& info) { return std::string(hostile()[info.param].name); });

}  // namespace
}  // namespace switchyard
