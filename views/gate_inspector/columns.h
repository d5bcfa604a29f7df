// Where the columns of the gate inspector stand for one width: what does not fit is left out, so that
// text never overlaps. GUI thread, inside a frame (sizes are font heights).
#pragma once

#include <algorithm>
#include <cmath>

#include "views/gate_inspector/values.h"
#include "views/gate_inspector/view.h"
#include "views/ui/draw.h"

namespace switchyard {

struct GateInspector::Columns {
  struct Column {
    float x = 0, bar = 0, number = 0;
  };  // left edge, widths; bar 0: not shown
  float x0 = 0, x1 = 0;
  Column logit, edited, score;
  float native_right = 0, native_width = 0;  // the native weight, in edited layers of wide views
  float low = 0, high = 1;                   // range of the logit bars, 0 in it
  float most = 1;                            // largest score

  Columns(float left, float right, const GateTable& table) : x0(left), x1(right) {
    const float width = (right - left) / em(), gap = em(0.8f), weight = em(3.7f), expert = em(3.7f);
    const bool scores = table.has_logits && width > 20, raw = table.has_logits && width > 15;
    if (width > 24) logit.number = em(3.1f);
    if (width > 33) score.number = em(3.3f);
    if (width > 42) edited.number = em(3.3f);
    if (table.edited && width > 38) native_width = em(3.9f);
    native_right = right - weight - gap;

    const float fixed = expert + weight + gap + (native_width > 0 ? native_width + gap : 0) + logit.number +
                        edited.number + score.number;
    const float each = std::max(em(1), (right - left - fixed) / float(1 + int(raw) + int(scores)) - gap);
    float x = left + expert;
    const auto place = [&](Column& column, bool shown) {
      if (!shown) {
        column.number = 0;
        return;
      }
      column.x = x, column.bar = each;
      x += each + column.number + gap;
    };
    place(logit, raw);
    place(edited, table.has_logits);
    place(score, scores);

    low = 0, high = 0, most = 0;
    for (const GateRow& row : table.rows) {
      for (const float v : {row.logit, row.edited})
        if (std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
      if (std::isfinite(row.score)) most = std::max({most, row.score, row.native_score});
    }
    if (high <= low) high = low + 1;
    if (most <= 0) most = 1;
  }

  float logit_x(const Column& column, float value) const {
    return column.x + column.bar * (value - low) / (high - low);
  }
};

}  // namespace switchyard
