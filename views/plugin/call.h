// What one draw() or table() of a plugin sees: facts of the run as sy_view_in, and the tables that it draws and lists
// through. Lives as long as the call.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include <imgui.h>

#include "views/plugin/view.h"
#include "views/ui/table_twin.h"

namespace switchyard {

struct ViewCall {
  ViewCall(PluginView& view, const RunData& data, const Selection& selection, const TimeCursor& cursor);

  // Of the C tables: they stand first, so that their address is the call's part.
  struct In {
    sy_view_in table;
    ViewCall* call;
  } in{};
  struct Draw {
    sy_draw table;
    ViewCall* call;
  } draw{};
  struct Rows {
    sy_rows table;
    ViewCall* call;
  } rows{};

  void begin_drawing(const ViewContext& shown);
  void end_drawing();    // and carries the commands out
  void begin_listing();  // into `listed`

  PluginView& view;
  const RunData& data;
  const ViewContext* context = nullptr;
  ItemRect area;
  std::vector<uint32_t> layers;
  std::deque<std::vector<int32_t>> ids;  // of tokens that were asked for
  size_t grids = 0;
  int clips = 0;
  bool too_many = false;  // items or rows: the rest is left out
  TableData listed;
  size_t cells_in_row = 0;
  std::vector<std::string> edits;
  std::vector<Selection> selections;
  std::vector<uint64_t> tokens;

  int token(uint64_t index, uint32_t row, sy_view_token* out);
  ImVec2 at(float x, float y) const;
  ItemRect rect(float x0, float y0, float x1, float y1) const;
  uint32_t color(int32_t name) const;
};

}  // namespace switchyard
