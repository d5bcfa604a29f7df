#include "views/plugin/view.h"

#include <time.h>

#include <chrono>

#include <fmt/format.h>
#include <imgui.h>

#include "engine/base/text.h"
#include "views/plugin/call.h"
#include "views/ui/draw.h"

namespace switchyard {
namespace {

// Of this thread; what the machine does beside it does not count.
double thread_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return double(used.tv_sec) + double(used.tv_nsec) * 1e-9;
}
constexpr double kBudget = 0.004, kPatience = 0.25;  // of CPU, of waiting
constexpr int kSlowRepaints = 5;

}  // namespace

PluginView::PluginView(PluginHost& host, std::shared_ptr<Plugin> plugin, const Contribution& contribution)
    : host_(host), plugin_(std::move(plugin)), contribution_(contribution) {}

PluginView::~PluginView() = default;

std::string PluginView::subtitle(const RunData& data, const Selection& selection, const TimeCursor&) const {
  const std::string mark = "plugin " + plugin_->id();
  if (!data.plan || data.plan->moe_layers.empty()) return mark;
  return data.plan->row_name(std::clamp(selection.moe_layer, 0, int(data.plan->moe_layers.size()) - 1)) + " · " + mark;
}

PluginCode* PluginView::code() {
  if (code_) return plugin_->off() ? nullptr : code_.get();
  if (!plugin_->why_not().empty()) return nullptr;
  if (!opening_.valid()) {
    host_.watch_for_crashes();
    opening_ =
        std::async(std::launch::async, [plugin = plugin_, &host = host_] { return plugin->code(host.crumbs()); });
  }
  if (opening_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return nullptr;
  auto opened = opening_.get();
  if (!opened) {
    error_ = opened.error().message();
    return nullptr;
  }
  auto found = (*opened)->view(contribution_.id);
  if (!found) {
    error_ = found.error().message();
    plugin_->turn_off(error_);
    return nullptr;
  }
  view_ = *found;
  code_ = std::move(*opened);
  return code_.get();
}

template <class F>
bool PluginView::guarded(PluginCall what, F&& work) {
  const std::scoped_lock lock(code_->calls());
  CallContext ctx;
  const double before = thread_seconds();
  const auto start = std::chrono::steady_clock::now();
  const bool done = code_->call(what, ctx, [&] { return work(ctx); });
  const double used = thread_seconds() - before,
               waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!done) {
    error_ = fmt::format("{} failed: {}", contribution_.id,
                         ctx.message[0] ? printable(ctx.message, 300) : "without a reason");
    plugin_->fault(error_);
    return false;
  }
  if (what != PluginCall::kDraw) return true;
  slow_ = used > kBudget || waited > kPatience ? slow_ + 1 : 0;
  if (slow_ < kSlowRepaints) return true;
  const std::string why = fmt::format("{} took more than {:g} ms a repaint {} times in a row", contribution_.id,
                                      kBudget * 1000, kSlowRepaints);
  plugin_->turn_off(why + ".");
  plugin_->fault(why + "; it is off");
  return true;
}

void PluginView::show_trouble(const ViewContext& context, const std::string& text, bool again) {
  const ItemRect area = view_area();
  empty_state(context, contribution_.title, text);
  context.items.add({"trouble", text, 0, "", area, ""});
  if (!again) return;
  ImGui::SetCursorScreenPos({area.x0 + em(1), area.y1 - em(2.4f)});
  if (small_button(context, "again", "Draw again")) error_.clear();
}

void PluginView::draw(const ViewContext& context) {
  if (const std::string why = plugin_->why_not(); !why.empty()) return show_trouble(context, why, false);
  PluginCode* const open = error_.empty() ? code() : nullptr;
  if (!error_.empty()) return show_trouble(context, error_, code_ != nullptr);
  if (!open) return show_trouble(context, "The plugin is being opened.", false);
  ViewCall call(*this, context.data, context.selection, context.cursor);
  call.begin_drawing(context);
  guarded(PluginCall::kDraw,
          [&](CallContext& ctx) { return view_.draw(open->self(), &call.in.table, &call.draw.table, &ctx); });
  call.end_drawing();
}

QAbstractTableModel* PluginView::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void PluginView::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                               const TimeCursor& cursor) {
  TableData table;
  if (PluginCode* const open = plugin_->why_not().empty() && error_.empty() ? code() : nullptr) {
    ViewCall call(*this, data, selection, cursor);
    call.begin_listing();
    if (guarded(PluginCall::kTable,
                [&](CallContext& ctx) { return view_.table(open->self(), &call.in.table, &call.rows.table, &ctx); }))
      table = std::move(call.listed);
    if (!table.columns.empty()) table.cells.resize(table.cells.size() / table.columns.size() * table.columns.size());
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

std::vector<std::unique_ptr<View>> make_plugin_views(PluginHost& host) {
  std::vector<std::unique_ptr<View>> out;
  for (const auto& [plugin, contribution] : host.contributions(PluginKind::kView))
    out.push_back(std::make_unique<PluginView>(host, plugin, *contribution));
  return out;
}

}  // namespace switchyard
