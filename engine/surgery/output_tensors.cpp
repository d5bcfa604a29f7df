// See output_tensors.h. The plan says where every matrix of every expert lies, so no tensor name is parsed: the expert
// with new id i takes the place, and with it the name, that expert i had.
#include "engine/surgery/output_tensors.h"

#include <algorithm>
#include <memory>
#include <set>

#include <fmt/format.h>

#include "engine/model/quantised.h"
#include "engine/routing/edited_weights.h"

namespace switchyard {
namespace {

// One matrix or vector of every expert of a row.
struct Part {
  std::vector<TensorRef> refs;  // by expert
  bool is_output = false;       // multiplies to the expert's output: takes expert_scale
  bool has_units = false;       // columns are hidden units
};

Part part_of(const std::vector<FfnWeights>& experts, TensorRef FfnWeights::*which, bool is_output, bool has_units) {
  Part part{.is_output = is_output, .has_units = has_units};
  for (const FfnWeights& expert : experts) part.refs.push_back(expert.*which);
  return part;
}

std::vector<Part> parts_of(const SublayerOp& op) {
  std::vector<Part> parts;
  if (const auto* moe = std::get_if<MoeSpec>(&op)) {
    using W = FfnWeights;
    const bool rank_one = moe->expert.kind == FfnKind::kRankOne;  // one unit: its whole row
    parts = {part_of(moe->experts, &W::gate, false, false), part_of(moe->experts, &W::up, false, false),
             part_of(moe->experts, &W::down, true, !rank_one), part_of(moe->experts, &W::gate_bias, false, false),
             part_of(moe->experts, &W::up_bias, false, false), part_of(moe->experts, &W::down_bias, true, false)};
  } else {
    const auto& mixture = std::get<MixtureAttentionSpec>(op);
    parts = {{mixture.q_experts, false, false}, {mixture.o_experts, true, false}};
  }
  std::erase_if(parts, [](const Part& part) { return part.refs.empty() || !part.refs[0]; });
  return parts;
}

// Rows of the router's weight, or entries of a vector with one per expert.
std::vector<TensorRef> entries_of(const TensorRef& all, int count, bool vector) {
  std::vector<TensorRef> rows;
  const int64_t step = vector ? all.col_stride : all.row_stride > 0 ? all.row_stride : all.cols;
  for (int64_t row = 0; all && row < count; ++row) {
    TensorRef ref = all;
    ref.rows = 1;
    ref.cols = vector ? 1 : all.cols;
    ref.element_offset += row * step;
    ref.row_stride = 0;
    rows.push_back(std::move(ref));
  }
  return rows;
}

class Surgeon {
 public:
  Surgeon(const Checkpoint& checkpoint, const Recipe& recipe, const std::vector<KeptExperts>& kept)
      : checkpoint_(checkpoint), recipe_(recipe), kept_(kept) {
    for (const TensorInfo& tensor : checkpoint.tensors)
      out_[tensor.name] = {tensor.dtype, tensor.shape, tensor.shard, {{tensor.shard, tensor.begin, tensor.end}}, {}};
  }

  Result<OutputTensors> run() {
    for (int row = 0; row < int(checkpoint_.plan.rows.size()); ++row) {
      if (!recipe_.layer(row)) continue;
      SY_CHECK(remove(row));
      rewrite_experts(row);
      rewrite_router(row);
    }
    return std::move(out_);
  }

 private:
  const SublayerOp& op(int row) const {
    const RoutingRow& at = checkpoint_.plan.rows[size_t(row)];
    return checkpoint_.plan.layers[size_t(at.layer)].sublayers[size_t(at.sublayer)].op;
  }

  Result<void> remove(int row) {
    const RoutedSpec& routed = checkpoint_.plan.routed(row);
    const KeptExperts& kept = kept_[size_t(row)];
    const int experts = routed.router.experts;
    if (int(kept.size()) == experts) return {};
    std::set<std::string> done;
    for (const Part& part : parts_of(op(row))) SY_CHECK(keep(part.refs, kept, done));
    SY_CHECK(keep(entries_of(routed.router_weight, experts, false), kept, done));
    for (const TensorRef* all : {&routed.router_bias, &routed.select_bias})
      if (*all) SY_CHECK(keep(entries_of(*all, experts, true), kept, done));
    return {};
  }

