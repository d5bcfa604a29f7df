// Which pictures and tables of an analysis or study a report shows when nobody says otherwise, and how a picture is turned
// from a table's plain numbers into what is usual in the field. Inside engine/report; any thread.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "engine/report/request.h"

namespace switchyard::reports {

struct UsualFigure {
  const char* table;
  const char* show;
  const char* title;
  enum Turn : uint8_t {
    kNone,
    kRelative,    // divided by the mean of its row, 1 in the middle of the colours
    kFirstLayer,  // of many matrices the first layer's
    kRidge,       // a distribution over bins; the object says where they end
  } turn = kNone;
  const char* baseline = nullptr;  // a number of the object, by path "random/overlap"
  const char* baseline_title = "random routing";
};

struct Usual {
  const char* source;
  std::vector<UsualFigure> figures;
  std::vector<const char*> tables;
};

// nullptr: nothing special; then the first picture that the tables give, and all tables of few rows.
const Usual* usual_of(std::string_view source);
// The chart of a table, turned as usual. Empty spec: the table has no such picture.
ChartSpec figure_of(std::string_view source, const std::vector<ResultTable>& tables, const FigureChoice& choice, const Document& object);

}  // namespace switchyard::reports
