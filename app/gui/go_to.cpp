// "5", "layer 5", "expert 12", "token 66" and words of the text. GUI thread.
#include "app/gui/go_to.h"

#include <algorithm>

#include <QRegularExpression>

#include "app/session/run_model.h"

namespace switchyard {
namespace {

constexpr int kMostTextHits = 20;

void add_layers(RunModel& model, std::vector<PaletteItem>& out) {
  const auto& layers = model.data().plan->moe_layers;
  for (size_t row = 0; row < layers.size(); ++row)
    out.push_back({QObject::tr("layer %1").arg(layers[row]), QObject::tr("go to"), {}, {}, [&model, row] {
                     model.select(Selection{int(row), model.selection().expert, std::nullopt});
                   }});
}

void add_expert(RunModel& model, int expert, std::vector<PaletteItem>& out) {
  if (expert >= model.data().plan->max_experts()) return;
  out.push_back({QObject::tr("expert %1").arg(expert),
                 QObject::tr("in layer %1").arg(model.model_layer()),
                 {},
                 {},
                 [&model, expert] {
                   model.select(Selection{model.selection().moe_layer, expert, std::nullopt});
                 }});
}

void add_token(RunModel& model, uint64_t token, std::vector<PaletteItem>& out) {
  const auto& data = model.data();
  if (token >= data.tokens()) return;
  const QString piece = token < data.pieces.size() ? QString::fromStdString(data.pieces[token]) : QString();
  out.push_back({QObject::tr("token %1 “%2”").arg(token).arg(piece),
                 token < data.prompt_tokens ? QObject::tr("prompt") : QObject::tr("generated"),
                 {},
                 {},
                 [&model, token] { model.set_cursor(token); }});
}

}  // namespace

std::vector<PaletteItem> go_to_items(RunModel& model, const QString& query, bool all) {
  std::vector<PaletteItem> out;
  if (!model.data().plan) return out;
  if (all || query.trimmed().startsWith("l", Qt::CaseInsensitive)) add_layers(model, out);
  static const QRegularExpression number("(\\d+)");
  if (const auto found = number.match(query); found.hasMatch()) {
    const int value = found.captured(1).toInt();
    add_expert(model, value, out);
    add_token(model, uint64_t(value), out);
  }
  const QString text = query.trimmed();
  if (!all || text.isEmpty()) return out;
  int hits = 0;
  const auto& data = model.data();
  for (uint64_t i = 0; i < data.tokens() && hits < kMostTextHits; ++i) {
    if (i >= data.pieces.size() || !QString::fromStdString(data.pieces[i]).contains(text, Qt::CaseInsensitive))
      continue;
    add_token(model, i, out);
    ++hits;
  }
  return out;
}

}  // namespace switchyard
