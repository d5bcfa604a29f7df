// Every case of tests/goldens on every backend that has its kinds, against the numbers beside it
// (expected.json says who computed them). Limits: issue 4, bars. Prints one MEASURED line per case and
// backend, which report.py turns into the table of the closing note.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "tests/backend/harness.h"

// LeakSanitizer's own tracer faults on the thread-local storage of LibTorch's pool when this program ends.
extern "C" const char* __lsan_default_options();
extern "C" const char* __lsan_default_options() {
  return "use_tls=0";
}

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;
const fs::path kGoldens = goldens_folder();

struct Limits {
  double logits = 2e-4;   // relative to max(1, |logit|)
  double weights = 1e-5;  // relative to max(1, routed scale)
  double cut_weights = 2e-5;  // of a prompt in pieces, against the oracle's run in one
};

// The cpu backend multiplies stored bfloat16 and float16 weights with activations of 16 bits.
Limits limits(const std::string& golden, const std::string& backend_name) {
  const bool rounded = golden.ends_with("_bf16") || golden.ends_with("_f16");
  return backend_name == "cpu" && rounded ? Limits{2e-3, 5e-4, 5e-4} : Limits{};
}

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kGoldens))
    if (fs::exists(entry.path() / "config.json")) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// _sharded and _packed folders hold the weights of the plain case in another form.
nlohmann::json wanted(const std::string& name) {
  fs::path folder = kGoldens / name;
  if (!fs::exists(folder / "expected.json")) folder = kGoldens / name.substr(0, name.rfind('_'));
  std::ifstream file(folder / "expected.json");
  return nlohmann::json::parse(file);
}

struct Measured {
  double logits = 0, router_logits = 0, weights = 0;
};

double relative(std::span<const float> got, const nlohmann::json& row) {
  const auto want = row.get<std::vector<float>>();
  if (got.size() != want.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double difference = std::fabs(double(got[i]) - want[i]) / std::max(1.0, std::fabs(double(want[i])));
    worst = difference <= worst ? worst : std::isnan(difference) ? INFINITY : difference;
  }
  return worst;
}

// Slots in order of falling weight, then lower id; slots whose weights rounding could swap may stand either way.
void expect_slots(const RoutingFrame& frame, int row, const nlohmann::json& entry, size_t token, double limit,
                  double scale, Measured& measured) {
  const auto ids = entry.at("experts").at(token).get<std::vector<ExpertId>>();
  const auto weights = entry.at("weights").at(token).get<std::vector<float>>();
  std::vector<ExpertId> got;  // that ran: slots which capacity dropped stand last and are not in the reference
  for (size_t slot = 0; slot < frame.used_ids(row).size(); ++slot)
    if (frame.kinds(row)[slot] != SlotKind::kDropped) got.push_back(frame.used_ids(row)[slot]);
  ASSERT_EQ(got.size(), ids.size()) << "row " << row << ", token " << token;
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    const auto at = std::find(ids.begin(), ids.end(), got[slot]);
    ASSERT_NE(at, ids.end()) << "row " << row << ", token " << token << " selects expert " << got[slot];
    const float want = weights[size_t(at - ids.begin())];
    if (got[slot] != ids[slot]) {
      EXPECT_NEAR(want, weights[slot], 2 * limit) << "row " << row << ", token " << token << ", slot " << slot;
    }
    measured.weights = std::max(measured.weights, std::fabs(double(frame.weights(row)[slot]) - want) / scale);
  }
}

