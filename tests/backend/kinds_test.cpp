// Every kind of plan.h on every backend against the naive executor in double precision: the golden
// qwen3_moe (dense and MoE layers) with its plan changed, so that new kinds run on existing weights.
#include <gtest/gtest.h>

#include <functional>
#include <iostream>

#include "engine/routing/decision.h"
#include "tests/backend/harness.h"
#include "tests/backend/naive.h"

namespace switchyard::testing {
namespace {

constexpr const char* kModel = "qwen3_moe";
constexpr double kLimit = 2e-4;

struct Change {
  std::string name;
  std::function<void(ModelPlan&)> apply;
};

// Numbers for a vector that the checkpoint does not have: a piece of the embedding (normal noise).
TensorRef noise(const ModelPlan& plan, int64_t size, int64_t offset) {
  TensorRef ref = plan.embedding;
  ref.rows = 1;
  ref.cols = size;
  ref.element_offset = offset;
  return ref;
}

TensorRef noise_matrix(const ModelPlan& plan, int64_t rows, int64_t cols, int64_t offset) {
  TensorRef ref = noise(plan, cols, offset);
  ref.rows = rows;
  return ref;
}

// The same elements read with other strides.
TensorRef strided(TensorRef ref, int64_t row_stride, int64_t col_stride) {
  ref.row_stride = row_stride;
  ref.col_stride = col_stride;
  return ref;
}

void for_attention(ModelPlan& plan, const std::function<void(AttentionSpec&)>& change) {
  for (LayerPlan& layer : plan.layers) change(layer.get<AttentionSpec>());
}

void for_norms(ModelPlan& plan, const std::function<void(NormSpec&)>& change) {
  change(plan.final_norm);
  for (LayerPlan& layer : plan.layers) {
    auto& attention = layer.get<AttentionSpec>();
    for (NormSpec* norm : {&layer.sublayers[0].norm, &layer.sublayers[1].norm, &attention.q_norm, &attention.k_norm})
      change(*norm);
  }
}

void for_moe(ModelPlan& plan, const std::function<void(MoeSpec&)>& change) {
  for (LayerPlan& layer : plan.layers) {
    if (auto* moe = layer.find<MoeSpec>()) change(*moe);
  }
}

Change norm_kind(const std::string& name, NormKind kind, bool bias) {
  return {name, [=](ModelPlan& plan) {
            for_norms(plan, [&](NormSpec& norm) {
              norm.kind = kind;
              if (bias) norm.bias = noise(plan, norm.weight.elements(), 7);
            });
          }};
}

Change rope(const std::string& name, RopeKind kind, float share, float factor) {
  return {name, [=](ModelPlan& plan) {
            for_attention(plan, [&](AttentionSpec& a) {
              a.rope.kind = kind;
              a.rope.dims = int(float(a.head_dim) * share);
              a.rope.inv_freq.resize(size_t(a.rope.dims) / 2);
              a.rope.attention_factor = factor;
            });
          }};
}

Change activation(const std::string& name, Activation kind) {
  return {name, [=](ModelPlan& plan) {
            for (LayerPlan& layer : plan.layers) {
              if (auto* moe = layer.find<MoeSpec>()) moe->expert.activation = kind;
              if (auto* ffn = layer.find<FfnSpec>()) ffn->activation = kind;
            }
          }};
}

Change router(const std::string& name, const std::function<void(RouterSpec&)>& change) {
  return {name, [=](ModelPlan& plan) {
            for_moe(plan, [&](MoeSpec& moe) {
              change(moe.router);
              if (moe.router.has_logit_bias) moe.router_bias = noise(plan, moe.router.experts, 301);
              if (moe.router.has_select_bias) moe.select_bias = noise(plan, moe.router.experts, 401);
            });
          }};
}

Change experts(const std::string& name, const std::function<void(const ModelPlan&, MoeSpec&)>& change) {
  return {"experts " + name, [=](ModelPlan& plan) { for_moe(plan, [&](MoeSpec& moe) { change(plan, moe); }); }};
}

void add_biases(const ModelPlan& plan, MoeSpec& moe) {
  for (size_t e = 0; e < moe.experts.size(); ++e) {
    FfnWeights& w = moe.experts[e];
    const auto at = int64_t(100 * e);
    if (w.gate) w.gate_bias = noise(plan, moe.expert.width, at);
    w.up_bias = noise(plan, moe.expert.width, at + 33);
    w.down_bias = noise(plan, plan.hidden, at + 66);
  }
}

std::vector<Change> changes() {
  return {
      {"as it is", [](ModelPlan&) {}},
      norm_kind("rms, fp32 weight", NormKind::kRmsFp32Weight, false),
      norm_kind("rms, one plus weight", NormKind::kRmsOnePlus, false),
      norm_kind("layer norm", NormKind::kLayerNorm, false),
      norm_kind("layer norm with bias", NormKind::kLayerNorm, true),
      rope("no rope", RopeKind::kNone, 0, 1),
      rope("rope interleaved", RopeKind::kInterleaved, 1, 1),
      rope("rope of the first half of a head", RopeKind::kHalf, 0.5f, 1),
      rope("rope interleaved, partial, scaled", RopeKind::kInterleaved, 0.25f, 1.3f),
      {"window of 5", [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.sliding_window = 5; }); }},
      {"window of 1", [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.sliding_window = 1; }); }},
      {"window in one layer", [](ModelPlan& p) { p.layers[1].get<AttentionSpec>().sliding_window = 3; }},
      {"clipped at 0.7", [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.clip_qkv = 0.7f; }); }},
      {"other scale", [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.scale = 0.3f; }); }},
      {"no query and key norm",
       [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.qk_norm = QkNorm::kNone; }); }},
      {"norm of the whole query and key, clipped",
       [](ModelPlan& p) {
         for_attention(p, [&](AttentionSpec& a) {
           a.qk_norm = QkNorm::kFullVector;
           a.q_norm.weight = noise(p, a.q.rows, 11);
           a.k_norm.weight = noise(p, a.k.rows, 211);
           a.clip_qkv = 0.9f;
         });
       }},
      {"all attention biases",
       [](ModelPlan& p) {
         for_attention(p, [&](AttentionSpec& a) {
           a.q_bias = noise(p, a.q.rows, 1);
           a.k_bias = noise(p, a.k.rows, 501);
           a.v_bias = noise(p, a.v.rows, 601);
           a.o_bias = noise(p, a.o.rows, 701);
         });
       }},
      {"as many kv heads as heads",
       [](ModelPlan& p) {
         for_attention(p, [](AttentionSpec& a) {
           a.kv_heads = a.heads;
           a.k = a.v = a.q;
         });
       }},
      {"one kv head",
       [](ModelPlan& p) {
         for_attention(p, [](AttentionSpec& a) {
           a.kv_heads = 1;
           a.k.rows = a.v.rows = a.head_dim;
         });
       }},
      {"output gate",
       [](ModelPlan& p) {
         for_attention(p, [&](AttentionSpec& a) { a.gate = noise_matrix(p, a.q.rows, p.hidden, 0); });
       }},
      {"query and key norm after rope",
       [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.qk_norm = QkNorm::kPerHeadPostRope; }); }},
      {"L2 norm after rope",
       [](ModelPlan& p) {
         for_attention(p, [](AttentionSpec& a) {
           a.qk_norm = QkNorm::kL2PostRope;
           a.q_norm = a.k_norm = {.kind = NormKind::kRms, .eps = 1e-2f};
         });
       }},
      {"chunks of 4", [](ModelPlan& p) { for_attention(p, [](AttentionSpec& a) { a.chunk = 4; }); }},
      {"chunks of 1 in one layer", [](ModelPlan& p) { p.layers[1].get<AttentionSpec>().chunk = 1; }},
      {"sinks, window of 5",
       [](ModelPlan& p) {
         for_attention(p, [&](AttentionSpec& a) {
           a.sinks = noise(p, a.heads, 900);
           a.sliding_window = 5;
         });
       }},
      {"no rope, query temperature",
       [](ModelPlan& p) {
         for_attention(p, [](AttentionSpec& a) {
           a.rope = {};
           a.temperature_floor = 4;
           a.temperature_scale = 0.7f;
         });
       }},
      {"head with bias, normalised",
       [](ModelPlan& p) {
         p.lm_head_bias = noise(p, p.vocab, 1500);
         p.normalised_head = true;
       }},
      experts("biases", [](const ModelPlan& p, MoeSpec& m) { add_biases(p, m); }),
      experts("clamped, with biases",
              [](const ModelPlan& p, MoeSpec& m) {
                m.expert.kind = FfnKind::kGluOss;
                m.expert.limit = 0.6f;
                m.expert.alpha = 1.702f;
                add_biases(p, m);
              }),
      experts("with a double gate",
              [](const ModelPlan& p, MoeSpec& m) {
                m.expert.kind = FfnKind::kGluDouble;
                for (size_t e = 0; e < m.experts.size(); ++e)
                  m.experts[e].gate = noise_matrix(p, 2 * m.expert.width, p.hidden, int64_t(31 * e));
              }),
      experts("without a gate",
              [](const ModelPlan& p, MoeSpec& m) {
                m.expert.kind = FfnKind::kMlp;
                m.expert.activation = Activation::kRelu;
                for (FfnWeights& w : m.experts) w.gate = {};
                add_biases(p, m);
              }),
      experts("transposed and interleaved",
              [](const ModelPlan& p, MoeSpec& m) {
                const int64_t width = m.expert.width, hidden = p.hidden;
                for (size_t e = 0; e < m.experts.size(); ++e) {
                  const auto at = int64_t(17 * e);
                  m.experts[e].gate = strided(noise_matrix(p, width, hidden, at), 2, 2 * width);
                  m.experts[e].up = strided(noise_matrix(p, width, hidden, at + 1), 2, 2 * width);
                  m.experts[e].down = strided(noise_matrix(p, hidden, width, at), 1, hidden);
                }
              }),
      experts("with two identities",
              [](const ModelPlan&, MoeSpec& m) {
                m.identity_experts = 2;
                m.experts.resize(m.experts.size() - 2);
              }),
      experts("beside a shared one, output bias",
              [](const ModelPlan& p, MoeSpec& m) {
                m.shared = FfnSpec{m.expert, m.experts.front()};
                m.output_bias = noise(p, p.hidden, 1100);
              }),
      experts("beside a gated shared one",
              [](const ModelPlan& p, MoeSpec& m) {
                m.shared = FfnSpec{m.expert, m.experts.front()};
                m.shared_gate = noise_matrix(p, 1, p.hidden, 1200);
              }),
      activation("gelu", Activation::kGelu),
      activation("gelu, tanh form", Activation::kGeluTanh),
      activation("relu", Activation::kRelu),
      {"tied head",
       [](ModelPlan& p) {
         p.lm_head = p.embedding;
         p.tied = true;
       }},
      {"every expert",
       [](ModelPlan& p) { for_moe(p, [](MoeSpec& m) { m.router.experts_per_token = m.router.experts; }); }},
      router("weights on the input",
             [](RouterSpec& r) {
               r.score = ScoreFn::kSigmoidTopK;
               r.renorm = Renorm::kNone;
               r.apply = ApplyTo::kInput;
             }),
      router("logit bias, softmax of the selected",
             [](RouterSpec& r) {
               r.score = ScoreFn::kSoftmaxTopK;
               r.renorm = Renorm::kNone;
               r.has_logit_bias = true;
             }),
      router("sigmoid, selection bias, groups, scale",
             [](RouterSpec& r) {
               r.score = ScoreFn::kSigmoid;
               r.has_select_bias = true;
               r.groups = 4;
               r.groups_kept = 2;
               r.group_score = GroupScore::kTop2Sum;
               r.group_fill = GroupFill::kMinusInfinity;
               r.renorm = Renorm::kSumEps20;
               r.scale = 2.5f;
             }),
  };
}

