// The Plugins dock: what is found, what it adds, whether it may run; trust with the hash shown, settings made from the
// manifest. GUI thread.
#pragma once

#include <QWidget>

#include "engine/plugin_host/host.h"

class QFormLayout;
class QLabel;
class QPushButton;
class QTreeWidget;

namespace switchyard {

class PluginPanel : public QWidget {
  Q_OBJECT
 public:
  explicit PluginPanel(PluginHost& host, QWidget* parent = nullptr);

  void select(const QString& id);
  QString selected() const;
  QString details() const;  // as shown
  void refresh();           // states, faults, load times

  // Asks first: name, path, hash, what it means; No is the answer of Enter.
  void ask_to_trust();
  void set_trusted(bool trusted);
  void set_off(bool off);
  void set_setting(const QString& key, const QString& value);

 Q_SIGNALS:
  void changed();  // something may be used now, or not any more
  void failed(const switchyard::Error& error);

 private:
  void show_selected();
  void build_form(const Plugin& plugin);
  void report(const Result<void>& done);

  PluginHost& host_;
  QTreeWidget* list_;
  QLabel *message_, *details_;
  QPushButton *trust_, *untrust_, *toggle_;
  QWidget* form_;
  QFormLayout* rows_;
  QString form_of_;  // whose settings stand in the form
};

}  // namespace switchyard
