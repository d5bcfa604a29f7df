// The window from the user's hand: type, run, click a cell, mute, see it gone, undo, save, load.
#include <time.h>

#include <algorithm>
#include <thread>

#include <QAction>
#include <QCheckBox>
#include <QOpenGLWidget>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QTreeView>

#include "app/gui/action_table.h"
#include "app/gui/docks/history_model.h"
#include "app/gui/docks/history_panel.h"
#include "app/gui/go_to.h"
#include "app/gui/status_row.h"
#include "app/gui/toasts.h"
#include "app/gui/workbench.h"
#include "app/session/edits_in_force.h"
#include "tests/gui/support.h"

namespace switchyard {
namespace {

class Window : public DemoWindow {
 protected:
  QWidget* canvas(const char* id) { return window_->live_dock(id)->live()->findChild<QOpenGLWidget*>(); }

  // Clicks an item of a picture through its item map, as a hand would.
  void click_item(const char* view, const std::string& id, Qt::MouseButton button = Qt::LeftButton) {
    LiveDock* dock = window_->live_dock(view);
    ASSERT_TRUE(wait_until([&] { return dock->live()->items().find(id).has_value(); })) << id;
    const ItemRect rect = dock->live()->items().find(id)->rect;
    const QPoint at(int((rect.x0 + rect.x1) / 2), int((rect.y0 + rect.y1) / 2));
    QTest::mouseMove(canvas(view), at);
    QTest::qWait(120);
    QTest::mousePress(canvas(view), button, Qt::NoModifier, at);
    QTest::qWait(120);
    QTest::mouseRelease(canvas(view), button, Qt::NoModifier, at);
    QTest::qWait(150);
  }

  bool selected_in(const RoutingFrame& frame, int row, int expert) {
    for (const ExpertId id : frame.used_ids(row))
      if (id == expert) return true;
    return false;
  }
};

TEST_F(Window, TypeRunClickMuteUndoSaveLoad) {
  // Type a prompt and press Run.
  auto* prompt = window_->generation().prompt_edit();
  prompt->setFocus();
  prompt->clear();
  QTest::keyClicks(prompt, "The king said unto the people");
  window_->generation().set_max_new_tokens(24);  // the same text however fast the machine is
  auto* run_button = window_->findChild<QPushButton*>("tool.run.toggle");
  ASSERT_TRUE(run_button && run_button->isEnabled());
  QTest::mouseClick(run_button, Qt::LeftButton);
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() > 20 && model().state() == RunState::kFinished; })) << newest_message();
  EXPECT_TRUE(window_->generation().text()->full_text().startsWith("The king said unto the people"));

  // Click the cell of an expert that is in use.
  const int row = 5, expert = model().data().shown({})->ids(row)[0];
  const int layer = model().data().plan->moe_layers[row];
  click_item("routing_heatmap", "layer " + std::to_string(layer) + "/expert " + std::to_string(expert));
  EXPECT_EQ(model().selection().moe_layer, row);
  ASSERT_EQ(model().selection().expert, expert);

  // Mute it: it is in no later frame.
  const uint64_t muted_from = model().data().tokens();
  window_->actions().run("edit.mute_expert");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history.size() == 1; }));
  window_->actions().run("run.toggle");
  ASSERT_TRUE(wait_until([&] {
    return model().data().tokens() >= muted_from + 20 && model().state() == RunState::kFinished;
  })) << newest_message();
  const HistoryEntry entry = model().snapshot()->history[0];
  EXPECT_GE(entry.first_token, muted_from);
  for (uint64_t t = entry.first_token; t < model().data().tokens(); ++t) {
    EXPECT_FALSE(selected_in(*model().data().frames[t], row, expert)) << "token " << t;
    EXPECT_EQ(model().data().frames[t]->header().recipe_epoch, entry.epoch);
  }

  // The history shows it, with sentence and token.
  auto* history = window_->findChild<HistoryPanel*>();
  ASSERT_TRUE(wait_until([&] { return history->rows()->rowCount() == 2; }));
  EXPECT_EQ(history->rows()->index(1, HistoryModel::kSentence).data().toString().toStdString(), entry.sentence);
  EXPECT_EQ(history->rows()->index(1, HistoryModel::kToken).data().toString(),
            QString("token %1").arg(entry.first_token));

  // The saved script parses to the same edit at the same token.
  const TemporaryFolder folder;
  model().save_script(folder / "a.edits.json", Overwrite::kRefuse);
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder / "a.edits.json"); })) << newest_message();
  std::ifstream in(folder / "a.edits.json");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto parsed = parse_script(text, model().checkpoint()->plan);
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(*parsed, script_of(*model().snapshot()));
  ASSERT_EQ(parsed->size(), 1u);
  EXPECT_EQ((*parsed)[0].edit, entry.edits[0].edit);
  EXPECT_EQ((*parsed)[0].at_token, entry.first_token);

  // Undo by key: the next frames are native again.
  prompt->clearFocus();
  canvas("routing_heatmap")->setFocus();
  QTest::keyClick(QApplication::focusWidget(), Qt::Key_Z, Qt::ControlModifier);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 0; }));
  EXPECT_TRUE(history->rows()->index(1, HistoryModel::kSentence).data().toString().endsWith("(undone)"));
  const uint64_t undone_from = model().data().tokens();
  window_->actions().run("run.step");
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() > undone_from; }));
  EXPECT_EQ(model().data().frames[undone_from]->layer(row).changed, 0);

  // Double-clicking the row brings it back; loading the script adds its own entry.
  model().undo_to(1);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == 1; }));
  model().load_script(folder / "a.edits.json");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history.size() == 2; }));
}