  // done: tensors that were cut already, because parts share them.
  Result<void> keep(const std::vector<TensorRef>& refs, const KeptExperts& kept, std::set<std::string>& done) {
    return refs.front().name == refs.back().name ? keep_slices(refs, kept, done) : keep_tensors(refs, kept, done);
  }

  // A tensor for each expert.
  Result<void> keep_tensors(const std::vector<TensorRef>& refs, const KeptExperts& kept, std::set<std::string>& done) {
    for (size_t id = 0; id < refs.size(); ++id) {
      if (!done.insert(refs[id].name).second) continue;
      if (id >= kept.size() || kept[id] >= refs.size()) {
        out_.erase(refs[id].name);
        continue;
      }
      const TensorInfo& from = *checkpoint_.find(refs[kept[id]].name);
      OutputTensor& to = out_[refs[id].name];
      to.dtype = from.dtype;
      to.shape = from.shape;
      to.pieces = {{from.shard, from.begin, from.end}};
    }
    return {};
  }

  // One tensor whose outermost axis, but for those of size 1, runs over the experts.
  Result<void> keep_slices(const std::vector<TensorRef>& refs, const KeptExperts& kept, std::set<std::string>& done) {
    const std::string& name = refs.front().name;
    if (!done.insert(name).second) return {};
    const TensorInfo& from = *checkpoint_.find(name);
    const auto count = int64_t(refs.size());
    int64_t elements = 1;
    for (const int64_t dim : from.shape) elements *= dim;
    const int64_t step = elements / count;
    const auto axis = size_t(std::find_if(from.shape.begin(), from.shape.end(), [](int64_t dim) { return dim != 1; }) - from.shape.begin());
    for (int64_t id = 0; id < count; ++id)
      if (axis == from.shape.size() || from.shape[axis] % count != 0 || refs[size_t(id)].element_offset / step != id)
        return fail(ErrorCode::kUsage, fmt::format("mute: the experts do not lie one after the other in shape {}, so that none can be taken out.",
                                                   shape_text(from.shape)), "tensor \"" + name + "\"");
    const uint64_t bytes = (from.end - from.begin) / uint64_t(count);
    OutputTensor& to = out_[name];
    to.pieces.clear();
    for (const ExpertId id : kept)
      if (id < count) to.pieces.push_back({from.shard, from.begin + id * bytes, from.begin + (id + 1) * bytes});
    to.shape[axis] = from.shape[axis] / count * int64_t(to.pieces.size());
    return {};
  }

  void patch(const TensorRef& target, std::function<Result<std::vector<float>>(const WeightStore&)> values) {
    out_[target.name].patches.push_back({target, std::move(values)});
  }

  void rewrite_experts(int row) {
    const LayerRecipe& recipe = *recipe_.layer(row);
    const KeptExperts& kept = kept_[size_t(row)];
    for (const Part& part : parts_of(op(row))) {
      const auto shared = std::make_shared<const Part>(part);
      for (size_t id = 0; id < kept.size() && kept[id] < part.refs.size(); ++id) {
        const ExpertId expert = kept[id];
        const float scale = recipe.expert_scale.empty() || !part.is_output ? 1.0f : recipe.expert_scale[expert];
        const std::vector<int>& off = recipe.unit_mask(expert);
        const bool all_off = part.is_output && !part.has_units && !off.empty() && is_rank_one(row);
        if (recipe.mix(expert).empty() && scale == 1 && !all_off && (!part.has_units || off.empty())) continue;
        ExpertMix mix = recipe.mix(expert);
        if (mix.empty()) mix = {{expert, 1.0f}};
        patch(part.refs[id], [shared, mix, off, all_off, scale](const WeightStore& weights) { return expert_values(*shared, mix, off, all_off ? 0 : scale, weights); });
      }
    }
  }

  bool is_rank_one(int row) const {
    const auto* moe = std::get_if<MoeSpec>(&op(row));
    return moe && moe->expert.kind == FfnKind::kRankOne;
  }

