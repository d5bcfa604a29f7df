// See linears.h.
#include "engine/model/linears.h"

#include <algorithm>
#include <cctype>
#include <map>

#include <fmt/format.h>

namespace switchyard {
namespace {

std::vector<const TensorRef*> tensors_at(const FfnShape& shape, const FfnWeights& w) {
  static const TensorRef kNone;
  if (shape.kind == FfnKind::kRankOne) return {&kNone, &kNone, &kNone};  // rows of an embedding, no matrices
  return {&w.gate, &w.up, &w.down};
}

struct Tensors {
  using List = std::vector<const TensorRef*>;
  List operator()(const AttentionSpec& a) const { return {&a.q, &a.k, &a.v, &a.o, &a.gate}; }
  List operator()(const LatentAttentionSpec& a) const { return {&a.q_a, &a.q, &a.kv_a, &a.o}; }
  List operator()(const FfnSpec& ffn) const { return tensors_at(ffn, ffn.weights); }
  List operator()(const MoeSpec& moe) const {
    List out;
    for (const FfnWeights& expert : moe.experts)
      std::ranges::copy(tensors_at(moe.expert, expert), std::back_inserter(out));
    if (moe.shared) std::ranges::copy(tensors_at(*moe.shared, moe.shared->weights), std::back_inserter(out));
    return out;
  }
  template <class Other>
  List operator()(const Other&) const {
    return {};
  }
};

// A tensor's name without what says how it is stored; empty: it is not a module's weight.
std::string module_of(const TensorRef& ref) {
  for (const std::string_view end : {".weight", ".qweight", ".weight_packed"})
    if (ref.name.ends_with(end)) return ref.name.substr(0, ref.name.size() - end.size());
  return {};
}

// What stands behind the first component that is a number.
std::string behind_number(const std::string& module) {
  for (size_t at = 0; at < module.size();) {
    const size_t dot = std::min(module.find('.', at), module.size());
    const bool number = dot > at && std::all_of(module.begin() + at, module.begin() + dot,
                                                [](unsigned char c) { return std::isdigit(c) != 0; });
    if (number && dot < module.size()) return module.substr(dot + 1);
    at = dot + 1;
  }
  return module;
}

}  // namespace

int places_of(const SublayerOp& op) {
  if (const auto* moe = std::get_if<MoeSpec>(&op)) return kFfnPlaces * int(moe->experts.size() + (moe->shared ? 1 : 0));
  if (std::holds_alternative<AttentionSpec>(op)) return kAttentionPlaces;
  if (std::holds_alternative<LatentAttentionSpec>(op)) return kLatentPlaces;
  return std::holds_alternative<FfnSpec>(op) ? kFfnPlaces : 0;
}

int places_of(const ModelPlan& plan) {
  int places = 0;
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) places += places_of(sublayer.op);
  return places;
}

std::vector<Linear> linears_of(const ModelPlan& plan) {
  std::vector<Linear> out;
  std::vector<const TensorRef*> refs;
  std::map<std::string_view, int> uses;
  for (size_t layer = 0; layer < plan.layers.size(); ++layer)
    for (const Sublayer& sublayer : plan.layers[layer].sublayers)
      for (const TensorRef* ref : std::visit(Tensors{}, sublayer.op)) {
        out.push_back({.layer = static_cast<int>(layer), .rows = ref->rows, .cols = ref->cols});
        refs.push_back(ref);
        if (*ref) ++uses[ref->name];
      }
  for (size_t i = 0; i < out.size(); ++i) {
    const TensorRef& ref = *refs[i];
    Linear& linear = out[i];
    if (!ref) continue;
    linear.module = module_of(ref);
    if (linear.module.empty()) linear.module = ref.name;
    linear.local = behind_number(linear.module);
    if (uses[ref.name] > 1 || ref.element_offset != 0 || ref.block_rows > 0)
      linear.refused = fmt::format("the matrix is a part of the tensor \"{}\"", ref.name);
    else if (ref.col_stride != 1)
      linear.refused = fmt::format("the tensor \"{}\" is stored the other way round", ref.name);
  }
  return out;
}

std::string short_name(const Linear& linear) {
  std::string_view local = linear.local;
  for (const std::string_view start : {"self_attn.", "mlp.", "attention."})
    if (local.starts_with(start)) local.remove_prefix(start.size());
  return std::string(local);
}

std::string linear_name(const ModelPlan& plan, const Linear& linear) {
  const bool encoder = linear.layer < plan.encoder_layers;
  const std::string_view side = plan.encoder_layers == 0 ? "" : encoder ? "encoder " : "decoder ";
  return fmt::format("{}layer {} · {}", side, encoder ? linear.layer : linear.layer - plan.encoder_layers, short_name(linear));
}

bool names_module(std::string_view name, std::string_view module) {
  return module == name ||
         (module.size() > name.size() && module.ends_with(name) && module[module.size() - name.size() - 1] == '.');
}

}  // namespace switchyard
