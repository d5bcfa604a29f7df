// Table twin of affinity: every pair of experts of the two layers that was seen.
#include "views/affinity/view.h"
#include "views/ui/edits.h"
#include "views/ui/table_twin.h"

namespace switchyard {

QAbstractTableModel* AffinityView::make_table(QObject* parent) {
  return new TableTwin(parent);
}

void AffinityView::refresh_table(QAbstractTableModel* model, const RunData& data, const Selection& selection,
                                 const TimeCursor&) {
  TableData table;
  table.columns = {{"from", "expert of the layer", 0},
                   {"to", "expert of the next MoE layer", 0},
                   {"pairs", "all pairs of the tokens", 0},
                   {"first choices", "pairs of slot 0", 0},
                   {"P(next | this)", "of the pairs shown", 5}};
  if (data.plan && data.plan->moe_layers.size() > 1 && data.affinity) {
    const int row = from_row(data, selection), experts = data.affinity->experts();
    const auto all = data.affinity->topk(row), first = data.affinity->top1(row);
    const std::vector<double> next = conditional(counts(data, row), experts);
    for (int i = 0; i < experts; ++i)
      for (int j = 0; j < experts; ++j)
        if (const size_t at = size_t(i) * size_t(experts) + size_t(j); all[at] > 0)
          table.cells.insert(table.cells.end(),
                             {int64_t(i), int64_t(j), int64_t(all[at]), int64_t(first[at]), next[at]});
  }
  static_cast<TableTwin*>(model)->set(std::move(table));
}

}  // namespace switchyard
