// Attention whose query and output projections are experts of a router (MixtureAttentionSpec). A slot's heads see the
// same keys and values whatever the slot, so each expert attends for its tokens alone. Specs/families.md 1.11.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/backend/merged_cache.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/mixing.h"
#include "engine/backend/reference/op.h"
#include "engine/backend/reference/router.h"
#include "engine/model/quantised.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kQueryChunk = 256;  // bounds the score matrix: kv_heads * 256 * keys floats

class MixtureAttention final : public Op {
 public:
  MixtureAttention(const MixtureAttentionSpec& spec, const Loader& load)
      : spec_(spec.attention),
        router_(spec, load),
        k_(load.matrix(spec.attention.k)),
        v_(load.matrix(spec.attention.v)),
        output_bias_(load.vector(spec.output_bias)) {
    for (const TensorRef& q : spec.q_experts) q_.push_back(load.matrix(q));
    for (const TensorRef& o : spec.o_experts) o_.push_back(load.matrix(o));
    type_ = exact_dtype(spec.o_experts[0]);
  }

  at::Tensor run(const at::Tensor& x, OpState& state, const Step& step) const override {
    const int64_t tokens = x.size(0), past = step.past;
    const Rotation by = rotation(spec_.rope, past, tokens, step.length);
    reserve(state.keys, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    reserve(state.values, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    state.keys.narrow(1, past, tokens).copy_(rotate(spec_.rope, by, heads(project(x, k_))));
    state.values.narrow(1, past, tokens).copy_(heads(project(x, v_)));

    std::vector<Share> shares = router_.route_rows(x, step);
    const LayerRecipe* recipe = step.recipe->layer(step.row);
    merged_.tidy(recipe);
    at::Tensor out = at::zeros_like(x);
    for (size_t e = 0; e < shares.size(); ++e) {
      Share& share = shares[e];
      if (share.rows.empty()) continue;
      const Projections own = expert(e, recipe);
      const float scale = recipe && !recipe->expert_scale.empty() ? recipe->expert_scale[e] : 1;
      for (size_t from = 0; from < share.rows.size(); from += kQueryChunk) {
        const auto count = std::min<int64_t>(kQueryChunk, int64_t(share.rows.size() - from));
        const at::Tensor rows =
            at::from_blob(share.rows.data() + from, {count}, at::TensorOptions().dtype(at::kLong));
        const at::Tensor applied = at::from_blob(share.weights.data() + from, {count, 1});
        const Rotation at_rows{by.cos.index_select(0, rows), by.sin.index_select(0, rows)};
        const at::Tensor q = rotate(spec_.rope, at_rows, heads(project(x.index_select(0, rows), own.q)));
        at::Tensor y = project(attend(q, state, rows + past, past + tokens), own.o);
        note_norms(step, e, std::span(share.rows).subspan(from, size_t(count)), y);
        y = y * applied;
        if (scale != 1) y = y * scale;
        out.index_add_(0, rows, y);
      }
    }
    note_block(step, out);
    return output_bias_.defined() ? out + output_bias_ : out;
  }

 private:
  struct Projections {
    at::Tensor q, o;
  };

  // What runs in an expert's place.
  Projections expert(size_t id, const LayerRecipe* recipe) const {
    if (!recipe || recipe->mix(id).empty()) return {q_[id], o_[id]};
    const ExpertMix& mix = recipe->mix(id);
    if (is_one(mix)) return {q_[mix[0].expert], o_[mix[0].expert]};
    return merged_.get(mix, [&] {
      return Projections{mix_tensors(mix, type_, [&](ExpertId e) -> const at::Tensor& { return q_[e]; }),
                         mix_tensors(mix, type_, [&](ExpertId e) -> const at::Tensor& { return o_[e]; })};
    });
  }

  // [tokens, kv_heads * head_dim] -> [kv_heads, tokens, head_dim].
  at::Tensor heads(const at::Tensor& x) const {
    return x.view({x.size(0), spec_.kv_heads, spec_.head_dim}).transpose(0, 1);
  }

  // Queries at `positions`, each against the keys up to its own: [queries, kv_heads * head_dim].
  at::Tensor attend(const at::Tensor& q, const OpState& state, const at::Tensor& positions, int64_t known) const {
    const at::Tensor k = state.keys.narrow(1, 0, known), v = state.values.narrow(1, 0, known);
    const at::Tensor hidden = at::arange(known, positions.options()) > positions.unsqueeze(1);
    const at::Tensor scores = (q.bmm(k.transpose(1, 2)) * spec_.scale)
                                  .masked_fill(hidden, -std::numeric_limits<float>::infinity());
    return at::softmax(scores, -1).bmm(v).transpose(0, 1).reshape({q.size(1), -1});
  }

  const AttentionSpec spec_;
  const Router router_;
  const at::Tensor k_, v_, output_bias_;
  std::vector<at::Tensor> q_, o_;
  DType type_ = DType::kF32;  // of their weights, as stored
  mutable MergedCache<Projections> merged_;
};

}  // namespace

std::unique_ptr<Op> make_mixture_attention(const MixtureAttentionSpec& spec, Loader& load) {
  return std::make_unique<MixtureAttention>(spec, load);
}

}  // namespace switchyard::reference
