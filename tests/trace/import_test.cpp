// Importers: dumps that encode one routing agree on it, real samples give the numbers of their READMEs
// (tests/data/foreign), and each trap of formats.md section 1 is met.
#include <zlib.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/trace/import/pickle.h"
#include "tests/trace/foreign.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;

class Import : public ::testing::Test {
 protected:
  fs::path target() const { return folder_ / "out.moetrace.h5"; }

  Result<ImportReport> run(const std::string& format, const fs::path& source, dumps::ImportOptions options = {}) {
    return import_trace({format, source, target(), options, true});
  }
  ImportReport imported(const std::string& format, const fs::path& source, dumps::ImportOptions options = {}) {
    auto report = run(format, source, options);
    EXPECT_TRUE(report) << source << ": " << report.error().message();
    return report ? *report : ImportReport{};
  }
  void expect_refused(const std::string& format, const fs::path& source, const std::string& message, dumps::ImportOptions options = {},
               ErrorCode code = ErrorCode::kMalformed) {
    fs::remove(target());
    const auto report = run(format, source, options);
    ASSERT_FALSE(report) << source;
    EXPECT_NE(report.error().message().find(message), std::string::npos) << report.error().message();
    EXPECT_EQ(report.error().code, code) << report.error().message();
    EXPECT_FALSE(fs::exists(target()));
    EXPECT_FALSE(fs::exists(target().string() + ".part"));
  }
  fs::path write(const std::string& name, const std::string& bytes) {
    put_bytes(folder_ / name, bytes);
    return folder_ / name;
  }
  std::unique_ptr<TraceReader> open() {
    auto reader = TraceReader::open(target());
    EXPECT_TRUE(reader) << reader.error().message();
    const auto verified = verify_trace(target());
    EXPECT_TRUE(verified && verified->problems.empty()) << (verified ? verified->problems[0] : verified.error().message());
    return reader ? std::move(*reader) : nullptr;
  }
  // Counts by row and expert, from /agg.
  std::vector<std::vector<uint64_t>> counts() {
    const auto reader = open();
    const auto sums = reader->counts();
    EXPECT_TRUE(sums) << sums.error().message();
    std::vector<std::vector<uint64_t>> out;
    const size_t experts = size_t(reader->info().experts);
    for (size_t at = 0; at < sums->count.size(); at += experts) out.emplace_back(sums->count.begin() + ptrdiff_t(at), sums->count.begin() + ptrdiff_t(at + experts));
    return out;
  }

  Folder folder_;
};

// A literal with zero bytes in it.
template <size_t N>
std::string literal(const char (&text)[N]) {
  return {text, N - 1};
}

std::vector<std::vector<uint64_t>> true_counts() {
  std::vector<std::vector<uint64_t>> out;
  for (const auto& [layer, row] : truth().counts) out.push_back(row);
  return out;
}

dumps::ImportOptions moe_layers() {
  dumps::ImportOptions options;
  options.moe_layers = {1, 2, 3, 4};
  return options;
}

// The choices of every token are those of the truth: in its order where the trace is ranked, else as sets. Logits that
// were rounded to bf16 can tie, so their order is not the truth's.
void expect_true_choices(const TraceReader& reader, bool as_sets = false) {
  const Truth& want = truth();
  ASSERT_EQ(reader.info().moe_layers, want.layers);
  for (size_t row = 0; row < want.layers.size(); ++row) {
    const auto ids = reader.expert_ids(int(row), 0, reader.info().tokens);
    ASSERT_TRUE(ids) << ids.error().message();
    for (uint64_t t = 0; t < reader.info().tokens; ++t) {
      std::vector<int> have, of_truth = want.ids.at(want.layers[row])[t];
      for (int slot = 0; slot < reader.info().top_k; ++slot) have.push_back((*ids)[t * size_t(reader.info().top_k) + size_t(slot)]);
      if (!reader.info().ranked || as_sets) std::sort(have.begin(), have.end()), std::sort(of_truth.begin(), of_truth.end());
      ASSERT_EQ(have, of_truth) << "layer " << want.layers[row] << ", token " << t;
    }
  }
}

