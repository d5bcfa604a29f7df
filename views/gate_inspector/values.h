// One decision of one layer, expert by expert, as engine/routing explains it. Pure; GUI thread.
#pragma once

#include <vector>

#include "views/ui/edits.h"
#include "views/view.h"

namespace switchyard {

struct GateRow {
  int expert = 0;
  float logit = 0, edited = 0;        // raw; after row scale, bias, temperature and mute (-inf)
  float score = 0, select_score = 0;  // from the edited logits; with the selection bias
  float native_score = 0;
  float weight = 0, native_weight = 0;  // 0: not selected
  bool selected = false, native_selected = false;
  ExpertEdits edits;
};

struct GateTable {
  bool passed = true;         // false: the token is of an encoder-decoder's other side; no rows
  bool has_logits = false;    // false: ids (and weights) only, as captured; rows are the selected experts
  bool missing_bias = false;  // the router has a bias that is not at hand: scores are without it
  std::vector<GateRow> rows;  // by expert id
  DecisionStats stats;
  int k_used = 0, changed = 0;
  bool edited = false;  // some edit was in force in this layer
  std::string note;     // GateExplanation::unknown; selection and weights are then those of the record
};

// row: of the frame, decision_row().
GateTable gate_table(const RunData& data, const TimeCursor& cursor, int row);

// Row indices in falling edited logit, then lower id; a muted expert stands where it would be unmuted.
std::vector<int> by_score(const GateTable& table);

}  // namespace switchyard
