// What the paper module offers the program: pages as PDF, drawings as PDF and PNG. It carries cairo and pango and is loaded
// when the first is written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/report/drawing.h"

namespace switchyard {

// One thing after the other, down the page.
struct PageItem {
  enum Kind : uint8_t { kTitle, kHeading, kWords, kCode, kSmall, kTable, kFigure };
  Kind kind = kWords;
  std::string words;                           // Pango markup; of a figure and a table nothing
  std::vector<std::vector<std::string>> rows;  // kTable: plain text, the first row is the head, repeated on each page
  std::vector<uint8_t> right;                  // kTable: columns of numbers
  Drawing drawing;                             // kFigure
  double indent = 0;                           // points
};

struct PaperSink {
  void* context;
  const char* (*write)(void* context, const void* bytes, int64_t count);  // nullptr, or what went wrong
};

// Functions give nullptr, or what went wrong: valid until the next call. One thread at a time.
struct PaperModule {
  // A4, page numbers, fonts embedded. title: of the document's data.
  const char* (*pdf_of_pages)(const std::vector<PageItem>& items, const std::string& title, PaperSink sink);
  const char* (*pdf_of_drawing)(const Drawing& drawing, PaperSink sink);
  // scale: pixels a point.
  const char* (*png_of_drawing)(const Drawing& drawing, const ChartColors& colors, double scale, PaperSink sink);
};
inline constexpr char kPaperEntry[] = "switchyard_paper_module";
using PaperEntry = const PaperModule* (*)();

}  // namespace switchyard