  static Result<std::vector<float>> expert_values(const Part& part, const ExpertMix& mix, const std::vector<int>& off, float scale,
                                                  const WeightStore& weights) {
    const TensorRef& like = part.refs[mix[0].expert];
    std::vector<std::vector<float>> sources;
    std::vector<const float*> starts;
    for (const ExpertShare& share : mix) {
      sources.emplace_back(size_t(like.elements()));
      SY_CHECK(weights.read(part.refs[share.expert], sources.back().data()));
      starts.push_back(sources.back().data());
    }
    std::vector<float> values(size_t(like.elements()));
    mix_weights(mix, starts, exact_dtype(like), values);
    for (float& value : values) value *= scale;
    if (part.has_units)
      for (int64_t r = 0; r < like.rows; ++r)
        for (const int unit : off) values[size_t(r * like.cols + unit)] = 0;
    return values;
  }

  // Temperature divides weight and bias; the scale of a row does not touch its bias (LayerRecipe).
  void rewrite_router(int row) {
    const RoutedSpec& routed = checkpoint_.plan.routed(row);
    const LayerRecipe& recipe = *recipe_.layer(row);
    const float temperature = recipe.temperature;
    if (routed.router.product_key) {
      if (temperature != 1) patch(routed.router_weight, scaled(routed.router_weight, 1.0 / temperature));
      return;
    }
    const KeptExperts& kept = kept_[size_t(row)];
    const int experts = routed.router.experts;
    const std::vector<TensorRef> rows = entries_of(routed.router_weight, experts, false),
                                 biases = entries_of(routed.router_bias, experts, true),
                                 select = entries_of(routed.select_bias, experts, true);
    for (size_t id = 0; id < kept.size(); ++id) {
      const ExpertId expert = kept[id];
      const RowSource source = recipe.router_rows.empty() ? RowSource{} : recipe.router_rows[expert];
      const double scale = (recipe.row_scale.empty() ? 1.0 : double(recipe.row_scale[expert])) / temperature;
      if (source != RowSource{} || scale != 1)
        patch(rows[id], row_values(rows[expert], source, source.expert == kNoExpert ? TensorRef{} : rows[source.expert], scale));
      const float bias = recipe.logit_bias.empty() ? 0 : recipe.logit_bias[expert];
      if (!biases.empty() && (bias != 0 || temperature != 1)) patch(biases[id], shifted(biases[expert], bias, 1.0 / temperature));
      if (!select.empty() && !recipe.select_bias.empty() && recipe.select_bias[expert] != 0)
        patch(select[id], shifted(select[expert], recipe.select_bias[expert], 1));
    }
  }

  static std::function<Result<std::vector<float>>(const WeightStore&)> shifted(TensorRef ref, float by, double scale) {
    return [=](const WeightStore& weights) -> Result<std::vector<float>> {
      std::vector<float> values(size_t(ref.elements()));
      SY_CHECK(weights.read(ref, values.data()));
      for (float& value : values) value = float((double(value) + by) * scale);
      return values;
    };
  }
  static std::function<Result<std::vector<float>>(const WeightStore&)> scaled(const TensorRef& ref, double scale) {
    return shifted(ref, 0, scale);
  }
  static std::function<Result<std::vector<float>>(const WeightStore&)> row_values(TensorRef own, RowSource source, TensorRef other,
                                                                                  double scale) {
    return [=](const WeightStore& weights) -> Result<std::vector<float>> {
      std::vector<float> mine(size_t(own.cols)), theirs(size_t(other.cols)), row(size_t(own.cols));
      SY_CHECK(weights.read(own, mine.data()));
      if (other) SY_CHECK(weights.read(other, theirs.data()));
      edited_row(source, mine, theirs, exact_dtype(own), row);
      for (float& value : row) value = float(value * scale);
      return row;
    };
  }

  const Checkpoint& checkpoint_;
  const Recipe& recipe_;
  const std::vector<KeptExperts>& kept_;
  OutputTensors out_;
};

}  // namespace

uint64_t OutputTensor::bytes() const {
  uint64_t sum = 0;
  for (const Piece& piece : pieces) sum += piece.end - piece.begin;
  return sum;
}

Result<OutputTensors> output_tensors(const Checkpoint& checkpoint, const Recipe& recipe, const std::vector<KeptExperts>& kept) {
  return Surgeon(checkpoint, recipe, kept).run();
}

}  // namespace switchyard
