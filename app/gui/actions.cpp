// Every action of the window, in menu order. Adding one is adding a row: menus, palette, shortcut page and
// help follow. GUI thread.
#include "app/gui/actions.h"

#include <algorithm>

#include <QApplication>
#include <QClipboard>

#include "app/gui/behaviors/report_building.h"
#include "app/gui/docks/adaptation_panel.h"
#include "app/gui/docks/effect_panel.h"
#include "app/gui/docks/gradient_panel.h"
#include "app/gui/docks/lens_panel.h"
#include "app/gui/docks/live_dock.h"
#include "app/gui/docks/scheme_panel.h"
#include "app/gui/help_dialog.h"
#include "app/gui/main_window.h"
#include "app/gui/plugin_actions.h"
#include "app/gui/style.h"
#include "app/gui/table_panel.h"
#include "app/gui/workbench.h"
#include "app/session/edits_in_force.h"

namespace switchyard {
namespace {

using Why = std::function<QString()>;

// --- why something cannot run now ---

QString tr(const char* text) {
  return QCoreApplication::translate("actions", text);
}

Why needs_model(MainWindow& w) {
  return [&w] { return w.model().has_session() ? QString() : tr("open a model first"); };
}

Why needs_any(MainWindow& w) {
  return [&w] { return w.model().is_empty() ? tr("open a model or a trace first") : QString(); };
}

Why needs_tokens(MainWindow& w) {
  return [&w] { return w.model().data().tokens() > 0 ? QString() : tr("there are no tokens yet"); };
}

Why needs_expert(MainWindow& w) {
  return [&w] {
    if (!w.model().has_session()) return tr("open a model first");
    return w.model().selection().expert ? QString() : tr("select an expert first: click a cell of the heat map");
  };
}

Why needs_edits(MainWindow& w) {
  return [&w] {
    const SessionSnapshot* s = w.model().snapshot();
    return s && s->history_cursor > 0 ? QString() : tr("there are no edits in force");
  };
}

// --- edits of the selected expert ---

template <class Make>
std::function<void()> edit_selected(MainWindow& w, Make make) {
  return [&w, make] {
    const Selection& at = w.model().selection();
    if (!at.expert || !w.model().snapshot()) return;
    const Recipe* recipe = w.model().recipe_ahead();
    w.model().edit(make(recipe ? recipe->layer(at.moe_layer) : nullptr, layer_of_row(*w.model().data().plan, at.moe_layer), *at.expert));
  };
}

void solo(MainWindow& w) {
  const Selection& at = w.model().selection();
  if (!at.expert) return;
  std::vector<ExpertId> others;
  for (int e = 0; e < w.model().data().plan->routed(at.moe_layer).router.experts; ++e)
    if (e != *at.expert) others.push_back(ExpertId(e));
  const LayerSet layer = layer_of_row(*w.model().data().plan, at.moe_layer);
  w.model().edit({{Unmute{layer, {ExpertId(*at.expert)}}, std::nullopt}, {Mute{layer, others}, std::nullopt}},
                 "user");
}

void reset_layers(MainWindow& w, bool all) {
  const Recipe* recipe = w.model().recipe_ahead();
  if (!recipe) return;
  std::vector<EditCommand> edits;
  const ModelPlan& plan = *w.model().data().plan;
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    if (!all && row != w.model().selection().moe_layer) continue;
    const auto more = reset_layer(recipe->layer(row), layer_of_row(plan, row));
    edits.insert(edits.end(), more.begin(), more.end());
  }
  if (all && !recipe->adapters.empty()) edits.push_back({SetAdapters{}, std::nullopt});
  if (all && !w.model().path_ahead().native()) edits.push_back({LayerPath{}, std::nullopt});
  w.model().edit(std::move(edits), "user");
}

Why needs_edited_layer(MainWindow& w, bool all) {
  return [&w, all]() -> QString {
    const Recipe* recipe = w.model().has_session() ? w.model().recipe_ahead() : nullptr;
    const auto edited = [&](const LayerRecipe& layer) { return !layer.is_identity(); };
    const bool native = !recipe || (all ? std::none_of(recipe->layers.begin(), recipe->layers.end(), edited) && w.model().path_ahead().native()
                                        : !recipe->layer(w.model().selection().moe_layer));
    return native ? (all ? tr("the router is native") : tr("this layer is native")) : QString();
  };
}

void copy_script(MainWindow& w, bool as_command_line) {
  const SessionSnapshot* s = w.model().snapshot();
  if (!s) return;
  QString text = QString::fromStdString(to_json_script(script_of(*s)));
  if (as_command_line) {
    text = QString("switchyard run %1 --edits /dev/stdin --prompt-file PROMPT.txt <<'EDITS'\n%2\nEDITS\n")
               .arg(w.model().opened().model, text.trimmed());
  }
  QGuiApplication::clipboard()->setText(text);
}

// --- selection and time ---

void move_layer(MainWindow& w, int by) {
  Selection next = w.model().selection();
  next.moe_layer += by;
  next.expert_to.reset();
  w.model().select(next);
}

void go_to_edit(MainWindow& w, int direction) {
  const SessionSnapshot* s = w.model().snapshot();
  if (!s) return;
  const auto here = int64_t(w.model().data().shown_index(w.model().cursor()));
  std::optional<int64_t> best;
  for (const Epoch& epoch : s->epochs) {
    const auto at = int64_t(epoch.first_token);
    if ((at - here) * direction <= 0 || at >= int64_t(w.model().data().tokens())) continue;
    if (!best || (at - *best) * direction < 0) best = at;
  }
  if (best) w.model().set_cursor(uint64_t(*best));
}

void step_sequence(MainWindow& w, int by) {
  w.model().open_trace(w.model().opened().model.toStdString(), w.model().trace()->sequence + uint64_t(int64_t(by)));
}

Why needs_sequence(MainWindow& w, int by) {
  return [&w, by]() -> QString {
    const TraceRun* trace = w.model().trace();
    if (!trace) return tr("open a trace first");
    const int64_t wanted = int64_t(trace->sequence) + by;
    return wanted >= 0 && wanted < int64_t(trace->sequences) ? QString() : tr("the trace has no more sequences there");
  };
}

void clear_selection(MainWindow& w) {
  w.model().select(Selection{w.model().selection().moe_layer, std::nullopt, std::nullopt});
  w.model().set_cursor(std::nullopt);
}

LiveDock* focused_live(MainWindow& w) {
  return qobject_cast<LiveDock*>(w.workbench().focused());
}

ActionRow capture_row(MainWindow& w, const char* id, const char* title, CaptureLevel level, const char* help,
                      const char* menu = "Run") {
  return {id,
          tr(title),
          menu,
          "",
          tr(help),
          [&w, level] { w.model().set_capture(level); },
          needs_model(w),
          [&w, level] { return w.model().snapshot() && w.model().snapshot()->capture == level; }};
}

// Switches measurements on and off together.
ActionRow taps_row(MainWindow& w, const char* id, const char* title, uint8_t taps, const char* help) {
  RunModel& m = w.model();
  const auto now = [&m] { return m.snapshot() ? m.snapshot()->taps : uint8_t(0); };
  return {id, tr(title), "Run", "", tr(help), [&m, now, taps] { m.set_taps(now() ^ taps); },
          [&w, &m] {
            const QString no_model = needs_model(w)();
            return no_model.isEmpty() && m.recording() ? tr("a recording is going on; it cannot change what it holds") : no_model;
          },
          [now, taps] { return (now() & taps) != 0; }};
}

ActionRow backend_row(MainWindow& w, const char* id, const char* title, const char* name, const char* help,
                      const char* menu) {
  return {id,
          tr(title),
          menu,
          "",
          tr(help),
          [&w, name] {
            OpenRequest request = w.model().opened();
            request.backend = name;
            w.model().open_model(request);
          },
          needs_model(w),
          [&w, name] { return w.model().has_session() && w.model().opened().backend == name; }};
}

// One row for each gating scheme: what the Scheme panel would do, in the layers it is set to.
void add_scheme_rows(MainWindow& w, std::vector<ActionRow>& rows) {
  rows.push_back({"scheme.panel", tr("Choose a gating scheme…"), "Scheme", "Ctrl+G",
                  tr("Opens the panel of schemes, their numbers and the histogram of active experts."),
                  [&w] { w.show_dock("scheme"); }, needs_any(w)});
  rows.push_back({"scheme.all_layers", tr("Schemes apply to all layers"), "Scheme", "",
                  tr("Whether a choice is made for the selected layer or for all of them."),
                  [&w] { w.scheme().set_all_layers(!w.scheme().all_layers()); }, needs_model(w),
                  [&w] { return w.scheme().all_layers(); }});
  bool line = true;
  for (const SchemeInfo& info : schemes()) {
    const QString name = QString::fromUtf8(info.name), title = QString::fromUtf8(info.title);
    rows.push_back({"scheme." + name, tr("Scheme: %1").arg(title), line ? "-Scheme" : "Scheme", "",
                    tr("Routes by this scheme with its standard parameters."),
                    [&w, name] {
                      w.show_dock("scheme");
                      w.scheme().choose(name);
                    },
                    [&w, name] { return w.scheme().why_not(name); },
                    [&w, name] { return w.scheme().shown().name == name.toStdString(); }});
    line = false;
  }
}

std::optional<AdaptationState::Phase> phase_of(const RunModel& model) {
  const SessionSnapshot* s = model.has_session() ? model.snapshot() : nullptr;
  return s && s->adaptation ? std::optional(s->adaptation->phase) : std::nullopt;
}

ActionRow dock_row(MainWindow& w, const char* id, const char* title, bool line = false) {
  return {QString("view.dock.") + id,
          tr(title),
          line ? "-View" : "View",
          "",
          tr("Shows or hides this panel."),
          [&w, id] { w.toggle_dock(id); },
          needs_any(w),
          [&w, id] { return w.workbench().dock(id) && !w.workbench().dock(id)->isHidden(); }};
}

}  // namespace

