// RunModel's branches and the recipes beside the run. GUI thread; files are read by a job.
#include <algorithm>

#include "app/session/edit_script_file.h"
#include "app/session/run_model.h"

namespace switchyard {

void RunModel::rewind(uint64_t token) {
  if (!session_) return;
  session_->send(Rewind{token});
  set_cursor(std::nullopt);
}

void RunModel::switch_branch(uint32_t branch) {
  if (!session_) return;
  session_->send(SwitchBranch{branch});
  set_cursor(std::nullopt);
}

void RunModel::add_shadow(const QString& name, std::vector<EditCommand> script) {
  if (!session_)
    return Q_EMIT failed({ErrorCode::kUsage, "No model is open.", "", "Open the model that the recipe is for."});
  if (shadows_.size() >= kMostShadows)
    return Q_EMIT failed({ErrorCode::kUsage, "Eight recipes are compared already.", "", "Remove one first."});
  std::string unique = name.toStdString();
  const auto taken = [&] {
    return std::any_of(shadows_.begin(), shadows_.end(), [&](const auto& one) { return one.name == unique; });
  };
  for (int i = 2; taken(); ++i) unique = name.toStdString() + " (" + std::to_string(i) + ")";
  shadows_.push_back({unique, std::move(script)});
  session_->send(SetShadows{shadows_});
  Q_EMIT note(tr("Comparing with %1").arg(QString::fromStdString(unique)));
}

void RunModel::add_shadow(const std::filesystem::path& file) {
  if (!session_) return add_shadow(QString(), {});  // says why
  const Session* const target = session_.get();
  QString name = QString::fromStdString(file.filename().string());
  for (const char* ending : {".json", ".edits"})
    if (name.endsWith(ending)) name.chop(qsizetype(std::char_traits<char>::length(ending)));
  jobs_.start(
      "load script", tr("Reading %1").arg(QString::fromStdString(file.filename().string())),
      [file, plan = session_->checkpoint().plan](Task&) { return read_script_file(file, plan); },
      [this, target, name](Result<std::vector<EditCommand>> script) {
        if (session_.get() != target) return;
        if (!script) return Q_EMIT failed(script.error());
        add_shadow(name, std::move(*script));
      });
}

void RunModel::add_shadow_of_edits() {
  if (!data_.snapshot || data_.snapshot->epochs.empty()) return;
  const Epoch& now = data_.snapshot->epochs.back();
  add_shadow(now.edits.empty() ? tr("native router") : tr("edits of epoch %1").arg(now.epoch), now.edits);
}

void RunModel::remove_shadow(size_t index) {
  if (!session_ || index >= shadows_.size()) return;
  shadows_.erase(shadows_.begin() + int64_t(index));
  session_->send(SetShadows{shadows_});
}

void RunModel::clear_shadows() {
  shadows_.clear();
  if (session_) session_->send(SetShadows{});
}

void RunModel::adapt(const AdaptationPlan& plan) {
  if (session_) session_->send(StartAdaptation{plan});
}
void RunModel::freeze_adaptation(bool frozen) {
  if (session_) session_->send(FreezeAdaptation{frozen});
}
void RunModel::revert_adaptation() {
  if (session_) session_->send(RevertAdaptation{});
}

}  // namespace switchyard
