// Writes the table of assets/help/families.md from the registry: one golden of each family is opened and its plan
// is described. family_table FILE GOLDENS writes, family_table --check FILE GOLDENS compares (a CTest entry).
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "engine/backend/backend.h"
#include "engine/model/checkpoint.h"
#include "engine/model/families/families.h"

using namespace switchyard;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kBegin = "<!-- table of the registry: written by family_table, not by hand -->\n";
constexpr std::string_view kEnd = "<!-- end of the table -->\n";

// Texts in the order of their first appearance, each once.
class Words {
 public:
  void add(const std::string& word) {
    if (!word.empty() && std::find(words_.begin(), words_.end(), word) == words_.end()) words_.push_back(word);
  }
  std::string text() const { return fmt::format("{}", fmt::join(words_, ", ")); }

 private:
  std::vector<std::string> words_;
};

void describe(const AttentionSpec& a, Words& words) {
  if (a.cross) return words.add("cross-attention");
  words.add(a.causal ? "grouped-query" : "encoder self-attention");
  if (a.qk_norm != QkNorm::kNone) words.add("q/k norm");
  if (a.sliding_window > 0) words.add("window");
  if (a.chunk > 0) words.add("chunks");
  if (a.sinks) words.add("sinks");
  if (a.temperature_floor > 0) words.add("query temperature");
  if (a.gate) words.add("output gate");
  if (a.mask_a) words.add("dynamic mask");
  if (a.position_bias) words.add("position bias");
}

std::string mixers(const ModelPlan& plan) {
  Words words;
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op)) describe(*a, words);
      if (std::holds_alternative<LatentAttentionSpec>(sublayer.op)) words.add("latent (MLA)");
      if (std::holds_alternative<MixtureAttentionSpec>(sublayer.op)) words.add("mixture of attention heads");
      if (std::holds_alternative<LightningSpec>(sublayer.op)) words.add("lightning linear attention");
      if (std::holds_alternative<DeltaNetSpec>(sublayer.op)) words.add("gated delta net");
      if (std::holds_alternative<MambaSpec>(sublayer.op)) words.add("Mamba");
      if (std::holds_alternative<ShortConvSpec>(sublayer.op)) words.add("short convolution");
    }
  return words.text();
}

std::string_view score(ScoreFn fn) {
  switch (fn) {
    case ScoreFn::kSoftmaxAll: return "softmax, top-k";
    case ScoreFn::kSoftmaxTopK: return "top-k, softmax";
    case ScoreFn::kSigmoid: return "sigmoid, top-k";
    case ScoreFn::kSigmoidTopK: return "top-k, sigmoid";
    case ScoreFn::kSparseMixer: return "sparsemixer";
    case ScoreFn::kNone: return "top-k";
  }
  return "";
}

std::string router(const ModelPlan& plan) {
  Words words;
  const RouterSpec& spec = plan.routed(int(plan.rows.size()) - 1).router;
  words.add(std::string(score(spec.score)));
  if (spec.product_key) words.add("product keys");
  if (spec.has_logit_bias) words.add("logit bias");
  if (spec.has_select_bias) words.add("selection bias");
  if (spec.groups > 1) words.add("groups");
  if (spec.capacity != Capacity::kNone) words.add("capacity");
  if (spec.apply == ApplyTo::kInput) words.add("weighs the input");
  return words.text();
}

std::string experts(const ModelPlan& plan) {
  Words words;
  for (const LayerPlan& layer : plan.layers)
    if (const MoeSpec* moe = layer.find<MoeSpec>()) {
      switch (moe->expert.kind) {
        case FfnKind::kGlu: words.add("gated"); break;
        case FfnKind::kGluOss: words.add("gated, clamped, biased"); break;
        case FfnKind::kGluDouble: words.add("gated twice"); break;
        case FfnKind::kMlp: words.add("two matrices"); break;
        case FfnKind::kRankOne: words.add("rank one"); break;
      }
      if (moe->shared) words.add(moe->shared_gate ? "gated shared expert" : "shared expert");
      if (moe->identity_experts > 0) words.add("identity experts");
    }
  return words.text();
}

std::string_view oracle(Oracle oracle) {
  return oracle == Oracle::kTransformers ? "transformers 5.23, fp32" : "an independent NumPy computation";
}

// The first golden, by name, of each model_type.
std::map<std::string, Checkpoint> goldens(const fs::path& folder) {
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(folder))
    if (fs::exists(entry.path() / "config.json")) cases.push_back(entry.path());
  std::sort(cases.begin(), cases.end());
  std::map<std::string, Checkpoint> found;
  for (const fs::path& path : cases)
    if (auto checkpoint = open_checkpoint(path.string())) {
      const std::string family = checkpoint->plan.family;
      found.emplace(family, std::move(*checkpoint));
    }
  return found;
}

// Fails (empty text) where a family of the registry has no golden.
std::string table(const fs::path& folder) {
  const auto found = goldens(folder);
  std::string text(kBegin);
  text += "\n| model_type | token mixers | router | experts | runs on | checked against | notes |\n";
  text += "|---|---|---|---|---|---|---|\n";
  for (const Family& family : families()) {
    auto at = found.find(std::string(family.model_type));
    if (at == found.end() && family.nested) at = found.find(std::string(family.model_type) + "_text");
    if (at == found.end()) {
      std::cerr << "the registry has " << family.model_type << ", tests/goldens has no checkpoint of it\n";
      return {};
    }
    const ModelPlan& plan = at->second.plan;
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", family.model_type, mixers(plan), router(plan),
                        experts(plan), missing_on_cpu(plan).empty() ? "cpu, reference" : "reference",
                        oracle(family.oracle), family.note);
  }
  return text + "\n" + std::string(kEnd);
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  const bool check = !words.empty() && words[0] == "--check";
  if (words.size() != (check ? 3u : 2u)) {
    std::cerr << "usage: family_table [--check] FILE GOLDENS\n";
    return 2;
  }
  const std::string& file = words[check ? 1 : 0];
  std::ifstream in(file);
  std::stringstream stored;
  stored << in.rdbuf();
  std::string page = stored.str();
  const size_t begin = page.find(kBegin), end = page.find(kEnd);
  if (begin == std::string::npos || end == std::string::npos) {
    std::cerr << file << " has no place for the table\n";
    return 1;
  }
  const std::string made = table(words.back());
  if (made.empty()) return 1;
  std::string wanted = page;
  wanted.replace(begin, end + kEnd.size() - begin, made);
  if (check && wanted != page) {
    std::cerr << file << " is not what the registry says; run: family_table " << file << " tests/goldens\n" << made;
    return 1;
  }
  if (!check) std::ofstream(file) << wanted;
  return 0;
}