// Every importer agrees on the counts of the one routing. Ground truth: made-by-us/routing.json.
TEST_F(Import, AgreesOnTheOneRouting) {
  const fs::path passes = folder_ / "passes";
  fs::create_directory(passes);
  for (const char* rank : {"0", "1"}) fs::copy_file(foreign(std::string("sglang/made_by_us_per_pass_rank") + rank + ".pt"), passes / ("recorder_" + std::string(rank) + ".pt"));
  struct Case {
    std::string format;
    fs::path source;
    dumps::ImportOptions options;
    bool counts_only;
  };
  const std::vector<Case> cases = {{"sglang", foreign("sglang/made_by_us_stat.pt"), {}, true},
                                   {"sglang", passes, {}, true},
                                   {"sglang", foreign("sglang/made_by_us_per_token.pt"), {}, false},
                                   {"sglang", foreign("sglang/made_by_us_logical_count.json"), {}, true},
                                   {"vllm", foreign("vllm/made_by_us_completion.json"), moe_layers(), false},
                                   {"vllm", foreign("vllm/made_by_us_routed_experts.npy"), moe_layers(), false},
                                   {"megatron", foreign("megatron/made_by_us_router_trace_rank0.jsonl"), {}, false},
                                   {"imatrix", foreign("imatrix/made_by_us_moe.gguf"), {}, true},
                                   {"imatrix", foreign("imatrix/made_by_us_moe_in_sum.gguf"), {}, true},
                                   {"reap", foreign("reap/made_by_us_observer.pt"), {}, true},
                                   {"moe-vis", foreign("moe-vis/made_by_us_expert_trace.jsonl"), {}, false},
                                   {"moe-vis", foreign("moe-vis/made_by_us_activations.npz"), {}, true}};
  for (const Case& one : cases) {
    for (const std::string& format : {one.format, std::string("auto")}) {
      if (format == "auto" && one.source.extension() == ".npy") continue;  // an npy array has no name in it
      SCOPED_TRACE(format + " " + one.source.string());
      const ImportReport report = imported(format, one.source, one.options);
      EXPECT_EQ(report.format, one.format);
      EXPECT_EQ(report.trace.moe_layers, truth().layers);
      EXPECT_EQ(report.trace.experts, truth().experts);
      EXPECT_EQ(report.trace.counts_only, one.counts_only);
      EXPECT_FALSE(report.lacks.empty());
      EXPECT_EQ(counts(), true_counts());
    }
    if (one.counts_only) continue;
    EXPECT_EQ(open()->info().top_k, truth().k);
    expect_true_choices(*open(), one.format == "megatron");
  }
}

TEST_F(Import, SglangPerTokenKeepsTokensPositionsAndPhases) {
  imported("sglang", foreign("sglang/made_by_us_per_token.pt"));
  const auto reader = open();
  EXPECT_EQ(reader->info().sequences, 1u) << "prefill and decode steps are one sequence, joined by position";
  const auto ids = *reader->token_ids(0, 48);
  const auto positions = *reader->token_column("position", 0, 48), phases = *reader->token_column("phase", 0, 48);
  for (int t = 0; t < 48; ++t) {
    EXPECT_EQ(ids[size_t(t)], 1000 + t);
    EXPECT_EQ(positions[size_t(t)], uint32_t(t));
    EXPECT_EQ(phases[size_t(t)], t < 32 ? 0u : 1u);
  }
}

// Trap a and b: dense layers are no rows, and the layers keep the model's numbers; ordinals are said to be ordinals.
TEST_F(Import, LayersKeepTheirNumbers) {
  EXPECT_EQ(imported("sglang", foreign("sglang/made_by_us_stat.pt")).trace.moe_layers, (std::vector<int>{1, 2, 3, 4}));
  EXPECT_EQ(imported("vllm", foreign("vllm/made_by_us_completion.json")).trace.moe_layers, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_NE(open()->info().run_json.find("ordinal among the MoE layers"), std::string::npos);
  expect_refused("vllm", foreign("vllm/made_by_us_completion.json"), "--moe-layers names 2 layers, the dump has 4.", [] {
    dumps::ImportOptions options;
    options.moe_layers = {1, 2};
    return options;
  }(), ErrorCode::kUsage);
}

// Trap c: physical ids become logical ones, and the map is kept.
TEST_F(Import, PhysicalExpertsBecomeLogicalOnes) {
  const ImportReport report = imported("sglang", foreign("sglang/made_by_us_per_pass_rank0.pt"));
  EXPECT_EQ(report.trace.experts, 8);
  const auto run = nlohmann::json::parse(report.trace.run_json);
  EXPECT_EQ(run["kept"]["physical_to_logical_map"][1], (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 3, 5}));
  // Physical counts of layer 1 on a rank: 0 19 0 9 16 12 3 16 13 8 (README), slots 8 and 9 are copies of 3 and 5; half of both ranks.
  const std::vector<uint64_t> sum = true_counts()[0], one = counts()[0];
  imported("sglang", foreign("sglang/made_by_us_per_pass_rank1.pt"));
  for (size_t e = 0; e < 8; ++e) EXPECT_EQ(one[e] + counts()[0][e], sum[e]);
}