TEST_F(Window, TokensAreSelectedEverywhereByOneClick) {
  run("def add(a, b):\n    return a + b\n", 24);
  TokenTextView* text = window_->generation().text();
  const QRect cell = text->token_rect(9);
  ASSERT_FALSE(cell.isEmpty());
  QTest::mouseClick(text->viewport(), Qt::LeftButton, Qt::NoModifier, cell.center());
  ASSERT_EQ(model().cursor(), 9u);
  EXPECT_TRUE(window_->status().text().contains("token 9 of")) << window_->status().text().toStdString();
  EXPECT_TRUE(wait_until([&] { return window_->live_dock("gate_inspector")->subtitle().contains("token 9"); }))
      << window_->live_dock("gate_inspector")->subtitle().toStdString();
  EXPECT_TRUE(text->accessibleDescription().startsWith("token 9 "));
  QTest::keyClick(text, Qt::Key_Right);
  EXPECT_EQ(model().cursor(), 10u);
  QTest::keyClick(window_.get(), Qt::Key_Comma);
  EXPECT_EQ(model().cursor(), 9u);
  QTest::keyClick(window_.get(), Qt::Key_End);
  EXPECT_EQ(model().cursor(), std::nullopt);
}

TEST_F(Window, PinnedPictureKeepsItsToken) {
  run("def add(a, b):\n", 16);
  LiveDock* inspector = window_->live_dock("gate_inspector");
  model().set_cursor(4);
  inspector->set_pinned(true);
  model().set_cursor(8);
  EXPECT_TRUE(inspector->subtitle().contains("token 4")) << inspector->subtitle().toStdString();
  inspector->set_pinned(false);
  EXPECT_TRUE(inspector->subtitle().contains("token 8"));
}

TEST_F(Window, RightClickOnACellOffersEditsAndHeatMapMutes) {
  run("2 + 3 = 5\n", 16);
  const int expert = model().data().shown({})->ids(2)[0];
  click_item("routing_heatmap", "layer 2/expert " + std::to_string(expert), Qt::RightButton);
  click_item("routing_heatmap", "menu/mute");
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history.size() == 1; }, 5000)) << newest_message();
  const HistoryEntry entry = model().snapshot()->history[0];
  EXPECT_EQ(entry.edits[0].edit, Edit(Mute{LayerSet{{2}}, {ExpertId(expert)}}));
}

