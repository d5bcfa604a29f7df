// A volcano plot: what two sides use differently (effect) across, how sure that is (-log10 of the corrected p) up; a point
// for every expert of every layer. Painted by ResultPicture. GUI thread.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include <QCoreApplication>
#include <QPointF>
#include <QRectF>
#include <QString>
#include <QStringList>

#include "engine/analysis/result_table.h"

class QPainter;

namespace switchyard {

class VolcanoPlot {
  Q_DECLARE_TR_FUNCTIONS(VolcanoPlot)
 public:
  VolcanoPlot() = default;
  // sides: names of what is compared, the one with positive effects first; fewer than two: A and B.
  VolcanoPlot(const ResultTable& table, const TestColumns& columns, const QStringList& sides);

  bool empty() const { return points_.empty(); }
  QString title() const;             // of the axis upwards
  QString effect_title() const;      // of the axis across
  QString count() const;             // how many are below the level, and how many at the top have q = 0
  QString strongest(int most) const; // in words, for the accessible description
  QStringList series() const;        // the legend: more in one side, more in the other
  int label_width() const;           // of the numbers left of the area

  void paint(QPainter& p, const QRectF& area) const;
  // The points under the pointer, a line each; empty: none.
  QString value_at(const QPointF& at, const QRectF& area) const;
  std::optional<size_t> row_at(const QPointF& at, const QRectF& area) const;  // of the table: the nearest point's
  std::optional<QPointF> place_of(size_t row, const QRectF& area) const;      // nullopt: it has no point
  void mark(std::optional<size_t> row) { marked_ = row; }                     // drawn with a ring

 private:
  struct Point {
    QString label, words;  // "L3 E17", "layer 3, expert 17"
    size_t row = 0;        // of the table
    double effect = 0, q = 1;
    bool significant = false;
  };
  double height_of(const Point& point) const;
  std::vector<std::pair<double, const Point*>> near(const QPointF& at, const QRectF& area) const;  // distance and point, nearest first
  QRectF inner(const QRectF& area) const;  // without the band of q = 0
  QPointF place(const Point& point, const QRectF& area) const;
  QString words(const Point& point) const;
  void paint_axes(QPainter& p, const QRectF& area) const;
  void paint_labels(QPainter& p, const QRectF& area, std::vector<QRectF> taken) const;

  std::vector<Point> points_;  // the strongest first: by rising q, then by falling effect
  std::optional<size_t> marked_;
  QStringList sides_;
  QString effect_;
  int significant_ = 0, zeros_ = 0;
  double x_step_ = 1, x_end_ = 1, y_step_ = 1, y_end_ = 1;  // ticks; x runs from -x_end_ to x_end_, y from 0
};

}  // namespace switchyard
