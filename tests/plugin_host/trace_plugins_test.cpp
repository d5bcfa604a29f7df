// Who made the schemes of a trace: written into its epochs, read from them whatever they hold.
#include <gtest/gtest.h>

#include "engine/routing/scheme_makers.h"
#include "engine/trace/trace_plugins.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

TEST(TracePlugins, ANamedSchemeOfAPluginIsWrittenOnceWithItsHash) {
  add_scheme_maker("made.a", {"made", "1.2", "abc"});
  add_scheme_maker("made.b", {"made", "1.2", "abc"});
  Json script = Json::parse(R"({"schema": 1, "edits": [{"kind": "scheme", "layer": 0, "name": "made.a"},
    {"kind": "scheme", "layer": 1, "name": "made.b"}, {"kind": "scheme", "layer": 2, "name": "made.a"},
    {"kind": "scheme", "layer": 3, "name": "top_k"}, {"kind": "mute", "layer": 4, "expert": 1, "name": "made.b"}]})");
  name_makers(script);
  EXPECT_EQ(script["plugins"].dump(),
            R"([{"id":"made","version":"1.2","sha256":"abc","schemes":["made.a","made.b"]}])");
  const auto found = plugins_of({{0, script.dump()}, {9, script.dump()}});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(describe(found[0]), "made 1.2, SHA-256 abc: made.a, made.b");
}

TEST(TracePlugins, WithoutSuchASchemeNothingIsWritten) {
  Json script = Json::parse(R"({"schema": 1, "edits": [{"kind": "scheme", "name": "native"}]})");
  const Json before = script;
  name_makers(script);
  EXPECT_EQ(script, before);
}

TEST(TracePlugins, WhatIsNoListOfPluginsIsLeftOut) {
  const std::string deep(100'000, '[');
  const auto found = plugins_of({{0, "no json"},
                                 {1, ""},
                                 {2, R"({"plugins": 5})"},
                                 {3, R"({"plugins": [5, {}, {"id": 7}]})"},
                                 {4, R"({"plugins": )" + deep},
                                 {5, R"({"plugins": [{"id": "a\u001b", "schemes": [3, "s", "s"]}]})"}});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].schemes, std::vector<std::string>{"s"});
  EXPECT_EQ(found[0].id.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace switchyard
