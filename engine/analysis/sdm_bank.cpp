// See sdm_bank.h.
#include "engine/analysis/sdm_bank.h"

#include <algorithm>
#include <set>

#include "engine/routing/scheme_stages.h"

namespace switchyard {

SdmBankBuilder::SdmBankBuilder(const ModelPlan& plan, int most, BankLabels labels, uint64_t seed)
    : plan_(plan), most_(size_t(most)), labels_(labels), random_(seed), rows_(plan.rows.size()) {}

// Every token has the same chance to stay.
void SdmBankBuilder::keep(Sample& sample, Point point) {
  const uint64_t place = sample.seen++ < most_ ? sample.points.size() : random_() % sample.seen;
  if (place < sample.points.size())
    sample.points[place] = std::move(point);
  else if (sample.points.size() < most_)
    sample.points.push_back(std::move(point));
}

void SdmBankBuilder::add(int row, std::span<const float> input, ExpertId prediction, int domain, bool calibrates) {
  Row& at = rows_[size_t(row)];
  std::vector<uint64_t>& chosen = at.chosen[domain];
  chosen.resize(size_t(plan_.routed(row).router.experts));
  ++chosen[prediction];
  keep(calibrates ? at.calibration : at.exemplars, {{input.begin(), input.end()}, prediction, domain});
}

ExpertId SdmBankBuilder::label(const Row& row, const Point& point) const {
  if (labels_ == BankLabels::kOwn) return point.prediction;
  const std::vector<uint64_t>& chosen = row.chosen.at(point.domain);
  return static_cast<ExpertId>(std::max_element(chosen.begin(), chosen.end()) - chosen.begin());
}

// A class without calibration points would make d 0 for every token, so its exemplars go; the distances are then made
// again.
SdmBank SdmBankBuilder::bank_of(const Row& row, BankRow& facts) const {
  std::set<ExpertId> dropped;
  for (;;) {
    SdmBank bank;
    std::map<ExpertId, std::vector<float>> classes;
    for (const Point& point : row.exemplars.points) {
      const ExpertId own = label(row, point);
      if (dropped.contains(own)) continue;
      bank.exemplars.values.insert(bank.exemplars.values.end(), point.input.begin(), point.input.end());
      bank.exemplars.cols = int64_t(point.input.size());
      ++bank.exemplars.rows;
      bank.labels.push_back(own);
      bank.predictions.push_back(point.prediction);
      classes[own];
    }
    std::vector<float> work(bank.labels.size());
    facts = {
        .exemplars = int(bank.labels.size()), .classes = int(classes.size()), .classes_dropped = int(dropped.size())};
    for (const Point& point : row.calibration.points) {
      const ExpertId own = label(row, point);
      if (dropped.contains(own)) continue;
      const stages::Trust trust = stages::trust_of(bank, point.input, point.prediction, work);
      if (trust.q == 0 || !classes.contains(own)) {
        ++facts.left_out;
        continue;
      }
      ++facts.points;
      classes[own].push_back(static_cast<float>(trust.nearest));
    }
    const size_t before = dropped.size();
    for (auto& [expert, distances] : classes) {
      if (distances.empty()) dropped.insert(expert);
      std::sort(distances.begin(), distances.end());
      bank.classes.push_back({expert, std::move(distances)});
    }
    if (dropped.size() == before) return bank;
  }
}

Result<BuiltBank> SdmBankBuilder::build() const {
  BuiltBank out;
  for (int row = 0; row < int(rows_.size()); ++row) {
    const int layer = plan_.moe_layers[size_t(row)];
    if (out.file.layers.contains(layer))
      return fail(ErrorCode::kUsage, "has two routers, a bank holds one for a layer.", plan_.row_name(row));
    BankRow facts;
    SdmBank bank = bank_of(rows_[size_t(row)], facts);
    if (bank.labels.empty())
      return fail(ErrorCode::kUsage, "no exemplar is left: no calibration point was routed like its nearest exemplars.",
                  plan_.row_name(row), "Give more texts.");
    out.file.layers[layer].bank = std::move(bank);
    out.rows.push_back(facts);
  }
  return out;
}

}  // namespace switchyard