// The rows of `frames[i]` against token `i + first` of the entries, whose rows are counted from `row_of_first`.
void expect_routing(std::span<const RoutingFrame> frames, const nlohmann::json& routing, const ModelPlan& plan,
                    bool encoder_rows, double limit, Measured& measured) {
  size_t next = 0;
  for (int row = 0; row < int(plan.rows.size()); ++row) {
    if (plan.encoder_row(row) != encoder_rows) continue;
    while (next < routing.size() && routing[next].contains("stack") &&
           (routing[next]["stack"] == "encoder") != encoder_rows)
      ++next;
    ASSERT_LT(next, routing.size());
    const nlohmann::json& entry = routing[next++];
    const int layer = plan.moe_layers[size_t(row)] - (encoder_rows || !plan.encoder_layers ? 0 : plan.encoder_layers);
    ASSERT_EQ(entry.at("layer").get<int>(), layer);
    ASSERT_EQ(entry.at("experts").size(), frames.size());
    for (size_t t = 0; t < frames.size(); ++t) {
      const auto want = entry.at("logits").at(t);
      measured.router_logits =
          std::max(measured.router_logits, relative(frames[t].logits(row).first(want.size()), want));
      expect_slots(frames[t], row, entry, t, limit, std::max(1.0f, plan.routed(row).router.scale), measured);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

void expect_logits(const Output& output, const nlohmann::json& want, int vocab, Measured& measured) {
  ASSERT_EQ(output.logits.size(), want.size() * size_t(vocab));
  for (size_t t = 0; t < want.size(); ++t)
    measured.logits = std::max(
        measured.logits, relative(std::span(output.logits).subspan(t * size_t(vocab), size_t(vocab)), want[t]));
}

Output feed_in_pieces(Sequence& sequence, std::span<const TokenId> ids, size_t piece) {
  Output all;
  for (size_t at = 0; at < ids.size(); at += piece) {
    Output part = sequence.feed(ids.subspan(at, std::min(piece, ids.size() - at)));
    all.logits.insert(all.logits.end(), part.logits.begin(), part.logits.end());
    std::move(part.frames.begin(), part.frames.end(), std::back_inserter(all.frames));
  }
  return all;
}

void decoder_only(const std::string& name, const std::string& backend_name, const nlohmann::json& want, bool cuts,
                  Measured& measured, Measured& cut) {
  const ModelPlan& plan = checkpoint(name).plan;
  const auto ids = want.at("ids").get<std::vector<TokenId>>();
  const double weight_limit = limits(name, backend_name).weights;
  Sequence sequence(name, backend_name);
  const Output output = sequence.feed(ids);
  expect_logits(output, want.at("logits"), plan.vocab, measured);
  expect_routing(output.frames, want.at("routing"), plan, false, weight_limit, measured);
  EXPECT_EQ(sequence.greedy(output, int(want.at("greedy_ids").size())),
            want.at("greedy_ids").get<std::vector<TokenId>>());
  for (const size_t piece : cuts ? std::vector<size_t>{1, 3, 7} : std::vector<size_t>{}) {
    SCOPED_TRACE("in pieces of " + std::to_string(piece));
    Sequence again(name, backend_name);
    const Output pieces = feed_in_pieces(again, ids, piece);
    expect_logits(pieces, want.at("logits"), plan.vocab, cut);
    expect_routing(pieces.frames, want.at("routing"), plan, false, weight_limit, cut);
  }
}

// The encoder's tokens at once, then the decoder's one by one, as it generates: a router of limited capacity couples
// those that run together.
void encoder_decoder(const std::string& name, const std::string& backend_name, const nlohmann::json& want,
                     Measured& measured) {
  const ModelPlan& plan = checkpoint(name).plan;
  const auto ids = want.at("ids").get<std::vector<TokenId>>();
  const auto decoder_ids = want.at("decoder_ids").get<std::vector<TokenId>>();
  const auto greedy_ids = want.at("greedy_ids").get<std::vector<TokenId>>();
  const double weight_limit = limits(name, backend_name).weights;
  ASSERT_EQ(decoder_ids.at(0), plan.decoder_start);
  Sequence sequence(name, backend_name);
  const Output encoded = sequence.encode(ids);
  expect_routing(encoded.frames, want.at("routing"), plan, true, weight_limit, measured);
  for (const RoutingFrame& frame : encoded.frames) {
    EXPECT_TRUE(frame.header().flags & FrameFlags::kPartial);
    for (int row = 0; row < int(plan.rows.size()); ++row)
      EXPECT_EQ(frame.layer(row).k_used > 0, plan.encoder_row(row)) << "row " << row;
  }
  const Output decoded = feed_in_pieces(sequence, decoder_ids, 1);
  expect_logits(decoded, want.at("logits"), plan.vocab, measured);
  expect_routing(decoded.frames, want.at("routing"), plan, false, weight_limit, measured);
  for (size_t t = 0; t < greedy_ids.size(); ++t)
    EXPECT_EQ(most_likely(std::span(decoded.logits).subspan(t * size_t(plan.vocab), size_t(plan.vocab))),
              greedy_ids[t]);
}

class Families : public ::testing::TestWithParam<std::string> {};

TEST_P(Families, GivesTheNumbersOfItsReference) {
  const std::string& name = GetParam();
  const ModelPlan& plan = checkpoint(name).plan;
  const auto want_all = wanted(name);
  const bool cuts = !want_all.contains("prefill");
  for (const std::string& backend_name : backend_names()) {
    if (const std::string lacking = backend_name == "cpu" ? missing_on_cpu(plan) : ""; !lacking.empty()) {
      std::cout << "MEASURED " << name << " cpu lacks " << lacking << "\n";
      continue;
    }
    SCOPED_TRACE(backend_name);
    Measured measured, cut;
    for (const auto& want : want_all.at("prompts")) {
      if (plan.encoder_layers > 0)
        encoder_decoder(name, backend_name, want, measured);
      else
        decoder_only(name, backend_name, want, cuts, measured, cut);
    }
    const Limits limit = limits(name, backend_name);
    EXPECT_LE(std::max(measured.logits, cut.logits), limit.logits);
    EXPECT_LE(std::max(measured.router_logits, cut.router_logits), limit.logits);
    EXPECT_LE(measured.weights, limit.weights);
    EXPECT_LE(cut.weights, limit.cut_weights);
    std::cout << "MEASURED " << name << " " << backend_name << " " << plan.family << " "
              << want_all.value("source", "transformers") << " " << measured.logits << " " << measured.router_logits << " "
              << measured.weights << " " << (cuts ? std::to_string(cut.logits) : "whole") << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, Families, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing
