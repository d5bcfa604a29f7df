// Table twin of the token strip: one row per token, decisions of the selected layer.
#include <fmt/format.h>

#include "views/token_strip/view.h"
#include "views/ui/edits.h"
#include "views/ui/table_twin.h"

namespace switchyard {

QAbstractTableModel* TokenStrip::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void TokenStrip::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                               const TimeCursor&) {
  TableData table;
  table.columns = {{"token", "", 0},
                   {"text", "", 0},
                   {"id", "vocabulary", 0},
                   {"phase", "", 0},
                   {"epoch", "recipe", 0},
                   {"entropy", "nat", 4},
                   {"margin", "logits", 4},
                   {"top-k mass", "", 4},
                   {"experts", "falling weight", 0},
                   {"changed", "selected experts that are not native", 0}};
  if (data.plan && !data.plan->moe_layers.empty()) {
    for (uint64_t t = 0; t < data.tokens(); ++t) {
      const std::string text = t < data.pieces.size() ? data.pieces[t] : std::string();
      const TableCell id = t < data.token_ids.size() ? TableCell(int64_t(data.token_ids[t])) : TableCell();
      const RoutingFrame* frame = data.frames[t].get();
      const int row = decision_row(data, selection, frame);
      if (!frame || row >= frame->rows()) {
        table.cells.insert(table.cells.end(), {int64_t(t), text, id, std::string("let go"), {}, {}, {}, {}, {}, {}});
        continue;
      }
      const LayerHeader& layer = frame->layer(row);
      std::string experts;
      for (const ExpertId e : frame->used_ids(row)) experts += (experts.empty() ? "" : " ") + std::to_string(e);
      table.cells.insert(
          table.cells.end(),
          {int64_t(t), text, id, std::string(frame->header().phase == Phase::kPrefill ? "prompt" : "generated"),
           int64_t(frame->header().recipe_epoch), double(layer.stats.entropy), double(layer.stats.margin),
           double(layer.stats.topk_mass), experts, int64_t(layer.changed)});
    }
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
