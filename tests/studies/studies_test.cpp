// Studies over a recorded trace: their documents are those of the command line, their tables hold the numbers of the
// documents, a placement in memory does what the same one in a file does, and what does not fit is refused.
#include <array>
#include <cstdio>
#include <fstream>

#include <gtest/gtest.h>

#include "engine/studies/placement_document.h"
#include "engine/studies/study.h"
#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

constexpr uint64_t kTokens = 2'400;  // three sequences

using Given = std::vector<std::pair<std::string, std::string>>;

class Studies : public ::testing::Test {
 protected:
  void SetUp() override { record_synthetic(path_, shape_, kTokens); }

  Result<StudyResult> run(const std::string& name, const Given& given, const Json* placement = nullptr) {
    const StudyInfo& info = *find_study(name);
    StudyOptions options(info.options);
    for (const auto& [option, value] : given) SY_CHECK(options.set(option, value));
    std::vector<std::unique_ptr<TraceReader>> readers(1);
    SY_TRY(readers[0], TraceReader::open(path_));
    SY_TRY(TraceWalk walk, TraceWalk::of(std::move(readers)));
    Task task;
    return run_study(info, options, {&walk, 1, placement, "in memory"}, task);
  }
  Document document(const std::string& name, const Given& given, const Json* placement = nullptr) {
    auto result = run(name, given, placement);
    EXPECT_TRUE(result) << result.error().message();
    return result ? result->document : Document();
  }
  // What the built program prints.
  Document of_program(const std::string& name, const Given& given) {
    const bool places = find_study(name)->kind == StudyKind::kPlacement;
    std::string line =
        std::string(SWITCHYARD_PROGRAM) + (places ? " place --method " + name + " --trace " + path_.string()
                                                  : " simulate " + path_.string() + " " + name);
    for (const auto& [option, value] : given) line += " --" + option + (value.empty() ? "" : " " + value);
    FILE* pipe = popen((line + " --json 2>/dev/null").c_str(), "r");
    std::string text;
    std::array<char, 65536> piece;
    while (const size_t n = fread(piece.data(), 1, piece.size(), pipe)) text.append(piece.data(), n);
    EXPECT_EQ(pclose(pipe), 0) << line;
    return Document::parse(text, nullptr, false);
  }
  const ResultTable& table(const std::vector<ResultTable>& tables, const std::string& name) {
    for (const ResultTable& one : tables)
      if (one.name == name) return one;
    ADD_FAILURE() << "no table " << name;
    return tables.front();
  }

  const Folder folder_;
  const std::filesystem::path path_ = folder_ / "run.moetrace.h5";
  const SyntheticShape shape_;
};

TEST_F(Studies, ATraceIsWhatItIs) {
  const Document found = document("compare", {{"other", path_.string()}});
  EXPECT_EQ(found["comparison"], "compare");
  EXPECT_EQ(found["tokens"], found["equal_tokens"]);
  EXPECT_EQ(found["other"], found["trace"]);
  ASSERT_FALSE(found["layers"].empty());
  for (const Document& layer : found["layers"]) {
    EXPECT_EQ(layer["jaccard"], 1.0);
    EXPECT_EQ(layer["first_difference"], 0);
    EXPECT_EQ(layer["overlap"][0], 1.0);
  }
  EXPECT_EQ(table(study_tables(found), "layers").rows.size(), found["layers"].size());
  EXPECT_EQ(run("compare", {}).error().code, ErrorCode::kUsage);
  EXPECT_EQ(run("compare", {{"other", (folder_ / "none.moetrace.h5").string()}}).error().code, ErrorCode::kNotFound);
}

