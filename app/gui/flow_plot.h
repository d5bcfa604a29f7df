// Which expert follows which, as ribbons between the layers (specs/analyses.md A10): layers across, a layer's experts
// down, a ribbon for each pair that the table lists, as thick as its count. Painted by ResultPicture. GUI thread.
#pragma once

#include <vector>

#include <QCoreApplication>
#include <QPointF>
#include <QRectF>
#include <QString>

#include "engine/analysis/result_table.h"

class QPainter;

namespace switchyard {

class FlowPlot {
  Q_DECLARE_TR_FUNCTIONS(FlowPlot)
 public:
  // "flow", where the table lists pairs of experts in neighbouring layers; empty: it does not.
  static QString name_of(const ResultTable& table);

  FlowPlot() = default;
  explicit FlowPlot(const ResultTable& table);

  bool empty() const { return ribbons_.empty(); }
  QString title() const;
  QString facts() const;              // how many ribbons there are, and the counts they stand for
  QString strongest(int most) const;  // in words, for the accessible description
  int label_width() const;            // of the numbers left of the area

  void paint(QPainter& p, const QRectF& area) const;
  // The ribbons under the pointer, a line each, the thickest first; empty: none.
  QString value_at(const QPointF& at, const QRectF& area) const;

 private:
  struct Ribbon {
    int column = 0;  // of where it begins; it ends in the next
    int from = 0, to = 0;
    double count = 0;
  };
  struct Ends {
    double left = 0, right = 0, half = 0;  // heights of its middle, half its thickness
  };
  double height_of(int expert, const QRectF& area) const;
  double x_of(int column, const QRectF& area) const;
  Ends ends(const Ribbon& ribbon, const QRectF& area) const;
  QString words(const Ribbon& ribbon) const;

  std::vector<Ribbon> ribbons_;  // the thinnest first
  std::vector<QString> columns_; // layers
  int experts_ = 1;              // as many as the ribbons name
  double thickest_ = 1;
};

}  // namespace switchyard
