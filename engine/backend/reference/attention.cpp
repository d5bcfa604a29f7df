// Grouped-query attention (AttentionSpec). Formulas: specs/families.md 1.0.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kQueryChunk = 256;  // bounds the score matrix: heads * 256 * keys floats

class Attention final : public Op {
 public:
  Attention(const AttentionSpec& spec, Loader& load)
      : spec_(spec),
        q_(load.matrix(spec.q)),
        k_(load.matrix(spec.k)),
        v_(load.matrix(spec.v)),
        o_(load.matrix(spec.o)),
        q_bias_(load.vector(spec.q_bias)),
        k_bias_(load.vector(spec.k_bias)),
        v_bias_(load.vector(spec.v_bias)),
        o_bias_(load.vector(spec.o_bias)),
        q_norm_(load.norm(spec.q_norm)),
        k_norm_(load.norm(spec.k_norm)) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step& step) const override {
    const int64_t tokens = x.size(0), past = step.past;
    at::Tensor q = split_heads(project(x, q_, q_bias_), spec_.heads, &q_norm_);
    at::Tensor k = split_heads(project(x, k_, k_bias_), spec_.kv_heads, &k_norm_);
    const at::Tensor v = split_heads(project(x, v_, v_bias_), spec_.kv_heads, nullptr);
    if (spec_.rope.kind != RopeKind::kNone) {
      const Rotation by = rotation(spec_.rope, past, tokens);
      q = rotate(spec_.rope, by, q);
      k = rotate(spec_.rope, by, k);
    }
    reserve(state.keys, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    reserve(state.values, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    state.keys.narrow(1, past, tokens).copy_(k);
    state.values.narrow(1, past, tokens).copy_(v);

    std::vector<at::Tensor> parts;
    for (int64_t from = 0; from < tokens; from += kQueryChunk)
      parts.push_back(attend(q.narrow(1, from, std::min(kQueryChunk, tokens - from)), state, past + from));
    return project(parts.size() == 1 ? parts[0] : at::cat(parts), o_, o_bias_);
  }

 private:
  // One projected input as heads: [tokens, heads * head_dim] -> [heads, tokens, head_dim].
  at::Tensor split_heads(at::Tensor x, int heads, const Norm* norm) const {
    if (norm && spec_.qk_norm == QkNorm::kFullVector) x = (*norm)(x);
    x = x.view({x.size(0), heads, spec_.head_dim});
    if (norm && spec_.qk_norm == QkNorm::kPerHead) x = (*norm)(x);
    if (spec_.clip_qkv > 0) x = x.clamp(-spec_.clip_qkv, spec_.clip_qkv);
    return x.transpose(0, 1);
  }

  // Queries [heads, tokens, head_dim] at positions from `first` against the keys they may see.
  at::Tensor attend(const at::Tensor& q, const OpState& state, int64_t first) const {
    const int64_t tokens = q.size(1), group = spec_.heads / spec_.kv_heads;
    const int64_t end = first + tokens;
    const int64_t begin = spec_.sliding_window > 0 ? std::max<int64_t>(0, first - spec_.sliding_window + 1) : 0;
    const at::Tensor k = state.keys.narrow(1, begin, end - begin);
    const at::Tensor v = state.values.narrow(1, begin, end - begin);

    at::Tensor scores =
        q.reshape({spec_.kv_heads, group * tokens, spec_.head_dim}).bmm(k.transpose(1, 2)) * spec_.scale;
    if (tokens > 1) {
      const auto options = at::TensorOptions().dtype(at::kLong);
      const at::Tensor i = at::arange(first, end, options).unsqueeze(1), j = at::arange(begin, end, options);
      at::Tensor hidden = j > i;
      if (spec_.sliding_window > 0) hidden = hidden.logical_or(j <= i - spec_.sliding_window);
      scores = scores.view({spec_.kv_heads, group, tokens, end - begin})
                   .masked_fill(hidden, -std::numeric_limits<float>::infinity())
                   .view({spec_.kv_heads, group * tokens, end - begin});
    }
    const at::Tensor mixed = at::softmax(scores, -1).bmm(v);  // [kv_heads, group * tokens, head_dim]
    return mixed.view({spec_.heads, tokens, spec_.head_dim})
        .transpose(0, 1)
        .reshape({tokens, int64_t(spec_.heads) * spec_.head_dim});
  }

  const AttentionSpec spec_;
  const at::Tensor q_, k_, v_, o_, q_bias_, k_bias_, v_bias_, o_bias_;
  const Norm q_norm_, k_norm_;
};

}  // namespace

std::unique_ptr<Op> make_attention(const AttentionSpec& spec, Loader& load) {
  return std::make_unique<Attention>(spec, load);
}

}  // namespace switchyard::reference
