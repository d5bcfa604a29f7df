// Shadow mode of a session: totals, logs and states against the decisions recomputed from the frames.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/hash_session.h"

namespace switchyard {
namespace {

using test::HashSession;
using test::prompt_of;
using testing::HasSubstr;

std::vector<EditCommand> top_k(int k) { return {{TopK{{}, k}, {}}}; }

// Totals of `script` against what ran, from the frames and the epochs.
GateShift expected(const HashSession& s, const SessionSnapshot& now, const std::vector<EditCommand>& script, uint64_t first) {
  const ModelPlan& plan = s.checkpoint.plan;
  ShadowRouter router(plan, {});
  GateShift shift(plan);
  const auto spans = recipe_spans(script, plan);
  for (const auto& frame : now.frames->range(first, now.frames->size())) {
    const uint64_t t = frame->header().token_index;
    const Recipe* base = now.recipe_at(t);
    size_t span = 0;
    while (span + 1 < spans.size() && spans[span + 1].first_token <= t) ++span;
    for (int row = 0; row < 3; ++row) {
      GateDecision a, b;
      router.decide(row, base ? base->layer(row) : nullptr, *frame, a);
      GateDecision recorded = a;
      recorded.select(*frame, row);
      EXPECT_EQ(recorded.runs, a.runs);
      EXPECT_EQ(recorded.weights, a.weights);
      router.decide(row, spans[span].recipe->layer(row), *frame, b);
      shift.feed(row, a, b);
    }
  }
  return shift;
}

void expect_equal(const GateShift& got, const GateShift& want) {
  for (int row = 0; row < want.rows(); ++row) {
    EXPECT_EQ(got.tokens(row), want.tokens(row));
    EXPECT_EQ(got.mean(row), want.mean(row)) << row;
    EXPECT_TRUE(std::ranges::equal(got.moved(row), want.moved(row)));
  }
}

TEST(SessionShadow, CountsWhatOtherRecipesWouldHaveDone) {
  HashSession s;
  const std::vector<EditCommand> late = {{Mute{{{1}}, {2}}, {}}, {TopK{{{2}}, 4}, 25}};
  s->send(SetShadows{{{"one", top_k(1)}, {"late", late}, {"native", {}}}});
  ASSERT_TRUE(s->send(EditCommand{Bias{{{2}}, {3}, 2.0f}, 30}));
  s->send(Start{prompt_of(20), 30});
  const auto now = s->wait();
  ASSERT_FALSE(now->error);
  ASSERT_TRUE(now->shadows);
  ASSERT_EQ(now->shadows->size(), 3u);
  for (const ShadowState& shadow : *now->shadows) {
    SCOPED_TRACE(shadow.name);
    EXPECT_EQ(shadow.unavailable, "");
    EXPECT_EQ(shadow.first_token, 0u);
    EXPECT_EQ(shadow.next_token, 49u);
    const GateShift want = expected(s, *now, shadow.script, 0);
    expect_equal(*shadow.totals, want);
    ASSERT_EQ(shadow.last.size(), 3u);
    uint64_t from = 0;
    const auto log = shadow.tokens->range(from, 100);
    ASSERT_EQ(log.size(), 49u);
    double jaccard = 0, js = 0;
    for (const ShadowToken& token : log) jaccard += token.jaccard, js += token.js;
    EXPECT_NEAR(jaccard / 49, want.mean().jaccard, 1e-6);
    EXPECT_NEAR(js / 49, want.mean().js, 1e-6);
    EXPECT_NEAR(log.back().jaccard, (shadow.last[0].jaccard + shadow.last[1].jaccard + shadow.last[2].jaccard) / 3, 1e-6);
  }
  EXPECT_EQ((*now->shadows)[0].totals->mean(0).extra_experts, -1);
  EXPECT_EQ((*now->shadows)[2].totals->mean(0).jaccard, 1) << "the run is native but in layer 2";
  EXPECT_LT((*now->shadows)[2].totals->mean(1).js + 1, 1 + (*now->shadows)[2].totals->mean(1).kl);
}

TEST(SessionShadow, ChangesNothingOfTheRun) {
  HashSession plain, watched;
  watched->send(SetShadows{{{"a", top_k(1)}, {"b", top_k(4)}}});
  for (HashSession* s : {&plain, &watched}) {
    (*s)->send(Start{prompt_of(20), 30});
    (*s)->wait();
  }
  EXPECT_EQ(plain->snapshot()->generated_ids, watched->snapshot()->generated_ids);
  for (size_t t = 0; t < plain.frames().size(); ++t)
    EXPECT_TRUE(test::same_routing(*plain.frames()[t], *watched.frames()[t]));
}

// Set after the run: what is in memory is compared at once; a rewind counts its own branch.
TEST(SessionShadow, LooksBackAndFollowsBranches) {
  HashSession s;
  s->send(Start{prompt_of(300), 30});
  s->wait();
  s->send(SetShadows{{{"one", top_k(1)}}});
  auto now = s->wait();
  EXPECT_EQ(now->shadows->front().first_token, 329u - 256);
  expect_equal(*now->shadows->front().totals, expected(s, *now, top_k(1), 329 - 256));
  s->send(Rewind{310});
  ASSERT_TRUE(s->send(EditCommand{TopK{{}, 1}, {}}));
  s->send(Play{});
  now = s->wait();
  const ShadowState& shadow = now->shadows->front();
  EXPECT_EQ(shadow.first_token, 310u - 256);
  EXPECT_EQ(shadow.next_token, 329u);
  expect_equal(*shadow.totals, expected(s, *now, top_k(1), 310 - 256));
  EXPECT_EQ(shadow.last, std::vector<GateDifference>(3)) << "the run is under the same edit now";
  s->send(Start{prompt_of(10), 2});
  now = s->wait();
  EXPECT_EQ(now->shadows->front().next_token, 11u);
  EXPECT_EQ(now->shadows->front().totals->tokens(0), 11u);
  s->send(SetShadows{});
  EXPECT_FALSE(s->wait()->shadows);
}

TEST(SessionShadow, SaysWhyItCannotCompare) {
  HashSession s({.capture = CaptureLevel::kWeights, .ignore_eos = true});
  s->send(SetShadows{{{"one", top_k(1)}}});
  s->send(Start{prompt_of(20), 5});
  auto now = s->wait();
  EXPECT_THAT(now->shadows->front().unavailable, HasSubstr("router logits are not captured"));
  EXPECT_EQ(now->shadows->front().totals->tokens(0), 0u);
  s->send(SetCapture{CaptureLevel::kLogits});
  s->send(Play{3});
  now = s->wait();
  EXPECT_EQ(now->shadows->front().unavailable, "");
  EXPECT_EQ(now->shadows->front().totals->tokens(0), 3u);

  Checkpoint model = test::hash_checkpoint();
  std::get<MoeSpec>(model.plan.layers[2].sublayers[0].op).router.capacity = Capacity::kPerSequence;
  HashSession coupled({.ignore_eos = true}, model);
  coupled->send(SetShadows{{{"one", top_k(1)}}});
  coupled->send(Start{prompt_of(20), 5});
  EXPECT_THAT(coupled->wait()->shadows->front().unavailable, HasSubstr("run together"));
}

// Schemes ride on recipes: one that needs the token alone is compared, one that couples tokens says that it is not.
TEST(SessionShadow, ComparesSchemesOfOneTokenAndRefusesCoupledOnes) {
  HashSession s;
  const auto scheme = [](const char* name) { return std::vector<EditCommand>{{SetScheme{{}, *make_scheme({name, {}})}, {}}}; };
  s->send(SetShadows{{{"top-p", scheme("top_p")}, {"balanced", scheme("base_balanced")}}});
  s->send(Start{prompt_of(20), 30});
  const auto now = s->wait();
  ASSERT_FALSE(now->error) << now->error->message();
  EXPECT_EQ((*now->shadows)[0].unavailable, "");
  expect_equal(*(*now->shadows)[0].totals, expected(s, *now, scheme("top_p"), 0));
  EXPECT_NE((*now->shadows)[0].totals->mean(0).extra_experts, 0);
  EXPECT_THAT((*now->shadows)[1].unavailable, HasSubstr("tokens that run together"));
  EXPECT_EQ((*now->shadows)[1].totals->tokens(0), 0u);
}

TEST(SessionShadow, RefusesAllOrNothing) {
  HashSession s;
  s->send(SetShadows{{{"one", top_k(1)}}});
  s->wait();
  s->send(SetShadows{{{"two", top_k(2)}, {"wrong", {{Mute{{{0}}, {1}}, {}}}}}});
  auto now = s->wait();
  EXPECT_THAT(now->error->message(), HasSubstr("shadow recipe wrong"));
  ASSERT_EQ(now->shadows->size(), 1u);
  EXPECT_EQ(now->shadows->front().name, "one");
  s->send(SetShadows{std::vector<ShadowRecipe>(9, {"x", top_k(1)})});
  EXPECT_THAT(s->wait()->error->message(), HasSubstr("9 shadow recipes, at most 8"));
}

}  // namespace
}  // namespace switchyard