// Keys come faster than pictures are painted: every press counts, and each builds on what the one before made.
TEST_F(Window, EveryPressOfAKeyIsAStep) {
  run("2 + 3 = 5\n", 40);
  model().select({3, 9, std::nullopt});
  const auto press = [](QWidget* widget, int key, int times, Qt::KeyboardModifiers modifiers = Qt::NoModifier) {
    widget->setFocus();
    for (int i = 0; i < times; ++i) QTest::keyClick(widget, Qt::Key(key), modifiers);
  };
  const auto bias = [&] {
    const Recipe* recipe = model().recipe_ahead();
    return bias_of(recipe ? recipe->layer(3) : nullptr, 9);
  };
  const auto settled = [&] { return wait_until([&] { return !model().data().recipe_ahead; }, 5000); };
  QWidget *heat_map = canvas("routing_heatmap"), *strip = canvas("token_strip");

  // The logit bias: in a picture, held down, and by the window's own shortcut.
  press(heat_map, Qt::Key_BracketRight, 12);
  ASSERT_TRUE(wait_until([&] { return std::abs(bias() - 1.2f) < 1e-3f; }, 5000)) << bias();
  for (int i = 0; i < 5; ++i) {
    QKeyEvent held(QEvent::KeyPress, Qt::Key_BracketRight, Qt::NoModifier, "]", true);
    QApplication::sendEvent(heat_map, &held);
  }
  ASSERT_TRUE(wait_until([&] { return std::abs(bias() - 1.7f) < 1e-3f; }, 5000)) << bias();
  press(window_->generation().text(), Qt::Key_BracketLeft, 7);
  EXPECT_NEAR(bias(), 1.0f, 1e-3f);
  ASSERT_TRUE(settled());
  EXPECT_NEAR(bias(), 1.0f, 1e-3f);  // the engine has them all
  EXPECT_NEAR(model().snapshot()->epochs.back().recipe->layer(3)->logit_bias[9], 1.0f, 1e-3f);

  // A switch pressed twice is where it was, and both presses can be undone.
  const size_t edits = model().snapshot()->history_cursor;
  press(heat_map, Qt::Key_M, 2);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == edits + 2; }, 5000)) << newest_message();
  EXPECT_FALSE(is_muted(model().recipe_ahead()->layer(3), 9));
  press(heat_map, Qt::Key_Z, 2, Qt::ControlModifier);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->history_cursor == edits; }, 5000));

  // Tokens, from every panel.
  for (QWidget* widget : {strip, heat_map, static_cast<QWidget*>(window_->generation().text())}) {
    model().set_cursor(30);
    press(widget, Qt::Key_Comma, 9);
    ASSERT_TRUE(wait_until([&] { return model().cursor() == 21u; }, 5000)) << model().cursor().value_or(999);
    press(widget, Qt::Key_Period, 4);
    ASSERT_TRUE(wait_until([&] { return model().cursor() == 25u; }, 5000)) << model().cursor().value_or(999);
  }

  // Layers: the arrows of a picture, and the window's keys.
  press(heat_map, Qt::Key_Down, 4);
  ASSERT_TRUE(wait_until([&] { return model().selection().moe_layer == 7; }, 5000)) << model().selection().moe_layer;
  press(heat_map, Qt::Key_Up, 5, Qt::AltModifier);
  EXPECT_EQ(model().selection().moe_layer, 2);
}

