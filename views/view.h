// What a live view is: it draws one immutable picture of the run and sends commands; it computes nothing
// that a job or app/session can prepare, and changes nothing by itself. GUI thread only.
// Built-in views and plugin views use this interface. Docks, headers and table docks are the app's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/analysis/affinity.h"
#include "engine/analysis/load.h"
#include "engine/model/plan.h"
#include "engine/model/router_tensors.h"
#include "engine/routing/edit.h"
#include "engine/routing/frame.h"
#include "engine/runtime/session.h"
#include "views/host/item_map.h"

class QAbstractTableModel;
class QObject;

namespace switchyard {

// One selection, shared by all views. moe_layer is the routing row, pass one of its decisions for a token, from 0.
struct Selection {
  int moe_layer = 0;
  std::optional<int> expert;
  std::optional<int> expert_to;       // second expert, in moe_layer + 1 (affinity)
  int pass = 0;
  bool operator==(const Selection&) const = default;
};

// FollowLive (no value) or pinned to a token.
using TimeCursor = std::optional<uint64_t>;

// Everything a view may read in one repaint; filled by app/session, constant while views draw.
// All token-indexed vectors cover the current sequence from token 0.
struct RunData {
  const ModelPlan* plan = nullptr;                     // nullptr: no model open
  std::shared_ptr<const SessionSnapshot> snapshot;     // may be null
  std::shared_ptr<const Recipe> recipe_ahead;          // with the edits on their way; null: none is, see the last epoch
  std::vector<std::shared_ptr<const RoutingFrame>> frames;  // [tokens routed]; null where let go
  std::vector<std::string> pieces;                     // printable text of each token, one more than frames when one is pending
  std::vector<TokenId> token_ids;
  uint64_t prompt_tokens = 0;
  const Load* load_all = nullptr;                      // over all tokens of the sequence
  const Load* load_window = nullptr;                   // over the last `window` tokens
  int window = 64;
  const Affinity* affinity = nullptr;
  std::vector<int> later_rows;                         // beyond the routers' first decisions, that some frame has; ascending
  std::vector<RouterTensors> router_tensors;           // [moe_layers]; empty where no router has any
  uint64_t serial = 0;                                 // grows with every change of the data

  uint64_t tokens() const { return frames.size(); }
  // The frame shown under a cursor: the pinned token, else the newest; nullptr when there is none.
  const RoutingFrame* shown(const TimeCursor& cursor) const;
  uint64_t shown_index(const TimeCursor& cursor) const;
};

// Commands a view may send. Errors are shown by the app, once.
struct ViewCommands {
  std::function<void(const Selection&)> select;
  std::function<void(const TimeCursor&)> set_cursor;
  std::function<void(EditCommand)> edit;
  std::function<void(std::vector<EditCommand>)> edit_all;       // one undo step, all or nothing
  std::function<void(std::string_view action_id)> run_action;   // "edit.undo"
  std::function<void(size_t index)> remove_shadow;              // place in SessionSnapshot::shadows
  std::function<void(std::string_view view_id, std::string_view setting, int value)> set_setting;
};

struct Theme;  // views/ui/theme.h

struct ViewContext {
  const RunData& data;
  const Selection& selection;
  const TimeCursor& cursor;
  const Theme& theme;
  ItemMap& items;            // every view registers what it drew
  const ViewCommands& commands;
  double seconds = 0;        // since start, for the rare animation
};

// A choice shown in the dock's header ("load / uniform", "last token", …); generated into menus.
struct ViewSetting {
  std::string id;
  std::string title;
  std::vector<std::string> options;
  int value = 0;
};

class View {
 public:
  virtual ~View() = default;
  virtual std::string_view id() const = 0;      // "routing_heatmap"; help page assets/help/views/<id>.md
  virtual std::string_view title() const = 0;   // "Routing"
  virtual std::string subtitle(const RunData&, const Selection&, const TimeCursor&) const { return {}; }
  virtual std::vector<ViewSetting>& settings() = 0;
  virtual void draw(const ViewContext& context) = 0;  // inside one borderless ImGui window that fills the widget
  // The Qt twin: same numbers, same filter, sortable; parented to `parent`. refresh_table() re-reads the data.
  virtual QAbstractTableModel* make_table(QObject* parent) = 0;
  virtual void refresh_table(QAbstractTableModel* model, const RunData&, const Selection&, const TimeCursor&) = 0;
};

// The built-in views, in dock order; one explicit list in views/registry.cpp.
std::vector<std::unique_ptr<View>> make_builtin_views();

}  // namespace switchyard
