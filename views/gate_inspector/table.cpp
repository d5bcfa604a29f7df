// Table twin of the gate inspector: every expert of the layer, all steps from logit to weight.
#include "views/gate_inspector/view.h"
#include "views/ui/table_twin.h"

namespace switchyard {

QAbstractTableModel* GateInspector::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void GateInspector::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                                  const TimeCursor& cursor) {
  TableData table;
  table.columns = {{"expert", "", 0},
                   {"logit", "raw", 4},
                   {"edited logit", "after row scale, bias, temperature, mute", 4},
                   {"score", "", 5},
                   {"select score", "score + selection bias", 5},
                   {"native score", "", 5},
                   {"selected", "1: yes", 0},
                   {"native selected", "1: yes", 0},
                   {"weight", "as applied", 5},
                   {"native weight", "", 5},
                   {"edit", "in force at the shown token", 0}};
  if (data.plan && !data.plan->moe_layers.empty() && data.shown(cursor)) {
    for (const GateRow& row : gate_table(data, cursor, decision_row(data, selection, data.shown(cursor))).rows)
      table.cells.insert(table.cells.end(), {int64_t(row.expert), double(row.logit), double(row.edited),
                                             double(row.score), double(row.select_score), double(row.native_score),
                                             int64_t(row.selected), int64_t(row.native_selected), double(row.weight),
                                             double(row.native_weight), in_words(row.edits)});
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