TEST_F(Window, ARefusedStartSaysWhyAndLeavesTheRun) {
  run("2 + 3 = 5\n", 16);
  const auto sequence = model().snapshot()->sequence;
  const auto tokens = model().data().token_ids;
  const auto refused = [&](const QString& prompt, const std::function<void()>& start, const QString& words) {
    const size_t told = window_->log().entries().size();
    window_->generation().set_prompt(prompt);
    start();
    ASSERT_TRUE(wait_until([&] { return window_->log().entries().size() > told; }, 20'000));
    EXPECT_FALSE(model().running());
    EXPECT_EQ(window_->log().entries().size(), told + 1);  // once
    EXPECT_EQ(window_->log().entries().back().level, LogEntry::kError);
    EXPECT_TRUE(window_->toasts().newest_text().contains(words)) << window_->toasts().newest_text().toStdString();
    const auto cards = window_->findChildren<QWidget*>("toast");
    EXPECT_TRUE(std::any_of(cards.begin(), cards.end(), [](QWidget* card) { return card->isVisible(); }));
    QTest::qWait(200);  // what would come later must not come either
    EXPECT_EQ(model().snapshot()->sequence, sequence);
    EXPECT_EQ(model().state(), RunState::kFinished);
    EXPECT_EQ(model().data().token_ids, tokens);
    EXPECT_TRUE(window_->generation().starts_anew());  // Run tries again, it does not prolong the old text
  };
  const QString too_long = QString("the people of the land ").repeated(2000);
  refused(
      too_long, [&] { window_->start_run(); }, "Shorten the prompt.");
  refused(
      too_long, [&] { window_->step_run(); }, "Shorten the prompt.");
  refused(
      "", [&] { window_->start_run(); }, "Type some text");
  refused(
      too_long, [&] { window_->toggle_run(); }, "the context holds");

  // While tokens are made, they go on.
  window_->generation().set_prompt("The king said");
  window_->generation().set_max_new_tokens(1500);
  window_->start_run();
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() > 30; }));
  const auto running = model().snapshot()->sequence;
  const size_t told = window_->log().entries().size();
  window_->generation().set_prompt(too_long);
  window_->start_run();
  ASSERT_TRUE(wait_until([&] { return window_->log().entries().size() > told; }, 20'000));
  const uint64_t had = model().data().tokens();
  ASSERT_TRUE(wait_until([&] { return model().data().tokens() > had + 20 || !model().running(); }));
  EXPECT_EQ(model().snapshot()->sequence, running);
  EXPECT_EQ(model().state(), RunState::kGenerating);
}

TEST_F(Window, SamplingDefaultsAreTheModels) {
  // assets/models/demo/generation_config.json: do_sample, temperature 0.8, top_p 0.95
  const Sampling sampling = window_->generation().sampling();
  EXPECT_FALSE(sampling.greedy);
  EXPECT_FLOAT_EQ(sampling.temperature, 0.8f);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.95f);
}

TEST_F(Window, SameSeedSameText) {
  run("Et le roi", 24);
  const QString first = window_->generation().text()->full_text();
  const uint32_t sequence = model().snapshot()->sequence;
  Sampling greedy;
  window_->generation().set_sampling(greedy);
  run("Et le roi", 24);
  const QString second = window_->generation().text()->full_text();
  run("Et le roi", 24);
  EXPECT_GT(model().snapshot()->sequence, sequence);
  EXPECT_EQ(window_->generation().text()->full_text(), second);
  EXPECT_FALSE(first.isEmpty());
}

TEST_F(Window, GoToFindsLayersExpertsAndTokens) {
  run("def add(a, b):\n", 8);
  const auto titles = [&](const QString& query) {
    QStringList out;
    for (const PaletteItem& item : go_to_items(model(), query, true)) out << item.title;
    return out;
  };
  EXPECT_TRUE(titles("layer").contains("layer 7"));
  EXPECT_TRUE(titles("expert 12").contains("expert 12"));
  EXPECT_FALSE(titles("expert 64").contains("expert 64"));  // the demo has 32
  for (const PaletteItem& item : go_to_items(model(), "token 3", true))
    if (item.title.startsWith("token 3 ")) item.take();
  EXPECT_EQ(model().cursor(), 3u);
}

TEST_F(Window, RecordingWritesATraceOfTheSameTokens) {
  const TemporaryFolder folder;
  model().record_to(folder / "run.moetrace.h5", false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("2 + 3 = 5\n", 12);
  const auto expected = model().data().token_ids;
  const uint64_t routed = model().data().tokens();
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder / "run.moetrace.h5"); })) << newest_message();

  // And the window shows the same run from the file.
  window_->open_path(QString::fromStdString((folder / "run.moetrace.h5").string()));
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();
  EXPECT_EQ(model().data().tokens(), routed);
  EXPECT_EQ(model().data().token_ids, std::vector<TokenId>(expected.begin(), expected.begin() + ptrdiff_t(routed)));
  EXPECT_EQ(model().data().snapshot->dropped_frames, 0u);
}

