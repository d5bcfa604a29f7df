// A walk hands out what the file holds, whatever it is cut into, filtered or joined with.
#include <cmath>
#include <fstream>
#include <map>
#include <numeric>
#include <tuple>

#include <gtest/gtest.h>

#include "engine/trace/compare.h"
#include "engine/trace/file.h"
#include "engine/trace/walk.h"
#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

constexpr uint64_t kTokens = 5'300;  // beyond the stretch with a wider slot axis

std::vector<std::unique_ptr<TraceReader>> readers(std::initializer_list<std::filesystem::path> paths) {
  std::vector<std::unique_ptr<TraceReader>> out;
  for (const auto& path : paths) {
    auto reader = TraceReader::open(path);
    EXPECT_TRUE(reader) << reader.error().message();
    out.push_back(std::move(*reader));
  }
  return out;
}

TEST(TraceWalk, GivesEveryValueInOrder) {
  const Folder folder;
  const SyntheticShape shape{.taps = Taps::kOutNorm | Taps::kPredGate};
  record_synthetic(folder / "a.moetrace.h5", shape, kTokens);
  auto walk = TraceWalk::of(readers({folder / "a.moetrace.h5"}));
  ASSERT_TRUE(walk) << walk.error().message();
  EXPECT_EQ(walk->shape().rows, shape.layers);
  EXPECT_EQ(walk->shape().k, shape.k + 2);
  EXPECT_EQ(walk->shape().sequences, 6u);
  EXPECT_TRUE(walk->shape().ranked);
  walk->carry({"/routing/weight", "/routing/router_logits", "/routing/entropy", "/tokens/token_id", "/routing/out_norm", "/routing/block_cos", "/routing/pred_gate_id"});
  uint64_t token = 0;
  ASSERT_TRUE(walk->run([&](const RoutingSlab& slab) -> Result<void> {
    EXPECT_EQ(slab.first_token, token);
    EXPECT_TRUE(slab.block_cos.empty());  // not recorded
    for (int t = 0; t < slab.tokens; ++t, ++token) {
      EXPECT_EQ(slab.sequence[t], token / shape.sequence_tokens);
      EXPECT_EQ(slab.position[t], token % shape.sequence_tokens);
      EXPECT_EQ(slab.token_ids[t], TokenId(token * 5 % 50'000));
      for (int row = 0; row < slab.rows; ++row) {
        const auto chosen = slab.token(row, t);
        for (int slot = 0; slot < slab.k; ++slot) {
          const bool used = slot < synthetic_k(shape, token);
          EXPECT_EQ(chosen[slot], used ? synthetic_id(shape, token, row, slot) : kNoExpert);
          EXPECT_EQ(slab.guessed_of(row, t)[slot], used && row > 0 ? synthetic_guess(shape, token, row, slot) : kNoExpert);
          if (used) {
            EXPECT_EQ(slab.of_row(slab.weights, row)[size_t(t) * slab.k + slot], synthetic_weight(token, row, slot));
            EXPECT_EQ(slab.of_row(slab.out_norm, row)[size_t(t) * slab.k + slot], synthetic_norm(token, row, slot));
          }
        }
        EXPECT_EQ(slab.of_row(slab.router_logits, row)[size_t(t) * slab.experts + 5], synthetic_logit(token, row, 5));
        EXPECT_EQ(slab.of_row(slab.entropy, row)[t], synthetic_stats(token, row).entropy);
      }
    }
    return {};
  }));
  EXPECT_EQ(token, kTokens);
}

// Two texts of an encoder-decoder: 3 tokens encoded and 2 decoded, then 1 and 4. Each part is a sequence of its own whose
// tokens pass the rows of their side alone; what is summed at the close agrees.
TEST(TraceWalk, CountsTheSidesOfAnEncoderDecoderApart) {
  const Folder folder;
  const auto path = folder / "sides.moetrace.h5";
  const SyntheticShape shape{.layers = 3, .experts = 8, .k = 2, .taps = 0};
  TraceHeader header = synthetic_header(shape);
  header.router_names = {"encoder layer 0", "encoder layer 1", "decoder layer 0"};
  header.moe_layers = {0, 1, 2};
  const std::string sides = "eeedd" "edddd";
  auto recorder = *TraceRecorder::create(path, header);
  for (uint64_t t = 0; t < sides.size(); ++t) {
    if (t % 5 == 0) {
      ASSERT_TRUE(recorder->begin_sequence(uint32_t(t / 5), 0));
    }
    if (t == 0) {
      ASSERT_TRUE(recorder->begin_epoch(0, 0, "{}"));
    }
    const RoutingFrame whole = synthetic_frame(shape, t);
    RoutingFrame frame(3, shape.experts, shape.k, shape.capture);
    frame.header() = whole.header();
    frame.header().flags = FrameFlags::kPartial;
    for (int row = sides[t] == 'e' ? 0 : 2; row < (sides[t] == 'e' ? 2 : 3); ++row) {
      const Decision decision{.k_used = whole.layer(row).k_used, .stats = whole.layer(row).stats};
      frame.record(row, decision, whole.ids(row), whole.weights(row), whole.kinds(row), whole.logits(row));
    }
    ASSERT_TRUE(recorder->append(frame));
  }
  ASSERT_TRUE(recorder->close());
  EXPECT_TRUE(verify_trace(path)->problems.empty());

  auto walk = *TraceWalk::of(readers({path}));
  EXPECT_EQ(walk.shape().sides, 2);
  std::vector<std::tuple<int, int, uint64_t, std::vector<uint32_t>, std::vector<uint32_t>>> seen;  // rows, first token, sequences, positions
  ASSERT_TRUE(walk.run([&](const RoutingSlab& slab) -> Result<void> {
    seen.emplace_back(slab.begin_row, slab.end_row, slab.first_token, std::vector(slab.sequence.begin(), slab.sequence.end()), std::vector(slab.position.begin(), slab.position.end()));
    return {};
  }));
  const decltype(seen) wanted = {{0, 2, 0, {0, 0, 0}, {0, 1, 2}}, {2, 3, 3, {1, 1}, {0, 1}}, {0, 2, 5, {2}, {0}}, {2, 3, 6, {3, 3, 3, 3}, {0, 1, 2, 3}}};
  EXPECT_EQ(seen, wanted);

  const auto windows_of = [&](const WalkFilter& filter) {
    auto chosen = *TraceWalk::of(readers({path}), filter);
    const AnalysisInfo& info = *find_analysis("srp");
    AnalysisOptions options;
    options.windows = {2};
    std::vector<std::unique_ptr<Analysis>> analyses;
    analyses.push_back(*info.make(chosen.shape(), options));
    EXPECT_TRUE(run_analyses(chosen, analyses, 2));
    return analyses[0]->result()["windows"][0]["layers"].size();
  };
  EXPECT_EQ(windows_of({}), 3u);
  EXPECT_EQ(windows_of({.layers = {2}}), 1u);  // of the decoder alone: slabs of the encoder feed nothing
  const auto file = *TraceFile::open(path);
  const auto histogram = *file->aggregate<uint64_t>("/agg/srp_hist_m4", size_t(3 * shape.experts * 5));
  const auto total = [&](int row) { return std::accumulate(histogram.begin() + row * shape.experts * 5, histogram.begin() + (row + 1) * shape.experts * 5, uint64_t(0)); };
  EXPECT_EQ(total(0), 0u);                          // no text has four encoded tokens
  EXPECT_EQ(total(2), uint64_t(shape.experts));     // one window of four decoded ones
  const auto probabilities = *file->aggregate<double>("/agg/prob_sum", size_t(3 * shape.experts));
  EXPECT_NEAR(std::accumulate(probabilities.begin(), probabilities.begin() + shape.experts, 0.0), 4, 1e-9);  // of 4 encoded tokens
  EXPECT_NEAR(std::accumulate(probabilities.end() - shape.experts, probabilities.end(), 0.0), 6, 1e-9);      // of 6 decoded ones
}

TEST(TraceWalk, FiltersLayersAndPhasesAndJoinsTraces) {
  const Folder folder;
  const SyntheticShape shape;
  record_synthetic(folder / "a.moetrace.h5", shape, 1'500);
  record_synthetic(folder / "b.moetrace.h5", shape, 100);
  WalkFilter filter;
  filter.layers = {3, 5};  // the synthetic rows are layers 1, 3, 5
  filter.phase = 1;
  auto walk = TraceWalk::of(readers({folder / "a.moetrace.h5", folder / "b.moetrace.h5"}), filter);
  ASSERT_TRUE(walk) << walk.error().message();
  EXPECT_EQ(walk->shape().layers, (std::vector<int>{3, 5}));
  EXPECT_EQ(walk->shape().tokens, 1'600u);
  EXPECT_EQ(walk->shape().sequences, 3u);
  uint64_t counted = 0;
  std::map<uint32_t, int> of_sequence;
  ASSERT_TRUE(walk->run([&](const RoutingSlab& slab) -> Result<void> {
    for (int t = 0; t < slab.tokens; ++t) {
      ++of_sequence[slab.sequence[t]];
      counted += slab.mask[t];
      EXPECT_EQ(slab.mask[t], slab.position[t] >= 20);
      const uint64_t token = slab.sequence[t] == 2 ? slab.position[t] : slab.sequence[t] * 1000 + slab.position[t];
      EXPECT_EQ(slab.token(1, t)[0], slab.mask[t] ? synthetic_id(shape, token, 2, 0) : kNoExpert);
    }
    return {};
  }));
  EXPECT_EQ(counted, 1'600u - 60);
  EXPECT_EQ(of_sequence, (std::map<uint32_t, int>{{0, 1000}, {1, 500}, {2, 100}}));
  filter.layers = {2};
  EXPECT_EQ(TraceWalk::of(readers({folder / "a.moetrace.h5"}), filter).error().code, ErrorCode::kUsage);
  filter.layers = {}, filter.domain = "code";
  EXPECT_NE(TraceWalk::of(readers({folder / "a.moetrace.h5"}), filter).error().what.find("no domain code"), std::string::npos);
}

TEST(TraceWalk, DomainsOfSequencesComeBackAndSurviveRecovery) {
  const Folder folder;
  const SyntheticShape shape;
  TraceHeader header = synthetic_header(shape);
  header.domains = {"code", "talk"};
  {
    auto recorder = TraceRecorder::create(folder / "a.moetrace.h5", header);
    ASSERT_TRUE(recorder) << recorder.error().message();
    for (uint64_t token = 0; token < 60; ++token) {
      if (token % 20 == 0) {
        ASSERT_TRUE((*recorder)->begin_sequence(uint32_t(token / 20), 20, {.domain = uint16_t(token / 20 % 2), .source_id = 7 + token / 20}));
      }
      ASSERT_TRUE((*recorder)->append(synthetic_frame(shape, token)));
    }
    ASSERT_TRUE((*recorder)->close());
  }
  const auto recovered = recover_trace(folder / "a.moetrace.h5", folder / "b.moetrace.h5", false);
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_TRUE(recovered->problems.empty());
  for (const char* name : {"a.moetrace.h5", "b.moetrace.h5"}) {
    const auto reader = TraceReader::open(folder / name);
    ASSERT_TRUE(reader) << reader.error().message();
    EXPECT_EQ(*(*reader)->domain_names(), (std::vector<std::string>{"code", "talk"}));
    EXPECT_EQ(*(*reader)->sequence_domains(), (std::vector<uint16_t>{0, 1, 0}));
    EXPECT_EQ(*(*reader)->sequence_sources(), (std::vector<uint64_t>{7, 8, 9}));
  }
  WalkFilter filter;
  filter.domain = "talk";
  auto walk = TraceWalk::of(readers({folder / "b.moetrace.h5"}), filter);
  ASSERT_TRUE(walk) << walk.error().message();
  ASSERT_TRUE(walk->run([&](const RoutingSlab& slab) -> Result<void> {
    for (int t = 0; t < slab.tokens; ++t) EXPECT_EQ(slab.mask[t], slab.domain[t] == 1);
    return {};
  }));
}

TEST(TraceWalk, RefusesTracesOfDifferentModels) {
  const Folder folder;
  record_synthetic(folder / "a.moetrace.h5", {}, 100);
  record_synthetic(folder / "b.moetrace.h5", {.layers = 2}, 100);
  const auto walk = TraceWalk::of(readers({folder / "a.moetrace.h5", folder / "b.moetrace.h5"}));
  ASSERT_FALSE(walk);
  EXPECT_NE(walk.error().where.find("b.moetrace.h5"), std::string::npos);
}

struct Packs : ::testing::TestWithParam<std::tuple<SyntheticShape, bool>> {};

// Every value is there, reals to 16 bits where asked; the sums are those of the recording; verify finds nothing.
TEST_P(Packs, HoldTheSameRows) {
  const Folder folder;
  const auto& [shape, half] = GetParam();
  record_synthetic(folder / "a.moetrace.h5", shape, kTokens);
  const auto report = pack_trace(folder / "a.moetrace.h5", folder / "b.moetrace.h5", half, false);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_TRUE(report->problems.empty()) << report->problems[0];
  EXPECT_LT(std::filesystem::file_size(folder / "b.moetrace.h5"), std::filesystem::file_size(folder / "a.moetrace.h5") * 3 / 4);
  const auto traces = readers({folder / "a.moetrace.h5", folder / "b.moetrace.h5"});
  EXPECT_EQ(traces[1]->info().tokens, kTokens);
  EXPECT_EQ(traces[1]->info().fields, traces[0]->info().fields);
  EXPECT_EQ(*traces[1]->sequence_offsets(), *traces[0]->sequence_offsets());
  EXPECT_EQ(traces[1]->epochs()->size(), traces[0]->epochs()->size());
  if (!half) {
    EXPECT_EQ(synthetic_difference(*traces[1], shape), "");
    return;
  }
  for (int row = 0; row < shape.layers; ++row) {
    EXPECT_EQ(*traces[1]->expert_ids(row, 0, kTokens), *traces[0]->expert_ids(row, 0, kTokens));
    EXPECT_EQ(*traces[1]->scalar("lse", row, 0, kTokens), *traces[0]->scalar("lse", row, 0, kTokens));
    const auto exact = *traces[0]->router_logits(row, 0, 100), kept = *traces[1]->router_logits(row, 0, 100);
    EXPECT_EQ(exact, kept);  // sixteenths below 8 fit 11 bits
    const auto weights = *traces[0]->weights(row, 0, 100), reduced = *traces[1]->weights(row, 0, 100);
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(reduced[i], weights[i], 0.0005 * std::abs(weights[i]));
  }
  EXPECT_EQ(pack_trace(folder / "b.moetrace.h5", folder / "c.moetrace.h5", false, false).error().code, ErrorCode::kMalformed);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Packs,
                         ::testing::Combine(::testing::Values(SyntheticShape{}, SyntheticShape{2, 256, 8, CaptureLevel::kLogits}), ::testing::Bool()));

TEST(Pack, RefusesDamage) {
  const Folder folder;
  const SyntheticShape shape;
  {
    auto recorder = TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header(shape));
    ASSERT_TRUE(recorder) << recorder.error().message();
    for (uint64_t token = 0; token < 700; ++token) ASSERT_TRUE((*recorder)->append(synthetic_frame(shape, token)));
    ASSERT_TRUE((*recorder)->close());
  }
  ASSERT_TRUE(pack_trace(folder / "a.moetrace.h5", folder / "b.moetrace.h5", true, false));
  std::fstream file(folder / "a.moetrace.h5", std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const float marked = synthetic_logit(350, 1, 0);  // a row of logits in the middle
  std::string pattern;
  for (int e = 0; e < 8; ++e) {
    const float logit = synthetic_logit(350, 1, e);
    pattern.append(reinterpret_cast<const char*>(&logit), 4);
  }
  const size_t at = bytes.find(pattern);
  ASSERT_NE(at, std::string::npos) << marked;
  file.clear();
  file.seekp(std::streamoff(at));
  file.write("\x01\x02\x03\x04", 4);
  file.close();
  const auto refused = pack_trace(folder / "a.moetrace.h5", folder / "c.moetrace.h5", false, false);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("checksum of /routing/router_logits"), std::string::npos) << refused.error().message();
  EXPECT_FALSE(std::filesystem::exists(folder / "c.moetrace.h5"));
}

// Three sequences each, written in opposite orders and with other routing in one token; joined by source id.
TEST(CompareTraces, JoinsBySourceAndFindsWhereRoutingDiffers) {
  const Folder folder;
  const SyntheticShape shape;
  TraceHeader header = synthetic_header(shape);
  header.domains = {""};
  const auto write = [&](const std::filesystem::path& path, std::vector<uint64_t> sources, uint64_t changed) {
    auto recorder = TraceRecorder::create(path, header);
    ASSERT_TRUE(recorder) << recorder.error().message();
    for (size_t s = 0; s < sources.size(); ++s) {
      ASSERT_TRUE((*recorder)->begin_sequence(uint32_t(s), 20, {.source_id = sources[s]}));
      for (uint64_t token = 10 * sources[s]; token < 10 * sources[s] + 10; ++token) {
        RoutingFrame frame = synthetic_frame(shape, token == changed ? token + 1 : token);
        frame.header().token_id = TokenId(token);
        ASSERT_TRUE((*recorder)->append(frame));
      }
    }
    ASSERT_TRUE((*recorder)->close());
  };
  write(folder / "a.moetrace.h5", {1, 2, 3}, 0);
  write(folder / "b.moetrace.h5", {3, 1}, 14);
  const auto traces = readers({folder / "a.moetrace.h5", folder / "b.moetrace.h5"});
  const auto found = compare_traces(*traces[0], *traces[1]);
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->tokens, 20u);
  EXPECT_EQ(found->left_out_base, 10u);
  EXPECT_EQ(found->left_out_other, 0u);
  EXPECT_EQ(found->equal_tokens, 19u);
  EXPECT_EQ(found->first_difference, (std::vector<uint64_t>{1, 0, 0}));
  // Token 15's experts stand seven further on than token 14's: of four neighbours among 16 none is shared.
  EXPECT_DOUBLE_EQ(found->rows[1].overlap[0], 19.0 / 20);
  EXPECT_DOUBLE_EQ(found->rows[1].overlap[3], 19.0 / 20);
  EXPECT_DOUBLE_EQ(found->rows[1].jaccard, 19.0 / 20);
  record_synthetic(folder / "c.moetrace.h5", shape, 30);
  const auto refused = compare_traces(*traces[0], *readers({folder / "c.moetrace.h5"})[0]);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("token 0 is id 0, token 0 of"), std::string::npos) << refused.error().message();
}

TEST(RunAnalyses, StopsWhenCancelledAndKeepsTheFirstError) {
  const Folder folder;
  record_synthetic(folder / "a.moetrace.h5", {}, 100);
  auto walk = TraceWalk::of(readers({folder / "a.moetrace.h5"}));
  ASSERT_TRUE(walk);
  std::vector<std::unique_ptr<Analysis>> load;
  load.push_back(std::move(*find_analysis("load")->make(walk->shape(), {})));
  Task task;
  task.cancel();
  EXPECT_EQ(run_analyses(*walk, load, 2, &task).error().code, ErrorCode::kCancelled);
  EXPECT_TRUE(run_analyses(*walk, load, 2));
  EXPECT_EQ(load[0]->result()["layers"].size(), 3u);
}

}  // namespace
}  // namespace switchyard::testing
