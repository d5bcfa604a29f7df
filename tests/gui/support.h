// What the window tests share: a quiet home, waiting, and the window with the demo open.
#pragma once

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <QApplication>
#include <QElapsedTimer>
#include <QTest>
#include <QTimer>

#include "app/gui/docks/generation_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/main_window.h"
#include "app/gui/token_text_view.h"

namespace switchyard {

inline bool wait_until(const std::function<bool()>& done, int ms = 30'000) {
  return QTest::qWaitFor(done, ms);
}

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-gui-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// The real window with the demo model open.
class DemoWindow : public ::testing::Test {
 protected:
  void SetUp() override {
    WindowOptions options;
    options.size = "1600x900";
    options.safe_mode = true;
    window_ = std::make_unique<MainWindow>(options);
    window_->show();
    ASSERT_TRUE(QTest::qWaitForWindowActive(window_.get(), 20'000));
    window_->open_path("demo");
    ASSERT_TRUE(wait_until([&] { return model().has_session(); })) << newest_message();
  }

  RunModel& model() { return window_->model(); }
  std::string newest_message() {
    return window_->log().entries().empty() ? "no message" : window_->log().entries().back().text.toStdString();
  }
  // Runs `prompt` for `tokens` tokens and waits for the end.
  void run(const QString& prompt, uint64_t tokens) {
    window_->generation().set_prompt(prompt);
    window_->generation().set_max_new_tokens(tokens);
    window_->start_run();
    ASSERT_TRUE(wait_until([&] { return model().state() == RunState::kFinished && !model().running(); }))
        << newest_message();
    model().drain();
  }

  std::unique_ptr<MainWindow> window_;
};

}  // namespace switchyard
