// The registry: what `analyze` prints carries the numbers of specs/analyses.md under the names of specs/cli-json.md, and
// tables are made of the same object.
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/analysis/analysis.h"
#include "engine/analysis/esft.h"
#include "engine/analysis/result_table.h"
#include "tests/analysis/check_traces.h"
#include "tests/analysis/expect_fields.h"

namespace switchyard::testing {
namespace {

using Document = nlohmann::ordered_json;
using nlohmann::json;

TraceShape shape_of(const CheckTrace& trace) {
  TraceShape shape;
  shape.rows = trace.layers, shape.experts = trace.experts, shape.k = trace.k;
  shape.tokens = trace.tokens, shape.sequences = trace.sequences;
  for (int l = 0; l < trace.layers; ++l) shape.layers.push_back(l);
  for (int d = 0; d < trace.domains; ++d) shape.domains.push_back("domain " + std::to_string(d));
  for (const AnalysisInfo& info : analyses()) shape.fields.insert(shape.fields.end(), info.needs.begin(), info.needs.end());
  return shape;
}

json run(const std::string& name, const CheckTrace& trace, const AnalysisOptions& options = {}, int piece = 33) {
  const AnalysisInfo* info = find_analysis(name);
  auto made = info->make(shape_of(trace), options);
  EXPECT_TRUE(made) << made.error().message();
  if (!made) return {};
  const SlabTrace slabs(trace, name != "entropy");  // its checks are of double precision
  for (int walk = 0; walk < (*made)->walks(); ++walk) {
    EXPECT_TRUE((*made)->begin(walk));
    slabs.walk(piece, [&](const RoutingSlab& slab, int row) { EXPECT_TRUE((*made)->feed(walk, slab, row)); });
  }
  return json::parse((*made)->result().dump());
}

// A field of the check, taken from the object itself, or from its layers: all of them, or the one that is asked for.
json taken(const json& object, const json& check, const std::string& field) {
  if (object.contains(field)) return object[field];
  if (!object.contains("layers")) return {};
  if (check["params"].contains("layer")) return object["layers"][check["params"]["layer"].get<int>()].value(field, json());
  json out;
  for (const json& layer : object["layers"]) out.push_back(layer.value(field, json()));
  if (check["analysis"] != "domain" || field == "mean_cv_across_domains") return out;
  json by_domain;  // the check file lists domains first
  for (size_t d = 0; d < out[0].size(); ++d)
    for (size_t l = 0; l < out.size(); ++l) by_domain[d].push_back(out[l][d]);
  return by_domain;
}

class NamedChecks : public ::testing::TestWithParam<const char*> {};

TEST_P(NamedChecks, AreInTheObjectByName) {
  int compared = 0, fields = 0;
  for (json check : checks_of(GetParam())) {
    const CheckTrace& trace = trace_named(check["input"]);
    const json& params = check["params"];
    if (params.contains("tokens") || (params.contains("k") && params["k"] != trace.k)) continue;
    AnalysisOptions options;
    options.min_count = params.value("min_count", uint64_t(8));
    options.batch_tokens = params.value("batch_tokens", 0);
    options.top = params.value("top", 10);
    options.neighbours = params.contains("mode");
    options.matrices = true;
    if (params.contains("m")) options.windows = {params["m"]};
    if (std::string(GetParam()) == "cohort") options.domain_a = "domain 0", options.domain_b = "domain 1";
    json object = run(GetParam(), trace, options);
    if (object.contains("windows")) object = object["windows"][0];
    if (object.contains("transitions")) {
      const json transitions = object["transitions"];
      object = {};
      for (const json& one : transitions)
        if (one["from"] == params["from"] && one["to"] == params["to"]) object = one;
    }
    if (object.contains("top1"))
      for (const char* field : {"mi_bits", "uncertainty", "expected_max_p", "marginal_max"}) object[field] = object["top1"][field];
    // Weights are float32 in a trace.
    if (std::string(GetParam()) == "saliency") check["tolerance"] = 1e-7;
    for (const auto& [field, want] : check["expected"].items()) {
      const json have = field == "top1_pairs" && object.contains("top1") ? object["top1"]["top_pairs"]
                        : field == "topk_pairs" && object.contains("topk") ? object["topk"]["top_pairs"]
                                                                           : taken(object, check, field);
      if (have.is_null() || (have.is_array() && have[0].is_null()) || field == "top1" || field == "topk" || field == "pairs") continue;
      expect_equal(have, want, check.value("tolerance", 1e-9), check["id"].get<std::string>() + " " + field);
      ++fields;
    }
    ++compared;
  }
  EXPECT_GE(compared, 1);
  EXPECT_GE(fields, compared);
}

INSTANTIATE_TEST_SUITE_P(Registry, NamedChecks,
                         ::testing::Values("load", "balance-loss", "entropy", "coactivation", "domain", "vocabulary", "repetition", "srp", "affinity",
                                           "next-layer-prediction", "saliency", "long-tail", "cohort"),
                         [](const auto& info) { std::string name = info.param; std::replace(name.begin(), name.end(), '-', '_'); return name; });

TEST(Registry, LogitsStandInForRecordedEntropies) {
  TraceShape shape{.rows = 1, .experts = 4, .k = 2};
  shape.fields = {"/routing/expert_id"};
  EXPECT_THAT(missing_fields(*find_analysis("entropy"), shape), ::testing::ElementsAre("/routing/entropy"));
  shape.fields.push_back("/routing/router_logits");
  EXPECT_THAT(missing_fields(*find_analysis("entropy"), shape), ::testing::IsEmpty());
}

TEST(Registry, SharesOfHopsThatStayOnAGpu) {
  int compared = 0;
  for (const auto& check : checks_of("same-gpu")) {
    AnalysisOptions options;
    options.gpus = {check["params"]["gpus"]};
    const json object = run("affinity", trace_named(check["input"]), options);
    json got = {{"fraction_all", object["same_gpu"][0]["fraction"]}};
    for (const json& one : object["transitions"]) got["fraction"].push_back(one["same_gpu"][0]["fraction"]);
    expect_fields(check, got, {"same"});
    ++compared;
  }
  EXPECT_EQ(compared, 4);
  AnalysisOptions uneven;
  uneven.gpus = {3};
  EXPECT_EQ(find_analysis("affinity")->make(shape_of(mt1()), uneven).error().code, ErrorCode::kUsage);
}

TEST(Registry, EveryAnalysisGivesTheSameObjectHoweverTheTraceIsCut) {
  for (const AnalysisInfo& info : analyses()) {
    SCOPED_TRACE(info.name);
    const json whole = run(info.name, syn(), {}, 100'000), cut = run(info.name, syn(), {}, 7);
    expect_equal(cut, whole, 1e-12, info.name);
  }
}

TEST(Registry, EveryAnalysisHasARowInItsHelpPage) {
  std::ifstream page(SWITCHYARD_SOURCE_DIR "/assets/help/analyses.md");
  const std::string text{std::istreambuf_iterator<char>(page), {}};
  for (const AnalysisInfo& info : analyses()) EXPECT_NE(text.find("| `" + std::string(info.name) + "` |"), std::string::npos) << info.name;
}

TEST(Registry, NamesWhatATraceLacks) {
  TraceShape shape = shape_of(mt1());
  std::erase(shape.fields, "/sequences/domain");
  EXPECT_EQ(missing_fields(*find_analysis("domain"), shape), std::vector<std::string>{"/sequences/domain"});
  EXPECT_TRUE(missing_fields(*find_analysis("load"), shape).empty());
  EXPECT_EQ(find_analysis("nonsense"), nullptr);
}

// gating.md: unrounded [.30,.25,.20,.15,.10], P = .5 gives {0, 1}.
TEST(Esft, TheExpertThatCrossesTheThresholdIsIn) {
  const double scores[] = {.30, .25, .20, .15, .10};
  EXPECT_EQ(esft_set(scores, 0.5, 4), (std::vector<ExpertId>{0, 1}));
  EXPECT_EQ(esft_set(scores, 0.55, 4), (std::vector<ExpertId>{0, 1}));
  EXPECT_EQ(esft_set(scores, 0, 4), std::vector<ExpertId>{});
  const double close[] = {.10004, .10001, .3};  // equal after rounding: the lower id first
  EXPECT_EQ(esft_set(close, 0.35, 4), (std::vector<ExpertId>{2, 0}));
}

TEST(ResultTable, ListsBecomeColumnsAndPairsBecomeRows) {
  const auto tables = result_tables(Document::parse(R"({"mean":1.5,"layers":[{"layer":3,"cv":0.25,"counts":[1,2],"top_pairs":[{"i":0,"j":1,"count":7}]},
      {"layer":4,"cv":null,"counts":[3,4],"top_pairs":[]}],"cosine":[[1.0,0.5],[0.5,1.0]]})"));
  ASSERT_EQ(tables.size(), 5u);
  EXPECT_EQ(tables[0].name, "summary");
  EXPECT_EQ(tables[1].name, "layers");
  EXPECT_EQ(tables[1].columns, (std::vector<std::string>{"layer", "cv"}));
  EXPECT_EQ(csv_of(tables[1]), "layer,cv\r\n3,0.25\r\n4,\r\n");
  EXPECT_EQ(tables[2].name, "layers.top_pairs");
  EXPECT_EQ(csv_of(tables[2]), "layer,i,j,count\r\n3,0,1,7\r\n");
  EXPECT_EQ(tables[3].name, "layers.counts");
  EXPECT_EQ(csv_of(tables[3]), "layer,index,counts\r\n3,0,1\r\n3,1,2\r\n4,0,3\r\n4,1,4\r\n");
  EXPECT_EQ(tables[4].name, "cosine");
}

TEST(ResultTable, TextIsQuotedForEachFormat) {
  ResultTable table{"t", {"a|b", "x_y"}, {{"=1+1, \"now\"", 0.1}, {"50 % & more", nullptr}}};
  EXPECT_EQ(csv_of(table), "a|b,x_y\r\n\"'=1+1, \"\"now\"\"\",0.1\r\n50 % & more,\r\n");
  EXPECT_EQ(markdown_of(table), "| a\\|b | x_y |\n| --- | --- |\n| =1+1, \"now\" | 0.1 |\n| 50 % & more |  |\n");
  const std::string latex = latex_of(table, "A & B");
  EXPECT_NE(latex.find("50 \\% \\& more &  \\\\"), std::string::npos);
  EXPECT_NE(latex.find("x\\_y"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::testing
