// The four ready-made lists of items. Any thread.
#include <algorithm>

#include "engine/report/request.h"

namespace switchyard {
namespace {

ReportItem item(std::string source, std::string heading = {}, std::string note = {}) {
  ReportItem out;
  out.source = std::move(source), out.heading = std::move(heading), out.note = std::move(note);
  return out;
}

ReportItem with(ReportItem out, std::map<std::string, std::string> options) {
  out.options = std::move(options);
  return out;
}

ReportItem of_other(ReportItem out) {
  out.other = true;
  return out;
}

std::vector<ReportItem> model_card(const TemplateOptions&) {
  return {item("facts"),
          item("load", {}, "Random routing would give every expert the same load: 1 on the scale. MaxVio is the largest load over the mean, minus 1."),
          item("load-over-time"),
          item("entropy", {}, "Entropy in nats: 0 for a router that is always sure. The mutual information is what it owes to the token."),
          item("distribution"),
          item("affinity", {}, "How much the first choice of one layer says about that of the next, against what as few tokens would show by chance."),
          item("repetition"),
          item("domain"),
          with(item("cohort"), {{"resamples", "200"}}),
          item("text"),
          item("edits")};
}

std::vector<ReportItem> before_after(const TemplateOptions&) {
  return {item("facts", "Before"),
          of_other(item("facts", "After")),
          of_other(item("edits", "The edits")),
          item("trace compare", "What changed", "Shared experts of the same tokens, slot for slot. Two routings at random share k / E of them."),
          item("load", "Load before"),
          of_other(item("load", "Load after")),
          item("entropy", "Sharpness before"),
          of_other(item("entropy", "Sharpness after"))};
}

std::vector<ReportItem> pruning_study(const TemplateOptions& options) {
  return {item("facts"),
          item("load"),
          item("long-tail", {}, "How few experts carry 80 and 90 % of the choices."),
          with(item("saliency", {}, "Every criterion on one scale: 0 is the first to go. Hatched: pruned by that criterion."), {{"keep", options.keep > 0 ? std::to_string(options.keep) : std::string("half")}}),
          item("esft"),
          item("logit-similarity", {}, "Experts that the router treats alike are candidates for merging."),
          item("router-similarity"),
          item("note", {}, "`switchyard export MODEL --edits E.json --out DIR` writes the checkpoint without the experts that the edits mute; score it before and after: what is written here says which experts are used, not what the model loses.")};
}

std::vector<ReportItem> placement_study(const TemplateOptions& options) {
  const std::map<std::string, std::string> gpus{{"gpus", std::to_string(options.gpus)}};
  return {item("facts"),
          item("load", {}, "What a placement has to even out."),
          item("affinity", {}, "What a placement can keep on one GPU."),
          with(item("place eplb"), gpus),
          with(item("place affinity"), gpus),
          with(item("simulate traffic", "Traffic of contiguous experts"), gpus),
          item("simulate cache", "Experts on demand")};
}

}  // namespace

std::span<const ReportTemplate> report_templates() {
  static const ReportTemplate list[] = {
      {"model-card", "Model card of routing", "how experts are used, how sure the router is, what follows what", false, model_card},
      {"before-after", "Before and after an edit", "two traces of the same tokens, and the edits between them", true, before_after},
      {"pruning-study", "Pruning study", "criteria side by side, and what each would prune", false, pruning_study},
      {"placement-study", "Placement study", "where experts would best lie, and what moves between GPUs", false, placement_study}};
  return list;
}

const ReportTemplate* find_template(std::string_view name) {
  for (const ReportTemplate& one : report_templates())
    if (name == one.name) return &one;
  return nullptr;
}

}  // namespace switchyard