Result<std::unique_ptr<Backend>> open(const std::string& name, const ModelPlan& plan,
                                      std::shared_ptr<const WeightStore> weights) {
  return name == "cpu" ? make_cpu_backend(plan, std::move(weights), {.threads = 2}, nullptr)
                       : make_reference_backend(plan, std::move(weights), {.threads = 2}, nullptr);
}

class Kinds : public ::testing::TestWithParam<std::string> {};

TEST_P(Kinds, EveryKindGivesTheNumbersOfTheNaiveExecutor) {
  const auto weights = WeightStore::open(checkpoint(kModel));
  ASSERT_TRUE(weights) << weights.error().message();
  const auto ids = std::vector<TokenId>(prompts(kModel)[0]);
  double largest = 0;
  int run = 0;
  for (const Change& change : changes()) {
    SCOPED_TRACE(change.name);
    ModelPlan plan = checkpoint(kModel).plan;
    change.apply(plan);
    if (GetParam() == "cpu" && !missing_on_cpu(plan).empty()) {
      std::cout << "not run on cpu: " << missing_on_cpu(plan) << "\n";
      continue;
    }
    const auto backend = open(GetParam(), plan, *weights);
    ASSERT_TRUE(backend) << backend.error().message();
    // A prefill of several tokens, then one by one: both paths of the attention.
    const auto cache = (*backend)->new_cache(64);
    const Recipe native;
    std::vector<float> logits(ids.size() * size_t(plan.vocab));
    const size_t prefill = 15;
    for (size_t t = 0; t < ids.size();) {
      const size_t count = t == 0 ? prefill : 1;
      const auto done = (*backend)->forward({.tokens = std::span(ids).subspan(t, count),
                                             .cache = cache.get(),
                                             .recipe = &native,
                                             .rows = LogitRows::kAll,
                                             .logits = std::span(logits).subspan(t * size_t(plan.vocab))});
      ASSERT_TRUE(done) << done.error().message();
      t += count;
    }
    const std::vector<double> exact = naive_logits(plan, **weights, ids);
    const double difference = largest_difference(logits, std::vector<float>(exact.begin(), exact.end()));
    EXPECT_LE(difference, kLimit);
    largest = std::max(largest, difference);
    ++run;
  }
  std::cout << GetParam() << " against the naive executor, " << run << " plans: logits " << largest << "\n";
}

INSTANTIATE_TEST_SUITE_P(Backends, Kinds, ::testing::ValuesIn(backend_names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::testing
