// The command palette and the go-to list: type a few letters, take one with Enter. Over the window, closed by
// Esc or a click elsewhere. GUI thread.
#pragma once

#include <functional>
#include <vector>

#include <QAbstractListModel>
#include <QFrame>
#include <QString>

class QLineEdit;
class QListView;

namespace switchyard {

// One thing that can be taken.
struct PaletteItem {
  QString title;
  QString group;    // shown right of the title, faint
  QString keys;     // shortcut
  QString blocked;  // why it cannot be taken; empty: it can
  std::function<void()> take;
};

// Letters of `query` in order in `text`, case-insensitive; higher is better, negative: no match. Starts of words,
// runs of letters and early matches count more.
int fuzzy_score(const QString& query, const QString& text);

class PaletteModel : public QAbstractListModel {
  Q_OBJECT
 public:
  using QAbstractListModel::QAbstractListModel;
  enum Role { kGroup = Qt::UserRole + 1, kKeys, kBlocked };
  void set_items(std::vector<PaletteItem> items);
  void set_query(const QString& query);
  int rowCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : int(shown_.size()); }
  QVariant data(const QModelIndex& index, int role) const override;
  const PaletteItem& item(int row) const { return items_[shown_[size_t(row)]]; }

 private:
  std::vector<PaletteItem> items_;
  std::vector<size_t> shown_;
};

class Palette : public QFrame {
  Q_OBJECT
 public:
  explicit Palette(QWidget* over);
  // more(query) may add items that depend on what is typed ("token 66"); may be empty.
  void open(const QString& hint, std::vector<PaletteItem> items,
            std::function<std::vector<PaletteItem>(const QString&)> more = {});
  QLineEdit* field() const { return field_; }
  PaletteModel* items() const { return model_; }

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void take(int row);
  void place();
  void query_changed(const QString& text);

  QWidget* over_;
  QLineEdit* field_;
  QListView* list_;
  PaletteModel* model_;
  std::vector<PaletteItem> fixed_;
  std::function<std::vector<PaletteItem>(const QString&)> more_;
};

}  // namespace switchyard