// Trap d: weights decide the order where they are there; without them no order is claimed.
TEST_F(Import, SlotsAreRankedByWeightOrNotAtAll) {
  EXPECT_TRUE(imported("moe-vis", foreign("moe-vis/made_by_us_expert_trace.jsonl")).trace.ranked);
  EXPECT_TRUE(imported("megatron", foreign("megatron/made_by_us_router_trace_rank0.jsonl")).trace.ranked) << "by the logits beside it; its ids are ascending";
  EXPECT_FALSE(imported("vllm", foreign("vllm/made_by_us_completion.json")).trace.ranked);
  const auto reader = open();
  const auto sums = reader->counts();
  ASSERT_TRUE(sums);
  // A sixth of the weights: "0.4" ties with "0.4", lower id first; 0.5 first though it stands last.
  write("expert_weights_1.txt", "5\t2\t7\t\t0.4\t0.4\t0.5\n");
  dumps::ImportOptions options;
  options.experts = 8, options.top_k = 3;
  imported("esft", folder_.path(), options);
  EXPECT_EQ(*open()->expert_ids(0, 0, 1), (std::vector<ExpertId>{7, 2, 5}));
  EXPECT_EQ(*open()->weights(0, 0, 1), (std::vector<float>{0.5f, 0.4f, 0.4f}));
}

// Trap e: -1 is an empty slot, never an expert.
TEST_F(Import, MinusOneIsAnEmptySlot) {
  imported("vllm", foreign("vllm/made_by_us_completion_prefix_cached.json"), moe_layers());
  const auto reader = open();
  EXPECT_EQ(reader->info().experts, 8);
  const auto ids = *reader->expert_ids(0, 0, 48);
  for (size_t t = 0; t < 48; ++t) EXPECT_EQ(ids[2 * t] == kNoExpert, t < 16) << t;
}

// Trap f: weights are stored as given, and the attribute tells whether they sum to 1.
TEST_F(Import, WeightsAreStoredAsGiven) {
  imported("moe-vis", foreign("moe-vis/made_by_us_expert_trace.jsonl"));
  const auto weights = *open()->weights(0, 0, 48);
  for (size_t t = 0; t < 48; ++t)
    for (size_t slot = 0; slot < 2; ++slot) EXPECT_NEAR(weights[2 * t + slot], truth().weights.at(1)[t][slot], 1e-6);
  imported("vllm", foreign("vllm/moe_routes_excerpt.jsonl"));
  const auto raw = *open()->weights(0, 0, 83 + 5);
  double first = 0;
  for (size_t t = 5; t < 88; ++t) first += raw[4 * t];
  EXPECT_NEAR(first, 7.9193, 1e-3) << "README: sum of first weights of the 83 tokens; they sum to less than 1";
}

// Trap g: one row less than tokens is what engines write; more rows than tokens cannot be.
TEST_F(Import, TheLastTokenHasNoRow) {
  auto json = nlohmann::json::parse(bytes_of(foreign("vllm/made_by_us_completion.json")));
  json["choices"][0]["token_ids"].push_back(5);
  EXPECT_EQ(imported("vllm", write("less.json", json.dump())).trace.tokens, 48u);
  json["choices"][0]["token_ids"] = {1, 2};
  expect_refused("vllm", write("more.json", json.dump()), "has 16 rows for 2 tokens");
}

// Trap h: probabilities that pose as logits are asked about.
TEST_F(Import, ProbabilitiesAreNotTakenForLogits) {
  const auto bf16 = [](float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    return std::string{char(bits >> 16 & 0xFF), char(bits >> 24)};
  };
  write("logits_rank0.bin", bf16(0.5f) + bf16(0.25f) + bf16(0.125f) + bf16(0.125f));
  const fs::path trace = write("router_trace_rank0.jsonl",
                               R"({"step":0,"stage":"pre_dispatch","block":"decoder","layer":2,"rank":0,"num_tokens":1,"topk":1,"logit_offset":0,"logit_bytes":8,"logit_shape":[1,4],"top_indices":[[0]]})" "\n");
  expect_refused("megatron", trace, "are probabilities by their look", {}, ErrorCode::kUsage);
  dumps::ImportOptions options;
  options.router_output = dumps::ImportOptions::RouterOutput::kProbabilities;
  imported("megatron", trace, options);
  EXPECT_NEAR((*open()->router_logits(0, 0, 1))[1], std::log(0.25f), 1e-6);
  EXPECT_NEAR((*open()->scalar("entropy", 0, 0, 1))[0], 0.5 * std::log(2) + 0.25 * std::log(4) + 2 * 0.125 * std::log(8), 1e-6);
}

TEST_F(Import, MegatronLeavesOutTheMtpBlockAndReadsLogits) {
  const ImportReport report = imported("megatron", foreign("megatron/made_by_us_router_trace_rank0.jsonl"));
  EXPECT_EQ(counts(), true_counts()) << "layer 1 of the MTP block is not layer 1";
  const auto logits = *open()->router_logits(0, 0, 1);
  // README: first bf16 words 49125 16062 ...
  EXPECT_EQ(logits[0], std::bit_cast<float>(uint32_t(49125) << 16));
  EXPECT_EQ(logits[1], std::bit_cast<float>(uint32_t(16062) << 16));
  EXPECT_EQ(report.trace.sequences, 1u);
}