// Stopped before the header is hashed: no recording begins, and the next one can.
TEST_F(Window, ARecordingStopsWhileItIsPrepared) {
  const TemporaryFolder folder;
  model().record_to(folder / "first.moetrace.h5", false);
  EXPECT_TRUE(model().recording());
  model().stop_recording();
  EXPECT_FALSE(model().recording());
  model().record_to(folder / "second.moetrace.h5", false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  EXPECT_EQ(model().recording_path(), folder / "second.moetrace.h5");
  run("2 + 3 = 5\n", 4);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder / "second.moetrace.h5"); })) << newest_message();
}

TEST_F(Window, EverySequenceOfATraceCanBeShown) {
  const TemporaryFolder folder;
  model().record_to(folder / "two.moetrace.h5", false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("2 + 3 = 5\n", 12);
  const auto first = model().data().token_ids;
  run("The king said unto the people", 9);
  const auto second = model().data().token_ids;
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder / "two.moetrace.h5"); })) << newest_message();
  window_->open_path(QString::fromStdString((folder / "two.moetrace.h5").string()));
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();

  const auto shows = [&](const std::vector<TokenId>& ids, const QString& words) {  // the last id was never routed
    EXPECT_EQ(model().data().token_ids, std::vector<TokenId>(ids.begin(), ids.end() - 1));
    EXPECT_TRUE(window_->status().text().contains(words)) << window_->status().text().toStdString();
  };
  shows(first, "sequence 1 of 2");
  EXPECT_FALSE(window_->actions().action("trace.previous_sequence")->isEnabled());
  window_->actions().run("trace.next_sequence");
  ASSERT_TRUE(wait_until([&] { return model().trace()->sequence == 1; })) << newest_message();
  shows(second, "sequence 2 of 2");
  EXPECT_FALSE(window_->actions().action("trace.next_sequence")->isEnabled());
  window_->actions().run("trace.previous_sequence");
  ASSERT_TRUE(wait_until([&] { return model().trace()->sequence == 0; }));
  shows(first, "sequence 1 of 2");
}

// No trace records which choices an edit changed; the logits tell, with the model at hand.
TEST_F(Window, ATraceKnowsWhatEditsChanged) {
  run("The king said unto the people", 8);
  const int row = 5, expert = model().data().shown({})->ids(row)[0];
  model().edit({Mute{LayerSet{{model().data().plan->moe_layers[row]}}, {ExpertId(expert)}}, std::nullopt});
  const TemporaryFolder folder;
  model().record_to(folder / "run.moetrace.h5", false);
  ASSERT_TRUE(wait_until([&] { return model().snapshot()->recording; })) << newest_message();
  run("The king said unto the people", 40);
  std::vector<int> live;
  for (const auto& frame : model().data().frames)
    for (int r = 0; r < frame->header().moe_layers; ++r) live.push_back(frame->layer(r).changed);
  EXPECT_GT(std::count(live.begin(), live.end(), 1), 3);
  model().stop_recording();
  ASSERT_TRUE(wait_until([&] { return std::filesystem::exists(folder / "run.moetrace.h5"); })) << newest_message();
  window_->open_path(QString::fromStdString((folder / "run.moetrace.h5").string()));
  ASSERT_TRUE(wait_until([&] { return model().has_trace(); })) << newest_message();
  std::vector<int> reopened;
  for (const auto& frame : model().data().frames)
    for (int r = 0; r < frame->header().moe_layers; ++r) reopened.push_back(frame->layer(r).changed);
  EXPECT_EQ(reopened, live);
  ASSERT_FALSE(model().snapshot()->epochs.empty());
  EXPECT_TRUE(is_muted(model().snapshot()->recipe_at(3)->layer(row), expert));
}

