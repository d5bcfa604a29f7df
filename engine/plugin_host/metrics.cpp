// Metrics of plugins in the registry of analyses: each runs in a process of its own, fed block by block.
#include <array>
#include <cmath>
#include <deque>
#include <mutex>

#include <fmt/format.h>

#include "engine/analysis/analysis.h"
#include "engine/base/text.h"
#include "engine/plugin_host/host.h"

namespace switchyard {
namespace {

using Document = nlohmann::ordered_json;
constexpr const char* kIds = "/routing/expert_id";

class PluginMetric final : public Analysis {
 public:
  static Result<std::unique_ptr<Analysis>> make(const std::shared_ptr<Plugin>& plugin, const Contribution& contribution,
                                                const TraceShape& shape) {
    SY_TRY(auto child, plugin->child(PluginKind::kMetric, contribution.id));
    Message begin;
    begin.head = {{"op", "metric"},         {"rows", shape.rows},           {"experts", shape.experts}, {"k", shape.k},
                  {"tokens", shape.tokens}, {"sequences", shape.sequences}, {"layers", shape.layers}};
    SY_TRY(const Message declared, child->ask(begin));
    auto out = std::unique_ptr<PluginMetric>(new PluginMetric);
    out->plugin_ = plugin->id() + " " + plugin->manifest().version;
    out->contribution_ = &contribution;
    out->layers_ = shape.layers;
    out->child_ = std::move(child);
    out->declared_ = declared.head;
    return out;
  }

  // What fails here is told by finish(), so that other analyses of the same walk go on.
  Result<void> feed(int, const RoutingSlab& slab, int row) override {
    const std::scoped_lock lock(mutex_);
    if (!trouble_) return {};
    const auto n = size_t(slab.tokens);
    Message block;
    block.head = {{"op", "feed"},
                  {"row", row},
                  {"layer", layers_[size_t(row)]},
                  {"tokens", n},
                  {"experts", slab.experts},
                  {"k", slab.k},
                  {"first", slab.first_token}};
    std::string arrays;
    std::vector<int32_t> ids;
    ids.reserve(slab.row_ids(row).size());
    for (const ExpertId id : slab.row_ids(row)) ids.push_back(id == kNoExpert ? -1 : int32_t(id));
    block.put(std::span<const int32_t>(ids));
    block.put(slab.position);
    block.put(slab.sequence);
    const auto add = [&]<class T>(char letter, std::span<const T> values) {
      if (values.empty()) return;
      arrays += letter;
      block.put(values);
    };
    add('w', slab.of_row(slab.weights, row));
    add('l', slab.of_row(slab.router_logits, row));
    add('e', slab.of_row(slab.entropy, row));
    add('t', slab.of_row(slab.topk_mass, row));
    add('m', slab.of_row(slab.margin, row));
    add('s', slab.of_row(slab.lse, row));
    add('i', std::span<const int32_t>(slab.token_ids));
    add('k', slab.mask);
    block.head["arrays"] = arrays;
    if (auto fed = child_->ask(block); !fed) trouble_ = tl::unexpected(fed.error());
    return {};
  }

  Result<void> finish() override {
    SY_CHECK(trouble_);
    Message ask;
    ask.head = {{"op", "result"}};
    SY_TRY(Message answer, child_->ask(ask));
    child_.reset();
    Document units = Document::array();
    const auto& tables = declared_["tables"];
    const auto& rows = answer.head["rows"];
    result_ = {{"plugin", plugin_}, {"metric", contribution_->title}};
    for (size_t i = 0; i < tables.size(); ++i) {
      const std::string name = tables[i]["name"];
      const auto& columns = tables[i]["columns"];
      std::vector<double> cells;
      const uint64_t count = i < rows.size() && rows[i].is_number_unsigned() ? rows[i].get<uint64_t>() : 0;
      if (count > 1'000'000 || !answer.take(count * columns.size(), cells))
        return fail(ErrorCode::kPlugin, fmt::format("the plugin {} gave fewer cells than rows.", plugin_));
      Document list = Document::array();
      for (uint64_t row = 0; row < count; ++row) {
        Document one;
        for (size_t c = 0; c < columns.size(); ++c) {
          const double value = cells[row * columns.size() + c];
          const bool whole = value == std::floor(value) && std::abs(value) < 9e15;
          one[columns[c][0].get<std::string>()] = !std::isfinite(value) ? Document(nullptr)
                                                  : whole               ? Document(int64_t(value))
                                                                        : Document(value);
        }
        list.push_back(std::move(one));
      }
      result_[name] = std::move(list);
      for (const auto& column : columns)
        if (!column[1].get_ref<const std::string&>().empty())
          units.push_back({{"table", name}, {"column", column[0]}, {"unit", column[1]}});
    }
    if (!units.empty()) result_["units"] = std::move(units);
    return {};
  }

  Document result() override { return result_; }

 private:
  PluginMetric() = default;
  std::string plugin_;
  const Contribution* contribution_ = nullptr;
  std::vector<int> layers_;
  std::unique_ptr<PluginChild> child_;
  nlohmann::json declared_;
  std::mutex mutex_;
  Result<void> trouble_;
  Document result_;
};

}  // namespace

void register_plugin_metrics(PluginHost& host) {
  static std::deque<std::string> titles;
  std::vector<AnalysisInfo> added;
  for (const auto& [plugin, contribution] : host.contributions(PluginKind::kMetric)) {
    AnalysisInfo info{};
    info.name = contribution->id.c_str();
    info.section = "-";
    info.title =
        titles.emplace_back(contribution->title + " (plugin " + plugin->id() + " " + plugin->manifest().version + ")")
            .c_str();
    info.needs = {kIds};
    for (const std::string& field : contribution->needs) info.needs.push_back(field.c_str());
    for (const std::string& field : contribution->uses) info.uses.push_back(field.c_str());
    info.make = [plugin = plugin, contribution = contribution](const TraceShape& shape, const AnalysisOptions&) {
      return PluginMetric::make(plugin, *contribution, shape);
    };
    added.push_back(std::move(info));
  }
  add_analyses(std::move(added));
}

}  // namespace switchyard
