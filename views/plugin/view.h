// A view whose picture a plugin draws: through the table of the contract, under guard, with the same item map, table
// twin and commands as the built-in ones. GUI thread only.
#pragma once

#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/plugin_host/host.h"
#include "views/plot/heat_grid.h"
#include "views/ui/controls.h"
#include "views/view.h"

namespace switchyard {

class PluginView final : public View {
 public:
  PluginView(PluginHost& host, std::shared_ptr<Plugin> plugin, const Contribution& contribution);
  ~PluginView() override;

  std::string_view id() const override { return contribution_.id; }
  std::string_view title() const override { return contribution_.title; }
  std::string subtitle(const RunData& data, const Selection& selection, const TimeCursor&) const override;
  std::vector<ViewSetting>& settings() override { return settings_; }
  void draw(const ViewContext& context) override;
  QAbstractTableModel* make_table(QObject* parent) override;
  void refresh_table(QAbstractTableModel* model, const RunData&, const Selection&, const TimeCursor&) override;

  // The plugin is being opened in a thread of its own: look again soon.
  bool opening() const { return opening_.valid(); }

 private:
  friend struct ViewCall;
  // The code, once it is there; opening begins at the first call.
  PluginCode* code();
  // Through the guard. False: error_ says why.
  template <class F>
  bool guarded(PluginCall what, F&& work);
  void show_trouble(const ViewContext& context, const std::string& text, bool again);

  PluginHost& host_;
  std::shared_ptr<Plugin> plugin_;
  const Contribution& contribution_;
  std::vector<ViewSetting> settings_;
  std::future<Result<std::shared_ptr<PluginCode>>> opening_;
  std::shared_ptr<PluginCode> code_;
  sy_view view_{};
  std::string error_;
  int slow_ = 0;                                                // repaints in a row
  float scrolled_ = 0;                                          // lines
  std::vector<std::pair<std::vector<float>, HeatGrid>> grids_;  // in the order of their drawing
  std::map<std::string, SliderState> sliders_;
};

// Of all plugins that are not refused. Their code is opened when they are first drawn.
std::vector<std::unique_ptr<View>> make_plugin_views(PluginHost& host);

}  // namespace switchyard