TEST_F(Studies, GiveTheDocumentsOfTheCommandLine) {
  const std::vector<std::pair<std::string, Given>> runs = {
      {"cache", {{"policies", "lru,belady,plec"}, {"slots", "4,8"}, {"expert-mb", "2"}, {"bandwidth-gb", "1"}}},
      {"cache", {{"scope", "model"}, {"rule", "moe-lrc"}, {"start", "warm"}, {"step-tokens", "2"}}},
      {"capacity", {{"fill", "prioritised"}, {"group", "100"}, {"factors", "0.5,1"}}},
      {"traffic",
       {{"gpus", "4"},
        {"nodes", "2"},
        {"hidden", "64"},
        {"bandwidth-gb", "10"},
        {"leaves", "2"},
        {"spines", "2"},
        {"draws", "20"}}},
      {"schedule", {{"batch", "4"}, {"limit", "30"}}},
      {"eplb", {{"gpus", "4"}, {"replicas", "20"}, {"window", "500"}}},
      {"affinity", {{"gpus", "4"}, {"sweeps", "100"}, {"seed", "9"}, {"coherent", ""}, {"load-weight", "0.5"}}},
      {"load", {{"gpus", "2"}, {"pairs", "topk"}}},
      {"contiguous", {{"gpus", "8"}}}};
  for (const auto& [name, given] : runs) {
    const Document here = document(name, given);
    EXPECT_EQ(here.dump(), of_program(name, given).dump()) << name;  // the order of members too
    EXPECT_GT(here.size(), 4u);
  }
}

TEST_F(Studies, ACacheCountsHitsAsAPlainListWould) {
  const Document got = document("cache", {{"policies", "lru"}, {"slots", "8"}});
  uint64_t hits = 0, demands = 0;
  std::vector<int> order;  // least recently used first
  for (uint64_t token = 0; token < kTokens; ++token) {
    if (token % shape_.sequence_tokens == 0) order.clear();
    std::vector<int> chosen;
    for (int slot = 0; slot < synthetic_k(shape_, token); ++slot)
      chosen.push_back(synthetic_id(shape_, token, 1, slot));
    demands += chosen.size();
    const auto resident = order;
    for (const int expert : chosen) hits += std::count(resident.begin(), resident.end(), expert);
    for (const int expert : chosen) {
      if (const auto at = std::find(order.begin(), order.end(), expert); at != order.end())
        order.erase(at);
      else if (order.size() == 8)
        order.erase(std::find_if(order.begin(), order.end(), [&](int one) {
          return std::find(chosen.begin(), chosen.end(), one) == chosen.end();
        }));
      order.push_back(expert);
    }
  }
  const Document& layer = got["policies"][0]["sizes"][0]["layers"][1];
  EXPECT_EQ(layer["layer"], 3);  // the synthetic rows are layers 1, 3, 5
  EXPECT_EQ(layer["hits"], hits);
  EXPECT_EQ(layer["demands"], demands);
  EXPECT_GT(hits, 0u);
  EXPECT_LT(hits, demands);
}

TEST_F(Studies, DropRatiosByPositionAreThoseOfTheDocument) {
  const Document got = document("capacity", {{"factors", "0.5,1"}});
  const auto tables = study_tables(got);
  const ResultTable& positions = table(tables, "positions");
  EXPECT_EQ(positions.columns, (std::vector<std::string>{"capacity_factor", "position", "drop_ratio"}));
  size_t row = 0;
  double least = 1, most = 0;
  for (const Document& factor : got["factors"]) {
    for (size_t position = 0; position < factor["demands_by_position"].size(); ++position, ++row) {
      EXPECT_EQ(positions.rows[row][0], factor["capacity_factor"]);
      EXPECT_EQ(positions.rows[row][1], position);
      const double ratio =
          factor["drops_by_position"][position].get<double>() / factor["demands_by_position"][position].get<double>();
      EXPECT_DOUBLE_EQ(positions.rows[row][2].get<double>(), ratio);
      least = std::min(least, ratio), most = std::max(most, ratio);
    }
  }
  EXPECT_EQ(row, positions.rows.size());
  EXPECT_EQ(row, 2u * 1000u);  // the longest sequence
  EXPECT_LT(least, most);
}

TEST_F(Studies, APlacementIsATableOfExperts) {
  const Document got = document("load", {{"gpus", "4"}});
  const auto tables = study_tables(got);
  const ResultTable& experts = table(tables, "experts");
  ASSERT_EQ(experts.rows.size(), 3u * 16u);
  bool moved = false;
  for (int row = 0; row < 3; ++row) {
    for (int expert = 0; expert < 16; ++expert) {
      const Document want = {2 * row + 1, expert, 0, got["placement"][row][expert], expert / 4};
      EXPECT_EQ(Document(experts.rows[size_t(row * 16 + expert)]), want);
      moved = moved || want[3] != want[4];
    }
  }
  EXPECT_TRUE(moved);
  for (const char* key : {"schema", "trace", "method"})
    for (const ResultTable& one : tables) EXPECT_EQ(std::count(one.columns.begin(), one.columns.end(), key), 0);
}

