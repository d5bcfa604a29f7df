// Multi-head latent attention (LatentAttentionSpec). Formulas: specs/families.md 1.5 and 1.6.
// The cache holds what is shared by all heads, the normed latent and the turned rope slice of the key; kv_b is
// applied to the query and to the mixed latents instead of to every key and value (engine.md, section 12).
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/backend/reference/adapters.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/model/linears.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kQueryChunk = 256;  // bounds the score matrix: heads * 256 * keys floats

class LatentAttention final : public Op {
 public:
  LatentAttention(const LatentAttentionSpec& spec, const Loader& load)
      : spec_(spec),
        q_(load.matrix(spec.q)),
        q_a_(load.matrix(spec.q_a)),
        q_a_bias_(load.vector(spec.q_a_bias)),
        kv_a_(load.matrix(spec.kv_a)),
        kv_a_bias_(load.vector(spec.kv_a_bias)),
        o_(load.matrix(spec.o)),
        o_bias_(load.vector(spec.o_bias)),
        q_a_norm_(load.norm(spec.q_a_norm)),
        kv_a_norm_(load.norm(spec.kv_a_norm)) {
    const at::Tensor kv_b =
        load.matrix(spec.kv_b).view({spec.heads, int64_t(spec.nope_dim) + spec.value_dim, spec.kv_rank});
    to_latent_ = kv_b.narrow(1, 0, spec.nope_dim);
    to_value_ = kv_b.narrow(1, spec.nope_dim, spec.value_dim).transpose(1, 2);
  }

  at::Tensor run(const at::Tensor& x, OpState& state, const Step& step) const override {
    const int64_t tokens = x.size(0), past = step.past, rank = spec_.kv_rank;
    const auto here = [&](LatentPlace place) { return Here{&step, step.place + place}; };
    at::Tensor q = project(spec_.q_a ? q_a_norm_(project(x, q_a_, q_a_bias_, here(kPlaceQA))) : x, q_, {}, here(kPlaceLatentQ));
    q = q.view({tokens, spec_.heads, int64_t(spec_.nope_dim) + spec_.rope_dim}).transpose(0, 1);
    if (spec_.q_scale != 1) q = q * spec_.q_scale;
    const at::Tensor kv = project(x, kv_a_, kv_a_bias_, here(kPlaceKvA));
    at::Tensor latent = kv_a_norm_(kv.narrow(1, 0, rank));
    if (spec_.latent_scale != 1) latent = latent * spec_.latent_scale;

    const Rotation by = rotation(spec_.rope, past, tokens, step.length);
    const at::Tensor q_rope = rotate(spec_.rope, by, q.narrow(2, spec_.nope_dim, spec_.rope_dim));
    const at::Tensor k_rope = rotate(spec_.rope, by, kv.narrow(1, rank, spec_.rope_dim).unsqueeze(0));
    reserve(state.keys, 1, rank + spec_.rope_dim, past, past + tokens);
    state.keys.narrow(1, past, tokens).copy_(at::cat({latent.unsqueeze(0), k_rope}, 2));

    q = at::cat({q.narrow(2, 0, spec_.nope_dim).bmm(to_latent_), q_rope}, 2);  // [heads, tokens, rank + rope]
    std::vector<at::Tensor> parts;
    for (int64_t from = 0; from < tokens; from += kQueryChunk)
      parts.push_back(attend(q.narrow(1, from, std::min(kQueryChunk, tokens - from)), state, past + from, step));
    return project(parts.size() == 1 ? parts[0] : at::cat(parts), o_, o_bias_, here(kPlaceLatentO));
  }

 private:
  // Queries [heads, tokens, rank + rope] at positions from `first` against the keys they may see.
  at::Tensor attend(const at::Tensor& q, const OpState& state, int64_t first, const Step& step) const {
    const int64_t tokens = q.size(1), end = first + tokens, heads = spec_.heads;
    const at::Tensor k = state.keys[0].narrow(0, 0, end);
    at::Tensor scores = q.reshape({heads * tokens, q.size(2)}).matmul(k.t()).view({heads, tokens, end}) * spec_.scale;
    if (tokens > 1) {
      const auto options = at::TensorOptions().dtype(at::kLong);
      const at::Tensor hidden = at::arange(end, options) > at::arange(first, end, options).unsqueeze(1);
      scores = scores.masked_fill(hidden, -std::numeric_limits<float>::infinity());
    }
    const at::Tensor shares = at::softmax(scores, -1);
    if (step.attention && step.attention->window > 0) step.attention->take(shares, first - step.past, first, 0);
    const at::Tensor mixed = shares.view({heads * tokens, end}).matmul(k.narrow(1, 0, spec_.kv_rank));
    return mixed.view({heads, tokens, spec_.kv_rank})
        .bmm(to_value_)
        .transpose(0, 1)
        .reshape({tokens, heads * spec_.value_dim});
  }

  const LatentAttentionSpec spec_;
  const at::Tensor q_, q_a_, q_a_bias_, kv_a_, kv_a_bias_, o_, o_bias_;
  const Norm q_a_norm_, kv_a_norm_;
  at::Tensor to_latent_;  // [heads, nope, rank]: a query's nope part against latents
  at::Tensor to_value_;   // [heads, rank, value]
};

}  // namespace

std::unique_ptr<Op> make_latent_attention(const LatentAttentionSpec& spec, Loader& load) {
  return std::make_unique<LatentAttention>(spec, load);
}

}  // namespace switchyard::reference