std::vector<ActionRow> action_rows(MainWindow& w) {
  RunModel& m = w.model();
  const Why model = needs_model(w), any = needs_any(w), tokens = needs_tokens(w), expert = needs_expert(w),
            edits = needs_edits(w);
  const Why can_undo = [&m] { return m.can_undo() ? QString() : tr("there is nothing to undo"); };
  const Why can_redo = [&m] { return m.can_redo() ? QString() : tr("there is nothing to redo"); };
  const Why has_text = [&m] { return m.has_session() && m.has_sequence() ? QString() : tr("nothing is running"); };
  const Why live_tokens = [&m] {
    if (!m.has_session()) return tr("open a model first");
    return m.data().tokens() > 0 ? QString() : tr("there are no tokens yet");
  };
  const auto live = [&w](auto what) {
    return [&w, what] {
      if (LiveDock* dock = focused_live(w)) what(*dock);
    };
  };
  const Why needs_view = [&w] { return focused_live(w) ? QString() : tr("click into a picture first"); };
  const Why needs_table = [&w] {
    const Dock* dock = w.workbench().focused();
    return dock && dock->has_table() ? QString() : tr("click into a picture first");
  };

  std::vector<ActionRow> rows = {
      // File
      {"file.open_model", tr("Open model…"), "File", "Ctrl+O", tr("Opens a checkpoint folder."),
       [&w] { w.ask_for_model(); }},
      {"file.open_trace", tr("Open trace…"), "File", "Ctrl+Shift+O", tr("Opens a recorded run."),
       [&w] { w.ask_for_trace(); }},
      {"file.open_demo", tr("Try the demo"), "File", "",
       tr("Opens the small trained model that ships with the program."), [&w] { w.open_path("demo"); }},
      {"file.open_workspace", tr("Open workspace…"), "File", "",
       tr("Opens model, prompt, edits, settings and layout as they were saved."), [&w] { w.ask_to_open_workspace(); }},
      {"file.cancel_opening", tr("Cancel opening"), "File", "", tr("Gives up opening; what was open stays."),
       [&m] { m.cancel_opening(); }, [&m] { return m.opening() ? QString() : tr("nothing is being opened"); }},
      {"file.close", tr("Close"), "File", "Ctrl+W", tr("Closes the model or trace."), [&m] { m.close(); }, any},
      {"edit.save_script", tr("Save edits as script…"), "-File", "Ctrl+S",
       tr("Writes the edits in force, each with the token it began at."), [&w] { w.ask_to_save_script(); }, edits},
      {"file.save_workspace", tr("Save workspace…"), "File", "Ctrl+Shift+S",
       tr("Writes model, prompt, edits, settings and layout to a file."), [&w] { w.ask_to_save_workspace(); }, any},
      {"edit.load_script", tr("Load edit script…"), "File", "Ctrl+L", tr("Sends every edit of a script, all or none."),
       [&w] { w.ask_to_load_script(); }, model},
      {"file.replay", tr("Replay a trace…"), "File", "",
       tr("Runs the prompt of a recorded trace with its routing: the same experts with the same weights, token by token."),
       [&w] { w.ask_for_replay(); }, model},
      {"file.export", tr("Export edited model…"), "File", "",
       tr("Writes the model under the edits in force as a checkpoint folder."), [&w] { w.ask_to_export(); }, edits},
      {"file.quit", tr("Quit"), "-File", "Ctrl+Q", tr("Closes the window; a trace being recorded is closed cleanly."),
       [&w] { w.close(); }},
      // Edit
      {"edit.undo", tr("Undo"), "Edit", "Ctrl+Z", tr("Takes the last edit back, from the next token on."),
       [&m] { m.undo(); }, can_undo},
      {"edit.redo", tr("Redo"), "Edit", "Ctrl+Shift+Z | Ctrl+Y",
       tr("Applies the undone edit again, from the next token on."), [&m] { m.redo(); }, can_redo},
      {"edit.mute_expert", tr("Mute or unmute expert"), "-Edit", "M",
       tr("The selected expert is never chosen in its layer; again: as before."), edit_selected(w, toggle_mute),
       expert},
      {"edit.solo_expert", tr("Solo expert"), "Edit", "Shift+M", tr("Mutes every other expert of the layer."),
       [&w] { solo(w); }, expert},
      {"edit.force_expert", tr("Force or release expert"), "Edit", "G",
       tr("The selected expert is always chosen in its layer; again: as before."), edit_selected(w, toggle_force),
       expert},
      {"edit.bias_up", tr("Raise logit bias by 0.1"), "Edit", "]",
       tr("Adds 0.1 to the selected expert's router logit."),
       edit_selected(w, [](const LayerRecipe* r, const LayerSet& layer, int e) { return nudge_bias(r, layer, e, 0.1f); }), expert},
      {"edit.bias_down", tr("Lower logit bias by 0.1"), "Edit", "[",
       tr("Takes 0.1 off the selected expert's router logit."),
       edit_selected(w, [](const LayerRecipe* r, const LayerSet& layer, int e) { return nudge_bias(r, layer, e, -0.1f); }), expert},
      {"edit.reset_layer", tr("Reset this layer"), "-Edit", "",
       tr("Makes the selected layer native again, as one step."), [&w] { reset_layers(w, false); },
       needs_edited_layer(w, false)},
      {"edit.reset_all", tr("Reset all layers"), "Edit", "", tr("Makes the whole router native again, as one step."),
       [&w] { reset_layers(w, true); }, needs_edited_layer(w, true)},
      {"edit.copy_script_json", tr("Copy edits as script"), "-Edit", "",
       tr("Puts the edits in force on the clipboard as JSON."), [&w] { copy_script(w, false); }, edits},
      {"edit.copy_script_cli", tr("Copy edits as command line"), "Edit", "",
       tr("Puts a `switchyard run` line with the edits in force on the clipboard."), [&w] { copy_script(w, true); },
       edits},
  };
  add_scheme_rows(w, rows);
  const std::vector<ActionRow> more = {
      // Run
      {"run.toggle", tr("Run or pause"), "Run", "Space", tr("Runs the prompt, pauses, or goes on."),
       [&w] { w.toggle_run(); }, model},
      {"run.start", tr("Run from the start"), "Run", "Ctrl+Return | Ctrl+Enter",
       tr("Begins a new sequence with the prompt as it stands."), [&w] { w.start_run(); }, model},
      {"run.step", tr("Step one token"), "Run", "F10", tr("Generates exactly one token, then waits."),
       [&w] { w.step_run(); }, model},
      {"run.stop", tr("Stop"), "Run", "Shift+F5", tr("Ends the sequence; its text and frames stay."),
       [&m] { m.stop(); }, has_text},
      {"run.reset", tr("Forget the sequence"), "Run", "", tr("Clears text and frames; edits stay in force."),
       [&m] { m.reset(); }, has_text},
      {"run.rewind", tr("Rewind to the shown token"), "Run", "Ctrl+R",
       tr("Goes back on a new branch: the shown token is the next to be routed, under the edits that were in force for "
          "it. The branch that is left is kept."),
       [&w] { w.rewind_to_shown(); }, live_tokens},
      {"adapt.panel", tr("Adapt the routers…"), "-Run", "Ctrl+Shift+A",
       tr("Opens the panel of adaptation: routers that learn biases or move centres while the model runs."),
       [&w] { w.show_dock("adaptation"); }, any},
      {"adapt.start", tr("Start the adaptation"), "Run", "",
       tr("Adapts the routers from the next token on, with the numbers of the Adaptation panel."),
       [&w] {
         w.show_dock("adaptation");
         w.model().adapt(w.adaptation().plan());
       },
       [&w] { return w.adaptation().why_not(); }},
      {"adapt.freeze", tr("Freeze the adaptation, or go on"), "Run", "",
       tr("Takes no more steps; what was found stays in force. Again: goes on."),
       [&m] { m.freeze_adaptation(phase_of(m) != AdaptationState::Phase::kFrozen); },
       [&m] {
         const auto phase = phase_of(m);
         return phase == AdaptationState::Phase::kActive || phase == AdaptationState::Phase::kFrozen ? QString() : tr("nothing is being adapted");
       },
       [&m] { return phase_of(m) == AdaptationState::Phase::kFrozen; }},
      {"adapt.revert", tr("Revert the adaptation"), "Run", "",
       tr("Ends it and puts back all that its steps changed, as one step of the history."), [&m] { m.revert_adaptation(); },
       [&m] {
         const auto phase = phase_of(m);
         return phase && *phase != AdaptationState::Phase::kReverted ? QString() : tr("nothing was adapted");
       }},
      {"gradient.compute", tr("Take the gradient of this text"), "Run", "",
       tr("Shows which experts that did not run the loss would like, layer by layer."),
       [&w] {
         w.show_dock("router_gradients");
         w.gradients().compute();
       },
       [&w] { return w.gradients().why_not(); }},
      {"lens.compute", tr("Read the layers of this text"), "Run", "",
       tr("Logit lens: what every layer would predict if nothing came after it."),
       [&w] {
         w.show_dock("logit_lens");
         w.lens().compute();
       },
       [&w] { return w.lens().why_not(); }},
      {"effects.compute", tr("Measure the edits on this text"), "Run", "",
       tr("What the edits in force do to the loss of the text: perplexity before and after, KL token by token."),
       [&w] {
         w.show_dock("edit_effects");
         w.effects().compute();
       },
       [&w] { return w.effects().why_not(); }},
      {"compare.add_edits", tr("Compare with the present edits"), "-Run", "",
       tr("Adds the edits in force now to the recipes that Compare looks at; without any, the native router."),
       [&w] {
         w.model().add_shadow_of_edits();
         w.show_dock("compare");
       },
       model},
      {"compare.add_native", tr("Compare with the native router"), "Run", "",
       tr("Adds the unedited router to the recipes that Compare looks at."),
       [&w] {
         w.model().add_shadow(tr("native router"), {});
         w.show_dock("compare");
       },
       model},
      {"compare.add_file", tr("Compare with a script…"), "Run", "",
       tr("Adds an edit script to the recipes that Compare looks at."), [&w] { w.ask_for_shadow(); }, model},
      {"compare.add_scheme", tr("Compare with a scheme…"), "Run", "",
       tr("Adds a gating scheme, in all layers, to the recipes that Compare looks at."),
       [&w] { w.ask_for_shadow_scheme(); }, model},
      {"compare.clear", tr("End the comparison"), "Run", "", tr("Removes every recipe from Compare."),
       [&m] { m.clear_shadows(); },
       [&m] { return m.shadows().empty() ? tr("nothing is compared") : QString(); }},
      backend_row(w, "run.backend_auto", "Backend: automatic", "auto",
                  "Reopens the model on the fastest backend that runs it.", "-Run"),
      backend_row(w, "run.backend_cpu", "Backend: cpu", "cpu", "Reopens the model on the project's own kernels.",
                  "Run"),
      backend_row(w, "run.backend_reference", "Backend: reference", "reference",
                  "Reopens the model on LibTorch in fp32, the judge.", "Run"),
      capture_row(w, "run.capture_off", "Capture: off", CaptureLevel::kOff,
                  "Nothing is copied out of the router; pictures stand still.", "-Run"),
      capture_row(w, "run.capture_ids", "Capture: ids", CaptureLevel::kIds, "Chosen experts only."),
      capture_row(w, "run.capture_weights", "Capture: weights", CaptureLevel::kWeights,
                  "Chosen experts and their weights."),
      capture_row(w, "run.capture_logits", "Capture: logits", CaptureLevel::kLogits,
                  "Everything: the gate inspector needs it."),
      taps_row(w, "run.taps", "Measure what experts give", Taps::kOutNorm | Taps::kBlockCos,
               "Norms of expert outputs and turns of the residual stream go into traces, for pruning criteria (analysis saliency)."),
      taps_row(w, "run.taps_ahead", "Guess the next layer's experts", Taps::kPredGate,
               "What the next router would choose for this one's input goes into traces (analysis next-layer-prediction)."),
      {"run.record_routers", tr("Put the routers' weights into traces"), "Run", "",
       tr("For the cosines of the routers' rows without the checkpoint (analysis router-similarity)."),
       [&m] { m.set_record_routers(!m.records_routers()); }, model, [&m] { return m.records_routers(); }},
      // View
      {"view.previous_token", tr("Previous token"), "View", ",", tr("Moves the time cursor one token back."),
       [&m] { m.step_cursor(-1); }, tokens},
      {"view.next_token", tr("Next token"), "View", ".", tr("Moves the time cursor one token on."),
       [&m] { m.step_cursor(1); }, tokens},
      {"view.first_token", tr("First token"), "View", "Home", tr("Goes to the start of the prompt."),
       [&m] { m.set_cursor(0); }, tokens},
      {"view.go_live", tr("Go live"), "View", "End", tr("Follows the newest token again."),
       [&m] { m.set_cursor(std::nullopt); }, any, [&m] { return !m.cursor(); }},
      {"view.previous_edit", tr("Previous edit"), "View", "Ctrl+,",
       tr("Goes to the token where the edit before took effect."), [&w] { go_to_edit(w, -1); }, tokens},
      {"view.next_edit", tr("Next edit"), "View", "Ctrl+.", tr("Goes to the token where the next edit took effect."),
       [&w] { go_to_edit(w, 1); }, tokens},
      {"view.layer_up", tr("Layer above"), "View", "Alt+Up", tr("Selects the previous layer with a router."),
       [&w] { move_layer(w, -1); }, any},
      {"view.layer_down", tr("Layer below"), "View", "Alt+Down", tr("Selects the next layer with a router."),
       [&w] { move_layer(w, 1); }, any},
      {"view.clear", tr("Clear selection"), "View", "Esc", tr("No expert selected, live again."),
       [&w] { clear_selection(w); }, any},
      {"view.pin", tr("Pin this picture"), "-View", "P",
       tr("The picture keeps its token and layer while the rest moves on."),
       live([](LiveDock& d) { d.set_pinned(!d.pinned()); }), needs_view},
      {"view.table", tr("Table of this picture"), "View", "Ctrl+T",
       tr("Swaps the picture for the table with the same numbers, and back."),
       [&w] {
         if (Dock* dock = w.workbench().focused()) dock->show_table(!dock->shows_table());
       },
       needs_table},
      {"view.filter", tr("Filter the table"), "View", "Ctrl+F",
       tr("Shows the table of this picture and goes to its filter."), live([](LiveDock& d) {
         d.show_table(true);
         d.table_panel()->focus_filter();
       }),
       needs_view},
      {"view.export", tr("Export this picture…"), "View", "Ctrl+E",
       tr("Writes the picture as SVG, PDF or PNG, or its numbers as CSV or JSON."), [&w] { report_of(w).ask_to_export_focused(); }, needs_table},
      {"report.add_view", tr("Add this picture to the report"), "View", "Ctrl+Shift+E",
       tr("The picture with its present settings becomes a section of the report."), [&w] { report_of(w).add_focused(); }, any},
      {"view.next_dock", tr("Next panel"), "View", "F6", tr("Moves the keyboard to the next panel."),
       [&w] { w.workbench().focus_next(1); }, any},
      {"view.previous_dock", tr("Previous panel"), "View", "Shift+F6", tr("Moves the keyboard to the previous panel."),
       [&w] { w.workbench().focus_next(-1); }, any},
      dock_row(w, "generation", "Generation", true),
      dock_row(w, "routing_heatmap", "Routing"),
      dock_row(w, "gate_inspector", "Gate inspector"),
      dock_row(w, "scheme", "Scheme"),
      dock_row(w, "adaptation", "Adaptation"),
      dock_row(w, "router_gradients", "Router gradients"),
      dock_row(w, "logit_lens", "Logit lens"),
      dock_row(w, "edit_effects", "Edit effects"),
      dock_row(w, "expert_load", "Expert load"),
      dock_row(w, "affinity", "Affinity"),
      dock_row(w, "token_strip", "Tokens"),
      dock_row(w, "compare", "Compare"),
      dock_row(w, "analysis", "Analysis"),
      dock_row(w, "report", "Report"),
      dock_row(w, "edit_history", "Edit history"),
      dock_row(w, "branches", "Branches"),
      dock_row(w, "token_table", "Token table"),
      dock_row(w, "load_table", "Load table"),
      dock_row(w, "plugins", "Plugins"),
      dock_row(w, "log", "Log"),
      {"view.default_layout", tr("Restore default layout"), "-View", "", tr("Puts every panel where it was at first."),
       [&w] { w.workbench().arrange_default(); }, any},
      {"view.dark",
       tr("Dark theme"),
       "View",
       "",
       tr("Light on dark."),
       [&w] { w.set_theme("dark"); },
       {},
       [] { return current_theme().dark; }},
      {"view.light",
       tr("Light theme"),
       "View",
       "",
       tr("Dark on light."),
       [&w] { w.set_theme("light"); },
       {},
       [] { return !current_theme().dark; }},
      {"view.larger", tr("Larger"), "View", "Ctrl++ | Ctrl+=",
       tr("Letters and pictures one tenth larger, up to twice."), [&w] { w.set_scale(ui_scale() + 0.1); },
       [] { return ui_scale() < 1.95 ? QString() : tr("this is the largest"); }},
      {"view.smaller", tr("Smaller"), "View", "Ctrl+-", tr("Letters and pictures one tenth smaller, down to 80 %."),
       [&w] { w.set_scale(ui_scale() - 0.1); },
       [] { return ui_scale() > 0.85 ? QString() : tr("this is the smallest"); }},
      // Trace
      {"trace.record", tr("Record to a trace…"), "Trace", "Ctrl+Shift+R",
       tr("Writes every routing decision to a *.moetrace.h5 file; again: closes it."), [&w] { w.toggle_recording(); },
       model, [&m] { return m.recording(); }},
      {"trace.previous_sequence", tr("Previous sequence"), "Trace", "Ctrl+PgUp",
       tr("Shows the sequence before in the open trace."), [&w] { step_sequence(w, -1); }, needs_sequence(w, -1)},
      {"trace.next_sequence", tr("Next sequence"), "Trace", "Ctrl+PgDown",
       tr("Shows the next sequence of the open trace."), [&w] { step_sequence(w, 1); }, needs_sequence(w, 1)},
      // Help
      {"help.palette", tr("Command palette"), "Help", "Ctrl+Shift+P", tr("Finds any action by a few letters."),
       [&w] { w.show_palette(); }},
      {"help.go_to", tr("Go to layer, expert or token"), "Help", "Ctrl+P", tr("Jumps to a place of the run."),
       [&w] { w.show_go_to(); }, any},
      {"help.page", tr("Help for this panel"), "-Help", "F1",
       tr("Opens the help page of the panel that has the keyboard."), [&w] { w.show_help_of_focus(); }},
      {"help.keys", tr("Keys"), "Help", "?", tr("Lists every action with its key."),
       [&w] { w.help().show_page("keys"); }},
      {"help.bug_report", tr("Copy for bug report"), "Help", "",
       tr("Copies versions and the last messages; file paths are left out."),
       [&w] { QGuiApplication::clipboard()->setText(w.log().bug_report()); }},
  };
  rows.insert(rows.end(), more.begin(), more.end());
  // Before Help, so that its menu stays the last.
  const auto help = std::find_if(rows.begin(), rows.end(), [](const ActionRow& row) { return row.menu == "Help"; });
  const std::vector<ActionRow> plugins = plugin_action_rows(w);
  rows.insert(help, plugins.begin(), plugins.end());
  return rows;
}

}  // namespace switchyard