TEST_F(Studies, CopiesStandEachOnItsGpu) {
  const Document got = document("eplb", {{"gpus", "4"}, {"replicas", "20"}});
  const auto tables = study_tables(got);
  const ResultTable& experts = table(tables, "experts");
  ASSERT_EQ(experts.rows.size(), 3u * 20u);
  // Every slot s of a layer, on GPU s / 5, once.
  for (int row = 0; row < 3; ++row) {
    std::vector<std::pair<int, int>> want, have;
    for (int slot = 0; slot < 20; ++slot) want.emplace_back(got["physical_to_logical"][row][slot].get<int>(), slot / 5);
    for (const auto& cells : experts.rows)
      if (cells[0] == 2 * row + 1) have.emplace_back(cells[1].get<int>(), cells[3].get<int>());
    std::sort(want.begin(), want.end());
    std::sort(have.begin(), have.end());
    EXPECT_EQ(have, want);
  }
}

TEST_F(Studies, APlacementInMemoryMovesTheTrafficAsTheSameFileDoes) {
  const Document placed = document("load", {{"gpus", "4"}});
  const auto file = folder_ / "placement.json";
  std::ofstream(file) << placed.dump();
  const Json in_memory(placed);
  Document here = document("traffic", {{"gpus", "4"}}, &in_memory);
  Document there = document("traffic", {{"gpus", "4"}, {"placement", file.string()}});
  const Document plain = document("traffic", {{"gpus", "4"}});
  EXPECT_EQ(here["placement"], "in memory");
  EXPECT_EQ(there["placement"], file.string());
  EXPECT_EQ(plain["placement"], "contiguous");
  EXPECT_EQ(here["layers"], there["layers"]);
  EXPECT_NE(here["layers"], plain["layers"]);
  const auto misfit = run("traffic", {{"gpus", "2"}}, &in_memory);
  ASSERT_FALSE(misfit);
  EXPECT_NE(misfit.error().message().find("is for 4 GPUs, not for 2"), std::string::npos) << misfit.error().message();
}

TEST_F(Studies, RefuseWhatDoesNotFitTogether) {
  const auto message = [&](const std::string& name, const Given& given) {
    const auto result = run(name, given);
    return result ? std::string() : result.error().message();
  };
  EXPECT_NE(message("traffic", {}).find("--gpus: is required"), std::string::npos);
  EXPECT_NE(message("traffic", {{"gpus", "4"}, {"nodes", "3"}}).find("Give a divisor of --gpus"), std::string::npos);
  EXPECT_NE(message("traffic", {{"gpus", "5"}}).find("16 experts do not divide evenly over 5 GPUs"), std::string::npos);
  EXPECT_NE(message("load", {{"gpus", "5"}}).find("16 experts do not divide evenly over 5 GPUs"), std::string::npos);
  EXPECT_NE(message("cache", {{"slots", "3"}}).find("3 slots are too few"), std::string::npos);
  EXPECT_NE(message("cache", {{"slots", "17"}}).find("from 1 to 16"), std::string::npos);
  TraceShape counts;
  counts.counts_only = true;
  for (const StudyInfo& info : studies()) EXPECT_EQ(why_not(info, counts).empty(), !info.needs_tokens) << info.name;
  EXPECT_EQ(why_not(*find_study("cache"), TraceShape{}), "holds no /routing/expert_id.");
}

TEST_F(Studies, EndWhenTheyAreCancelled) {
  std::vector<std::unique_ptr<TraceReader>> readers(1);
  auto reader = TraceReader::open(path_);
  ASSERT_TRUE(reader);
  readers[0] = std::move(*reader);
  auto walk = TraceWalk::of(std::move(readers));
  ASSERT_TRUE(walk);
  Task task;
  task.cancel();
  const auto result = run_study(*find_study("schedule"), StudyOptions(find_study("schedule")->options), {&*walk}, task);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace switchyard::testing