TEST_F(Import, ReadsTheRealSamples) {
  // gptoss-fingerprint/README.md
  ImportReport report = imported("auto", foreign("gptoss-fingerprint/mmlu_validation-marketing-True_True_examples.json"));
  EXPECT_EQ(report.format, "gpt-oss");
  EXPECT_EQ(report.trace.tokens, 30u);
  EXPECT_EQ(report.trace.layers, 24);
  EXPECT_EQ(counts()[0], (std::vector<uint64_t>{0, 6, 4, 9, 6, 6, 4, 4, 0, 12, 3, 6, 1, 2, 2, 1, 6, 6, 0, 1, 0, 4, 5, 4, 2, 4, 4, 4, 5, 1, 4, 4}));
  EXPECT_EQ((*open()->token_column("position", 0, 1))[0], 146u);
  EXPECT_EQ(*open()->expert_ids(0, 0, 1), (std::vector<ExpertId>{31, 21, 22, 6}));
  EXPECT_EQ((*open()->weights(0, 0, 1))[0], 0.48828125f);
  report = imported("auto", foreign("gptoss-fingerprint/mmlu_test-high_school_us_history-False_True.json"));
  EXPECT_EQ(counts()[0], (std::vector<uint64_t>{25, 69, 101, 32, 27, 16, 86, 104, 10, 130, 79, 325, 30, 128, 48, 24, 196, 37, 27, 9, 46, 50, 131, 36, 56, 133, 25, 21, 14, 22, 5, 2}));
  expect_refused("gpt-oss", foreign("gptoss-fingerprint/topical_all.json"), "ranks the experts of each layer and counts nothing", {}, ErrorCode::kMalformed);
  // sglang/README.md: dense layers 0 to 2 are rows of zeros
  report = imported("auto", foreign("sglang/expert_workload_layers0-5.json"));
  EXPECT_EQ(report.trace.moe_layers, (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(report.trace.top_k, 0);
  const auto workload = counts();
  EXPECT_EQ(std::vector<uint64_t>(workload[0].begin(), workload[0].begin() + 8), (std::vector<uint64_t>{23992, 21271, 21136, 84409, 57423, 18000, 37389, 47147}));
  for (const auto& row : workload) EXPECT_EQ(std::accumulate(row.begin(), row.end(), uint64_t(0)), 4877312u);
  dumps::ImportOptions eight;
  eight.top_k = 8;
  EXPECT_EQ(imported("sglang", foreign("sglang/expert_workload_layers0-5.json"), eight).trace.tokens, 609'664u);
  // plumb/README.md
  imported("auto", foreign("plumb/mixtral-8x7b-synthetic.json"));
  EXPECT_EQ(counts()[0], (std::vector<uint64_t>{3171, 2863, 5280, 6724, 3906, 2757, 2758, 5309}));
  EXPECT_EQ(counts()[31], (std::vector<uint64_t>{1930, 3882, 5240, 7320, 4574, 3306, 2773, 3743}));
  expect_refused("plumb", foreign("plumb/eplb_comparison_20260515.json"), "a summary, not a report of plumb");
  expect_refused("plumb", foreign("plumb/olmoe_1b7b_eplb_ep4_20260515.json"), "a summary, not a report of plumb");
  // moe-routing-atlas/README.md
  for (const char* name : {"moe-routing-atlas/merged_test.jsonl", "moe-routing-atlas/test_traces_combined.json"}) {
    report = imported("auto", foreign(name));
    EXPECT_EQ(report.trace.sequences, 2u);
    EXPECT_EQ(counts(), (std::vector<std::vector<uint64_t>>{{0, 1, 1, 0, 0, 0, 0, 0}, {0, 0, 0, 1, 1, 0, 0, 0}}));
  }
  // vllm/README.md
  dumps::ImportOptions sixty;
  sixty.experts = 60;
  imported("auto", foreign("vllm/moe_routes_excerpt.jsonl"), sixty);
  std::vector<uint64_t> want{3, 12, 2, 5, 6, 10, 0, 6, 3, 4, 7, 2, 9, 3, 9, 6, 6, 6, 4, 6, 2, 7, 4, 4, 8, 4, 6, 5, 5, 2, 4, 7, 8, 3, 12, 9, 9, 5, 10, 5, 6, 3, 5, 6, 3, 4, 8, 7, 8, 2, 8, 8, 4, 2, 9, 5, 1, 2, 8, 5};
  for (const size_t e : {43, 5, 7, 58}) want[e] += 5;
  EXPECT_EQ(counts()[0], want);
  // moe-vis tables are shares, not counts; eplb/README.md
  for (const char* name : {"moe-vis/category_expert_fraction.csv", "moe-vis/specialization_significant.csv", "moe-vis/ablation_validation.csv"})
    expect_refused("auto", foreign(name), "no routing, and no counts by layer");
  expect_refused("sglang", foreign("eplb/readme_phy2log.json"), "is a placement of experts");
  imported("sglang", foreign("eplb/readme_weight.json"));
  EXPECT_EQ(counts()[0], (std::vector<uint64_t>{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}));
}

TEST_F(Import, ReapGivesItsSums) {
  imported("reap", foreign("reap/made_by_us_observer.pt"));
  const auto reader = open();
  EXPECT_EQ(reader->info().tokens, 48u);
  EXPECT_EQ(reader->info().top_k, 2);
  const auto sums = *reader->counts();
  // Layer 3: reap = reap_sum / count, README; weight sums from routing.json.
  const double reap[] = {0.28014, 0.37429, 0.38308, 0.45386, 0, 0, 0.7005, 0.65933};
  for (size_t e = 0; e < 8; ++e) {
    EXPECT_NEAR(sums.weight_sum[2 * 8 + e], truth().weight_sums.at(3)[e], 1e-5);
    if (sums.count[2 * 8 + e] == 0) continue;
    EXPECT_NEAR(sums.reap_sum[2 * 8 + e] / double(sums.count[2 * 8 + e]), reap[e], 1e-4);
  }
}

// A trace of counts says by name what it does not have.
TEST_F(Import, CountsOnlyTracesRefuseByName) {
  imported("sglang", foreign("sglang/made_by_us_stat.pt"), [] {
    dumps::ImportOptions options;
    options.top_k = 2;
    return options;
  }());
  const auto reader = open();
  EXPECT_EQ(reader->info().tokens, 48u);
  EXPECT_EQ(reader->info().capture, CaptureLevel::kOff);
  const auto sums = *reader->counts();
  EXPECT_EQ(sums.passes, 4u) << "two rows of the ring were not used";
  EXPECT_EQ(std::accumulate(sums.pass_count.begin(), sums.pass_count.begin() + 32, 0u), 256u);
  const auto says = [](const auto& result, const std::string& text) {
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message().find(text), std::string::npos) << result.error().message();
  };
  says(reader->expert_ids(0, 0, 48), "the trace has no /routing/expert_id.");
  says(reader->weights(0, 0, 1), "the trace has no /routing/weight.");
  says(reader->token_ids(0, 1), "the trace has no /tokens/token_id.");
  says(reader->sequence_offsets(), "the trace has no /sequences/offset.");
  says(recover_trace(target(), folder_ / "again.moetrace.h5", false), "holds counts only");
  // A dump without tokens ids but with rows: the same, by name.
  imported("vllm", foreign("vllm/made_by_us_routed_experts.npy"));
  says(open()->token_ids(0, 1), "the trace has no /tokens/token_id. What it was imported from does not hold that.");
}

// --- ESFT: the rules of specs/cli-json.md ------------------------------------------------------------------------

TEST_F(Import, EsftReadsPlainAndGzipLayersInNumericOrder) {
  std::map<int, std::string> text;
  for (const int layer : truth().layers) {
    for (int t = 0; t < 48; ++t) {
      const auto& ids = truth().ids.at(layer)[size_t(t)];
      const auto& weights = truth().weights.at(layer)[size_t(t)];
      text[layer] += std::to_string(ids[1]) + "\t" + std::to_string(ids[0]) + "\t\t" + std::to_string(weights[1]) + "\t" + std::to_string(weights[0]) + "\n";
    }
  }
  dumps::ImportOptions options;
  options.experts = 8, options.top_k = 2;
  write("expert_weights_1.txt", text[1]);
  write("expert_weights_2.txt", text[2]);
  write("expert_weights_3.txt", text[3]);
  write("notes.txt", "other files are ignored");
  const gzFile packed = gzopen((folder_ / "expert_weights_4.txt.gz").c_str(), "wb");
  gzwrite(packed, text[4].data(), unsigned(text[4].size()));
  gzclose(packed);
  const ImportReport report = imported("auto", folder_.path(), options);
  EXPECT_EQ(report.format, "esft");
  EXPECT_EQ(report.trace.sequences, 48u) << "a line is a sequence";
  EXPECT_EQ(counts(), true_counts());
  expect_true_choices(*open());
  const auto run = nlohmann::json::parse(report.trace.run_json);
  EXPECT_EQ(run["source"]["files"].size(), 4u);
  EXPECT_EQ(run["source"]["files"][0]["sha256"].get<std::string>().size(), 64u);
}

TEST_F(Import, EsftNamesFileAndLine) {
  dumps::ImportOptions options;
  options.experts = 8, options.top_k = 2;
  const std::string good = "1\t2\t\t0.5\t0.25\n";
  const auto expect = [&](const std::string& second, const std::string& message) {
    write("expert_weights_1.txt", good + good);
    write("expert_weights_7.txt", good + second);
    expect_refused("esft", folder_.path(), message, options);
  };
  expect("1\t2\t3\t4\t\t0.5\t0.25\n", "expert_weights_7.txt:2: has 4 ids and 2 weights");
  expect("1\t2\t3\t\t0.5\t0.25\t0.1\n", "expert_weights_7.txt:2: has 3 ids, which is not a multiple of k = 2");
  expect("1\t8\t\t0.5\t0.25\n", "expert_weights_7.txt:2: names expert 8, needs 0 to 7");
  expect("-1\t2\t\t0.5\t0.25\n", "expert_weights_7.txt:2: names expert -1, needs 0 to 7");
  expect("2\t2\t\t0.5\t0.25\n", "expert_weights_7.txt:2: names expert 2 twice in token 0");
  expect("1\t2\t0.5\t0.25\n", "expert_weights_7.txt:2: has no double tab");
  expect("1\tx\t\t0.5\t0.25\n", "expert_weights_7.txt:2: value 2 is \"x\", which is not a number");
  expect("1\t2\t\t0.5\tnan\n", "expert_weights_7.txt:2: value 2 is \"nan\", which is not a number");
  expect("1\t2\t3\t4\t\t0.5\t0.25\t0.1\t0.1\n", "expert_weights_7.txt:2: has 2 tokens, the line has 1 in expert_weights_1.txt");
  expect("", "expert_weights_7.txt:1: ends after this line; expert_weights_1.txt goes on");
  expect(good + good, "expert_weights_7.txt:3: has a line that expert_weights_1.txt has not");
  expect_refused("esft", folder_ / "nowhere", "could not be opened", options, ErrorCode::kNotFound);
  options.top_k = 9;
  expect_refused("esft", folder_.path(), "--top-k 9 of --experts 8", options, ErrorCode::kUsage);
  put_bytes(folder_ / "expert_weights_1.txt", "");
  fs::remove(folder_ / "expert_weights_7.txt");
  options.top_k = 2;
  expect_refused("esft", folder_.path(), "holds no token", options);
}

TEST_F(Import, EsftRealLogs) {
  const fs::path logs = fs::path(SWITCHYARD_SOURCE_DIR) / "../shared/data/router-logs/esft/intent";
  if (!fs::exists(logs)) GTEST_SKIP() << "the shared logs are not beside this checkout";
  const ImportReport report = imported("esft", logs);
  EXPECT_EQ(report.trace.tokens, 8222u);
  EXPECT_EQ(report.trace.sequences, 127u);
  EXPECT_EQ(report.trace.layers, 26);
  EXPECT_EQ(report.trace.moe_layers.front(), 1);
  const auto expected = nlohmann::json::parse(bytes_of(logs / "expected.json"));
  const auto have = counts();
  for (size_t row = 0; row < 26; ++row) EXPECT_EQ(have[row], expected["load"]["layers"][row]["counts"].get<std::vector<uint64_t>>());
}

// --- The formats of which no sample is stored: written here from formats.md -----------------------------------------

std::string npy(const std::string& descr, const std::string& shape, const std::string& values) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  return literal("\x93NUMPY\x01\x00") + char(header.size() & 0xFF) + char(header.size() >> 8) + header + values;
}

template <class T>
void put_value(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

TEST_F(Import, ExflowIsFirstChoices) {
  std::string values;
  for (int t = 0; t < 48; ++t)
    for (const int layer : truth().layers) put_value(values, int64_t(truth().ids.at(layer)[size_t(t)][0]));
  const ImportReport report = imported("auto", write("trace.npy", npy("<i8", "(48, 4)", values)), moe_layers());
  EXPECT_EQ(report.format, "exflow");
  EXPECT_EQ(report.trace.top_k, 1);
  EXPECT_TRUE(report.trace.ranked);
  const auto ids = *open()->expert_ids(2, 0, 48);
  for (size_t t = 0; t < 48; ++t) EXPECT_EQ(ids[t], truth().ids.at(3)[t][0]);
  expect_refused("exflow", write("object.npy", npy("|O", "(48, 4)", values)), "Objects would be a program");
  expect_refused("exflow", write("short.npy", npy("<i8", "(4800, 4)", values)), "its 1536 bytes hold 192 values");
}

TEST_F(Import, OlmoeJsonlHasItsSlotsBeforeItsLayers) {
  nlohmann::json line{{"input_ids", nlohmann::json::array()}, {"predicted_token_ids", nlohmann::json::array()}, {"exp_ids", nlohmann::json::array()}};
  for (int t = 0; t < 48; ++t) {
    line["input_ids"].push_back(1000 + t);
    line["predicted_token_ids"].push_back(0);
    nlohmann::json token = nlohmann::json::array();
    for (int slot = 0; slot < 2; ++slot) {
      token.push_back(nlohmann::json::array());
      for (const int layer : truth().layers) token.back().push_back(truth().ids.at(layer)[size_t(t)][size_t(slot)]);
    }
    line["exp_ids"].push_back(token);
  }
  const ImportReport report = imported("auto", write("c4_results.jsonl", line.dump() + "\n"), moe_layers());
  EXPECT_EQ(report.format, "olmoe");
  EXPECT_TRUE(report.trace.ranked);
  expect_true_choices(*open());
  EXPECT_EQ((*open()->token_ids(47, 1))[0], 1047);
}

// What the script pickles: three Counters with numpy numbers as keys. Bytes: pickle.dumps of that, protocol 4.
TEST_F(Import, OlmoeCountersAreReadAndNotRun) {
  const std::string scalar = literal("\x8c\x15numpy.core.multiarray\x8c\x06scalar\x93\x8c\x05numpy\x8c\x05" "dtype\x93\x8c\x02i8\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb");
  const auto key = [&](char id) { return scalar + "C\x08" + std::string{id, 0, 0, 0, 0, 0, 0, 0} + "\x86R"; };
  const auto counter = [&](char id, char count) { return literal("\x8c\x0b" "collections\x8c\x07" "Counter\x93}") + key(id) + "K" + count + "s\x85R"; };
  const std::string pickle = literal("\x80\x04](") + counter(3, 5) + counter(1, 7) + counter(0, 9) + "e.";
  const ImportReport report = imported("olmoe", write("github.pkl", pickle));
  EXPECT_EQ(report.trace.moe_layers, (std::vector<int>{0, 7, 15}));
  EXPECT_EQ(counts(), (std::vector<std::vector<uint64_t>>{{0, 0, 0, 5}, {0, 7, 0, 0}, {9, 0, 0, 0}}));
}

TEST_F(Import, PicklesThatAskForMoreAreRefusedWithNameAndPlace) {
  expect_refused("olmoe", write("evil.pkl", literal("\x80\x02" "cposix\nsystem\nX\x04\x00\x00\x00" "true\x85R.")),
          "evil.pkl: at byte 2 of its pickle: asks for \"posix.system\", which is not on the list");
  expect_refused("olmoe", write("stack.pkl", literal("\x80\x04\x8c\x08" "builtins\x8c\x04" "eval\x93.")), "at byte 18 of its pickle: asks for \"builtins.eval\"");
  expect_refused("olmoe", write("inst.pkl", literal("\x80\x02(ios\nsystem\n.")), "has the opcode 0x69, which is not on the list");
  expect_refused("olmoe", write("long.pkl", literal("\x80\x02X\xff\xff\xff\x7f")), "needs 2147483647 bytes, 0 are left");
  expect_refused("olmoe", write("empty.pkl", literal("\x80\x02" "a.")), "takes a value from an empty stack");
  expect_refused("olmoe", write("cut.pkl", "\x80\x02"), "needs 1 bytes, 0 are left");
}

TEST_F(Import, MoeLrcLogitsAndRanksAgree) {
  // Logits whose order is the truth's choice: 2 for the first, 1 for the second, less for the others.
  const auto logit = [](int layer, int t, int e) {
    const auto& ids = truth().ids.at(layer)[size_t(t)];
    return e == ids[0] ? 2.0f : e == ids[1] ? 1.0f : -1.0f - float(e) / 8;
  };
  const auto safetensors = [](const std::string& dtype, const std::string& values) {
    const std::string header = R"({"c4":{"dtype":")" + dtype + R"(","shape":[2,24,8],"data_offsets":[0,)" + std::to_string(values.size()) + "]}}";
    std::string out;
    put_value(out, uint64_t(header.size()));
    return out + header + values;
  };
  const fs::path merged = folder_ / "merged", rank = folder_ / "rank";
  fs::create_directory(merged);
  fs::create_directory(rank);
  for (const int layer : truth().layers) {
    std::string bf16, ranks;
    for (int t = 0; t < 48; ++t) {
      for (int e = 0; e < 8; ++e) {
        int below = 0;
        for (int other = 0; other < 8; ++other) below += logit(layer, t, other) < logit(layer, t, e);
        put_value(bf16, uint16_t(std::bit_cast<uint32_t>(logit(layer, t, e)) >> 16));
        put_value(ranks, int8_t(below));
      }
    }
    put_bytes(merged / ("toy_0" + std::to_string(layer) + ".safetensors"), safetensors("BF16", bf16));
    put_bytes(rank / ("toy_0" + std::to_string(layer) + ".safetensors"), safetensors("I8", ranks));
  }
  expect_refused("moe-lrc", merged, "Give --top-k of the model.", {}, ErrorCode::kUsage);
  dumps::ImportOptions options;
  options.top_k = 2;
  for (const fs::path& source : {merged, rank}) {
    const ImportReport report = imported("auto", source, options);
    EXPECT_EQ(report.format, "moe-lrc");
    EXPECT_EQ(report.trace.sequences, 2u);
    EXPECT_TRUE(report.trace.ranked);
    expect_true_choices(*open());
  }
}

TEST_F(Import, CsvOfChoicesAndOfCounts) {
  imported("auto", write("choices.csv", "layer,expert\n3,1\n3,1\n4,0\n"));
  EXPECT_EQ(counts(), (std::vector<std::vector<uint64_t>>{{0, 2}, {1, 0}}));
  imported("csv", write("counts.csv", "layer_id,expert_id,count\n3,1,20\n5,2,7\n"));
  EXPECT_EQ(counts(), (std::vector<std::vector<uint64_t>>{{0, 20, 0}, {0, 0, 7}}));
  EXPECT_EQ(open()->info().moe_layers, (std::vector<int>{3, 5}));
  expect_refused("csv", write("bad.csv", "layer,expert\n3,1\n3,x\n"), "bad.csv:3: \"3,x\" is no layer, expert");
}

TEST_F(Import, SglangResponseNeedsItsShape) {
  std::string bytes;
  for (int t = 0; t < 47; ++t) {  // the last token has no row
    for (int layer = 0; layer < 5; ++layer)
      for (int slot = 0; slot < 2; ++slot) put_value(bytes, int32_t(layer == 0 ? 0 : truth().ids.at(layer)[size_t(t)][size_t(slot)]));
  }
  static const char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; ++i) bits = bits << 8 | (at + i < bytes.size() ? uint8_t(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text += at + i <= bytes.size() ? kLetters[bits >> (18 - 6 * i) & 63] : '=';
  }
  const fs::path response = write("response.json", nlohmann::json{{"text", ""}, {"meta_info", {{"prompt_tokens", 32}, {"completion_tokens", 16}, {"routed_experts", text}}}}.dump());
  expect_refused("auto", response, "Give --layers (num_hidden_layers) and --top-k of the model.", {}, ErrorCode::kUsage);
  dumps::ImportOptions options;
  options.layers = 4, options.top_k = 2;
  expect_refused("auto", response, "needs a multiple of 4 x 4 layers x 2 slots", options);
  options.layers = 5;
  EXPECT_EQ(imported("auto", response, options).trace.tokens, 47u);
  expect_true_choices(*open());
  EXPECT_EQ((*open()->token_column("phase", 31, 2)), (std::vector<uint32_t>{0, 1}));
}

TEST_F(Import, EplbStateIsMappedToLogicalExperts) {
  const ImportReport report = imported("auto", write("state.json", R"({"physical_to_logical_map":[[0,1,2,1]],"expert_load_window":[[[5,1,0,2]],[[0,0,0,0]],[[1,1,1,1]]]})"));
  EXPECT_EQ(report.format, "eplb");
  EXPECT_EQ(counts(), (std::vector<std::vector<uint64_t>>{{6, 5, 1}}));
  expect_refused("eplb", write("rank.json", R"({"physical_to_logical_map":[[0,1,2,1]],"expert_load_window":[[[5,1]]]})"), "the counts of one rank only");
}

TEST_F(Import, LegacyImatrixIsRefusedByName) {
  expect_refused("auto", foreign("imatrix/made_by_us_moe.dat"), "in the older .dat form, which does not count the tokens of each expert");
  std::string dense;
  put_value(dense, int32_t(1));
  put_value(dense, int32_t(21));
  dense += "blk.21.ffn_up.weight.";
  put_value(dense, int32_t(365));
  put_value(dense, int32_t(1));
  put_value(dense, 1.0f);
  expect_refused("imatrix", write("dense.dat", dense), "of a model without experts");
  expect_refused("imatrix", write("cut.dat", dense.substr(0, dense.size() - 2)), "declares 1 values at byte");
}

// vLLM captures that were never filled hold expert 0 everywhere.
TEST_F(Import, UnfilledCapturesAreRefused) {
  expect_refused("vllm", write("zero.npy", npy("<i2", "(2, 2, 1)", std::string(8, '\0'))), "holds nothing but expert 0");
}

TEST_F(Import, OverwritesOnlyWhenTold) {
  imported("sglang", foreign("sglang/made_by_us_stat.pt"));
  const auto again = import_trace({"sglang", foreign("sglang/made_by_us_stat.pt"), target(), {}, false});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kOutput);
  const auto wrong = import_trace({"sglang", foreign("sglang/made_by_us_stat.pt"), folder_ / "out.trace", {}, false});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::kUsage);
}

TEST_F(Import, CancellingLeavesNothing) {
  Task task;
  task.cancel();
  const auto stopped = import_trace({"moe-vis", foreign("moe-vis/made_by_us_expert_trace.jsonl"), target(), {}, true}, &task);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(fs::exists(target()));
  EXPECT_FALSE(fs::exists(target().string() + ".part"));
}

}  // namespace
}  // namespace switchyard::testing