// The GUI thread must answer while the engine works, with either number of threads. The bound is loose because
// the machine is shared; the numbers are printed.
TEST_F(Window, NeverStallsWhileGenerating) {
  run("2 + 3 = 5\n", 16);  // software GL compiles its shaders at the first picture: once, 70-120 ms
  QTest::qWait(300);
  const auto cpu_ms = [] {  // of this thread: free of what else the machine does
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return double(now.tv_sec) * 1e3 + double(now.tv_nsec) / 1e6;
  };
  const int cores = int(std::thread::hardware_concurrency());
  for (const int threads : {std::max(1, cores - 1), cores}) {
    model().set_threads(threads);
    for (LiveDock* dock : window_->live_docks()) dock->live()->reset_stats();
    window_->frame_times().clear();
    QElapsedTimer clock;
    std::vector<qint64> gaps;
    double busiest_ms = 0, cpu_before = cpu_ms();
    QTimer beat;
    beat.setTimerType(Qt::PreciseTimer);
    QObject::connect(&beat, &QTimer::timeout, [&] {
      gaps.push_back(clock.restart());
      const double cpu = cpu_ms();
      busiest_ms = std::max(busiest_ms, cpu - cpu_before);
      cpu_before = cpu;
    });
    clock.start();
    beat.start(5);
    run("The function below adds two numbers.\n", 1200);
    beat.stop();
    ASSERT_FALSE(gaps.empty());
    std::sort(gaps.begin(), gaps.end());
    std::printf(
        "%d threads: 1200 tokens, %.0f tokens/s; gaps of the GUI thread: median %lld ms, p99 %lld ms, longest %lld ms, "
        "over "
        "100 ms: %td of %zu; most processor time of one turn %.1f ms\n",
        threads, model().snapshot()->mean_decode_tokens_per_s, static_cast<long long>(gaps[gaps.size() / 2]),
        static_cast<long long>(gaps[gaps.size() * 99 / 100]), static_cast<long long>(gaps.back()),
        gaps.end() - std::upper_bound(gaps.begin(), gaps.end(), 100), gaps.size(), busiest_ms);
    for (LiveDock* dock : window_->live_docks()) {
      const FrameStats stats = dock->live()->stats();
      std::printf("  %-16s %4llu frames, build p99 %.2f ms, paint p99 %.2f ms\n",
                  dock->objectName().toStdString().c_str(), static_cast<unsigned long long>(stats.frames),
                  stats.build_p99, stats.paint_p99);
    }
    std::printf("  composed window  %4zu frames, p50 %.2f ms, p99 %.2f ms\n", window_->frame_times().count(),
                window_->frame_times().percentile(0.5), window_->frame_times().percentile(0.99));
    EXPECT_GT(window_->frame_times().count(), 0u);
    EXPECT_LT(gaps.back(), 2000);
  }
}

// The demo has no template; with one beside it the prompt is wrapped as `run --chat` does.
TEST_F(Window, AChatTemplateWrapsThePrompt) {
  auto* chat = window_->findChild<QCheckBox*>("chatTemplate");
  ASSERT_TRUE(chat);
  ASSERT_TRUE(wait_until([&] { return chat->toolTip().contains("no chat template"); }))
      << chat->toolTip().toStdString();
  EXPECT_FALSE(chat->isEnabled());

  const TemporaryFolder folder;
  const auto model_folder = folder / "with template";
  std::filesystem::copy(model().checkpoint()->folder, model_folder, std::filesystem::copy_options::recursive);
  std::ofstream(model_folder / "chat_template.jinja")
      << "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt "
         "%}<assistant>{% endif %}";
  window_->open_path(QString::fromStdString(model_folder.string()));
  ASSERT_TRUE(wait_until([&] { return chat->isEnabled(); })) << newest_message();
  EXPECT_TRUE(chat->toolTip().contains("chat_template.jinja")) << chat->toolTip().toStdString();

  const auto tokenizer = Tokenizer::load(*model().checkpoint());
  ASSERT_TRUE(tokenizer);
  run("In the beginning", 4);
  EXPECT_EQ(model().snapshot()->prompt_ids, *(*tokenizer)->encode("In the beginning"));
  EXPECT_FALSE(window_->generation().starts_anew());
  QTest::mouseClick(chat, Qt::LeftButton, Qt::NoModifier, QPoint(8, chat->height() / 2));
  ASSERT_TRUE(window_->generation().chat());
  EXPECT_TRUE(window_->generation().starts_anew());
  run("In the beginning", 4);
  EXPECT_EQ(model().snapshot()->prompt_ids, *(*tokenizer)->encode("<user>In the beginning</user><assistant>", false));

  window_->open_path("demo");
  ASSERT_TRUE(wait_until([&] { return !chat->isEnabled(); })) << newest_message();
  EXPECT_FALSE(window_->generation().chat());
}

}  // namespace
}  // namespace switchyard
