// What is kept of people's choices, where plugins are found, and who was inside a call when a process went.
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cfenv>
#include <clocale>
#include <csignal>
#include <fstream>

#include "engine/plugin_host/breadcrumb.h"
#include "engine/plugin_host/environment.h"
#include "engine/plugin_host/store.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class Places : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/switchyard-plugins-XXXXXX";
    folder_ = ::mkdtemp(name);
    for (const char* variable : {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"})
      ::setenv(variable, (folder_ / variable).c_str(), 1);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void plugin(const fs::path& where) const {
    fs::create_directories(where);
    std::ofstream(where / "plugin.json") << "{}";
  }
  fs::path folder_;
};

TEST_F(Places, ChoicesComeBackAsTheyWere) {
  EXPECT_TRUE(read_plugin_choices()->trusted.empty());
  PluginChoices choices;
  choices.trusted = {std::string(64, 'a')};
  choices.off = {{"bad", "it crashed."}};
  choices.settings["x"] = {{"bins", 4}};
  ASSERT_TRUE(write_plugin_choices(choices));
  const auto back = read_plugin_choices();
  ASSERT_TRUE(back);
  EXPECT_EQ(back->trusted, choices.trusted);
  EXPECT_EQ(back->off, choices.off);
  EXPECT_EQ(back->settings, choices.settings);
  std::ofstream(plugin_choices_file()) << R"({"trusted": ["anything"]})";
  EXPECT_FALSE(read_plugin_choices());
}

TEST_F(Places, FindsFoldersOnceAndInOrder) {
  plugin(folder_ / "a" / "two");
  plugin(folder_ / "a" / "one");
  plugin(folder_ / "single");
  fs::create_directories(folder_ / "a" / "empty");
  const auto found = find_plugin_folders({folder_ / "a", folder_ / "single", folder_ / "a", folder_ / "nowhere"});
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].filename(), "one");
  EXPECT_EQ(found[2].filename(), "single");
}

TEST_F(Places, RefusesWhatOthersCanWrite) {
  plugin(folder_ / "p");
  const fs::path file = folder_ / "p" / "plugin.json";
  EXPECT_TRUE(check_owner(file));
  ::chmod(file.c_str(), 0666);
  EXPECT_FALSE(check_owner(file));
  ::chmod(file.c_str(), 0644);
  ::chmod((folder_ / "p").c_str(), 0777);
  EXPECT_NE(check_owner(file).error().message().find("can be written by others"), std::string::npos);
}

TEST_F(Places, NamesWhoWasInsideACallWhenTheProcessWasKilled) {
  const pid_t child = ::fork();
  if (child == 0) {
    Breadcrumbs crumbs(folder_);
    Breadcrumbs::Trail* quiet = crumbs.begin("quiet");
    Breadcrumbs::Trail* loud = crumbs.begin("loud");
    { const CallMark mark(quiet, PluginCall::kRoute); }
    const CallMark mark(loud, PluginCall::kRoute);
    ::raise(SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
  const auto remains = Breadcrumbs::collect(folder_);
  ASSERT_EQ(remains.size(), 1u);
  EXPECT_EQ(remains[0].plugin, "loud");
  EXPECT_EQ(remains[0].call, PluginCall::kRoute);
  EXPECT_TRUE(Breadcrumbs::collect(folder_).empty());  // told once
}

TEST_F(Places, LeavesRunningProcessesAndNormalEndsAlone) {
  {
    Breadcrumbs crumbs(folder_);
    const CallMark mark(crumbs.begin("busy"), PluginCall::kDraw);
    EXPECT_EQ(crumbs.inside(), "busy (draw)");
    EXPECT_TRUE(Breadcrumbs::collect(folder_).empty());
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  const pid_t child = ::fork();
  if (child == 0) {
    Breadcrumbs crumbs(folder_);
    crumbs.begin("idle");
    ::raise(SIGKILL);  // by somebody's hand: nobody is to blame
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(Breadcrumbs::collect(folder_).empty());
}

TEST(ProcessEnvironment, SeesEveryChangeAndPutsItBack) {
  const fs::path here = fs::current_path();
  const std::string locale = std::setlocale(LC_ALL, nullptr);
  struct stat before {
  }, after{};
  ASSERT_EQ(::fstat(2, &before), 0);
  const ProcessEnvironment environment = ProcessEnvironment::now();
  ::chdir("/");
  ::close(2);
  std::signal(SIGTERM, SIG_IGN);
  std::fesetround(FE_UPWARD);
  std::setlocale(LC_ALL, "C.UTF-8");
  const std::vector<std::string> changed = environment.restore();
  EXPECT_EQ(changed.size(), 5u);
  EXPECT_EQ(fs::current_path(), here);
  ASSERT_EQ(::fstat(2, &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(std::signal(SIGTERM, SIG_DFL), SIG_DFL);
  EXPECT_EQ(std::fegetround(), FE_TONEAREST);
  EXPECT_EQ(std::setlocale(LC_ALL, nullptr), locale);
  EXPECT_TRUE(environment.restore().empty());
}

}  // namespace
}  // namespace switchyard
