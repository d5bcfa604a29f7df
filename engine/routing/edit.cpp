// Applying and inverting edits: one visitor each over the closed list of kinds. Checks: edit_checks.cpp; words: edit_text.cpp.
#include "engine/routing/edit.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "engine/model/linears.h"
#include "engine/routing/edit_parts.h"

namespace switchyard {

using namespace edit_parts;

namespace {

// Sets an entry; a vector whose entries are all neutral is let go, so that equal recipes compare equal.
template <class T>
void set_entry(std::vector<T>& values, size_t size, ExpertId expert, T value, T neutral) {
  if (values.empty()) {
    if (value == neutral) return;
    values.assign(size, neutral);
  }
  values[expert] = value;
  if (std::all_of(values.begin(), values.end(), [&](const T& entry) { return entry == neutral; })) values.clear();
}

template <class T>
T entry(const std::vector<T>& values, ExpertId expert, T neutral) {
  return values.empty() ? neutral : values[expert];
}

void set_flag(std::vector<uint8_t>& flags, size_t size, ExpertId expert, bool on) {
  set_entry<uint8_t>(flags, size, expert, on, 0);
}

// What runs in an expert's place, its own spelt out.
ExpertMix running(const LayerRecipe& layer, ExpertId expert) {
  const ExpertMix& mix = layer.mix(expert);
  return mix.empty() ? ExpertMix{{expert, 1.0f}} : mix;
}

void set_mix(LayerRecipe& layer, size_t size, ExpertId expert, ExpertMix mix) {
  if (mix == ExpertMix{{expert, 1.0f}}) mix.clear();
  set_entry(layer.mixes, size, expert, mix, {});
}

// The weighted mean of what runs in the members' places.
ExpertMix mean_of(const LayerRecipe& layer, const Merge& merge) {
  double total = 0;
  std::map<ExpertId, double> sums;
  for (size_t i = 0; i < merge.members.size(); ++i) {
    const double weight = merge.weights.empty() ? 1.0 : merge.weights[i];
    total += weight;
    for (const ExpertShare& share : running(layer, merge.members[i])) sums[share.expert] += weight * share.weight;
  }
  ExpertMix mix;
  for (const auto& [expert, sum] : sums)
    if (const auto weight = static_cast<float>(sum / total); weight != 0) mix.push_back({expert, weight});
  return mix;
}

OtherExpert other_of(const SetExpertKind& edit, int layer, ExpertId expert) {
  OtherExpert out{edit.to, edit.file, nullptr};
  if (needs_file(edit.to)) out.tensors = std::shared_ptr<const ExpertTensors>(edit.tensors, &edit.tensors->experts.at({layer, int(expert)}));
  return out;
}

void mute(LayerRecipe& layer, size_t size, ExpertId id) {
  set_flag(layer.muted, size, id, true);
  set_flag(layer.forced, size, id, false);
}

void set_adapters(const SetAdapters& edit, const ModelPlan& plan, std::vector<AdapterRef>& adapters) {
  const std::vector<Linear> linears = linears_of(plan);
  adapters.resize(linears.size());
  for (size_t place = 0; place < linears.size(); ++place)
    if (names(edit, linears[place]) && (!edit.adapters || edit.adapters.set->linears.contains(int(place)))) adapters[place] = edit.adapters;
  if (std::none_of(adapters.begin(), adapters.end(), [](const AdapterRef& ref) { return bool(ref); })) adapters.clear();
}

// The edits that turn `from` into `to`: one for each set and module, with all its layers. Sets of equal choice may hold
// different linears.
std::vector<Edit> adapter_difference(const std::vector<AdapterRef>& from, const std::vector<AdapterRef>& to, const ModelPlan& plan) {
  std::vector<Edit> out;
  if (from == to) return out;
  const std::vector<Linear> linears = linears_of(plan);
  struct Group {
    AdapterRef adapters;
    std::map<std::string, std::vector<int>> layers;  // by module in its layer
  };
  std::vector<Group> groups;
  for (size_t place = 0; place < linears.size(); ++place) {
    const AdapterRef was = from.empty() ? AdapterRef{} : from[place], is = to.empty() ? AdapterRef{} : to[place];
    if (was == is) continue;
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.adapters.set == is.set; });
    if (group == groups.end()) group = groups.insert(groups.end(), {is, {}});
    group->layers[linears[place].local].push_back(linears[place].layer);
  }
  for (const Group& group : groups) {
    std::map<std::vector<int>, std::vector<std::string>> modules;  // by the layers that they are in
    for (const auto& [module, layers] : group.layers) modules[layers].push_back(module);
    for (const auto& [layers, named] : modules) out.push_back(SetAdapters{{layers}, named, group.adapters});
  }
  return out;
}

}  // namespace

// model_layer: the layer that the row belongs to.
void edit_parts::apply_to_layer(const Edit& edit, int model_layer, int experts, LayerRecipe& layer) {
  const size_t size = experts;
  std::visit(Overloaded{
                 [&](const Mute& e) {
                   for (const ExpertId id : e.experts) mute(layer, size, id);
                 },
                 [&](const Unmute& e) {
                   for (const ExpertId id : e.experts) set_flag(layer.muted, size, id, false);
                 },
                 [&](const Force& e) {
                   for (const ExpertId id : e.experts)
                     set_flag(layer.forced, size, id, true), set_flag(layer.muted, size, id, false);
                 },
                 [&](const Unforce& e) {
                   for (const ExpertId id : e.experts) set_flag(layer.forced, size, id, false);
                 },
                 [&](const TopK& e) { layer.k = e.k; },
                 [&](const Temperature& e) { layer.temperature = e.value; },
                 [&](const SetScheme& e) { layer.scheme = e.scheme.of_layer(model_layer); },
                 [&](const RouterRow& e) {
                   for (const ExpertId id : e.experts) {
                     if (!e.row) set_entry(layer.row_scale, size, id, e.scale, 1.0f);
                     else set_entry(layer.router_rows, size, id, e.row->expert == id ? RowSource{} : *e.row, {});
                   }
                 },
                 [&](const Swap& e) {
                   ExpertMix first = running(layer, e.members[0]);
                   set_mix(layer, size, e.members[0], running(layer, e.members[1]));
                   set_mix(layer, size, e.members[1], std::move(first));
                 },
                 [&](const Merge& e) {
                   set_mix(layer, size, e.members[0], mean_of(layer, e));
                   for (size_t i = 1; i < e.members.size(); ++i) mute(layer, size, e.members[i]);
                 },
                 [&](const Clone& e) {
                   for (size_t i = 1; i < e.members.size(); ++i)
                     set_mix(layer, size, e.members[i], running(layer, e.members[0]));
                 },
                 [&](const Replace& e) {
                   for (const ExpertId id : e.experts) set_mix(layer, size, id, e.mix);
                 },
                 [&](const NeuronMask& e) {
                   for (const ExpertId id : e.experts) set_entry(layer.unit_masks, size, id, e.neurons, {});
                 },
                 [&](const SetExpertKind& e) {
                   for (const ExpertId id : e.experts) set_entry(layer.others, size, id, other_of(e, model_layer, id), {});
                 },
                 [](const SetAdapters&) {},  // not of a router
                 [](const LayerPath&) {},
                 [&]<SetsValues E>(const E& e) {
                   const ValueField field = field_of(e);
                   for (const ExpertId id : e.experts)
                     set_entry(layer.*field.values, size, id, e.value, field.neutral);
                 },
             },
             edit);
}

namespace {

// Collects (layer, expert) pairs under a value and turns them into few edits: experts of a layer with the
// same value stand together, and layers with the same experts.
template <class Value>
class Gathered {
 public:
  void add(const Value& value, int layer, ExpertId expert) { found_[value][layer].push_back(expert); }
  void add(const Value& value, int layer) { found_[value][layer]; }

  // make(value, layers, experts) for each group.
  template <class Make>
  void each(const Make& make) const {
    for (const auto& [value, by_layer] : found_) {
      std::map<std::vector<ExpertId>, LayerSet> by_experts;
      for (const auto& [layer, experts] : by_layer) by_experts[experts].layers.push_back(layer);
      for (const auto& [experts, layers] : by_experts) make(value, layers, experts);
    }
  }

 private:
  std::map<Value, std::map<int, std::vector<ExpertId>>> found_;
};

// Every edit that turns `from` into `to` in the given rows, at most one of a layer: the one place that knows how a
// difference of recipes is said in edits. rows ascending; experts per row from the plan.
std::vector<Edit> difference_in(const std::vector<int>& rows, const Recipe& from, const Recipe& to,
                                const ModelPlan& plan) {
  static const LayerRecipe kNative;
  enum Flag { kUnmute, kUnforce, kMute, kForce };  // removals first: a mute clears a force and vice versa
  Gathered<Flag> flags;
  Gathered<float> biases, select_biases, expert_scales, row_scales, temperatures;
  Gathered<int> ks;
  std::vector<SetScheme> schemes;
  Gathered<ExpertMix> mixes;
  Gathered<std::vector<int>> unit_masks;
  Gathered<RowSource> router_rows;
  Gathered<OtherExpert> others;
  std::map<std::string, ExpertFile> files;
  for (const int row : rows) {
    const LayerRecipe& a = from.layers.empty() ? kNative : from.layers[row];
    const LayerRecipe& b = to.layers.empty() ? kNative : to.layers[row];
    if (a == b) continue;
    const int layer = plan.moe_layers[row];
    if (a.k != b.k) ks.add(b.k, layer);
    if (a.temperature != b.temperature) temperatures.add(b.temperature, layer);
    if (a.scheme != b.scheme) {
      const auto same = std::find_if(schemes.begin(), schemes.end(), [&](const SetScheme& e) { return e.scheme == b.scheme; });
      if (same == schemes.end()) schemes.push_back({{{layer}}, b.scheme});
      else if (same->layers.layers.back() != layer) same->layers.layers.push_back(layer);
    }
    const auto compare = [&](std::vector<float> LayerRecipe::*values, float neutral, Gathered<float>& into,
                             ExpertId id) {
      if (const float value = entry(b.*values, id, neutral); value != entry(a.*values, id, neutral))
        into.add(value, layer, id);
    };
    for (int e = 0; e < plan.routed(row).router.experts; ++e) {
      const auto id = static_cast<ExpertId>(e);
      compare(&LayerRecipe::logit_bias, 0, biases, id);
      compare(&LayerRecipe::select_bias, 0, select_biases, id);
      compare(&LayerRecipe::expert_scale, 1, expert_scales, id);
      compare(&LayerRecipe::row_scale, 1, row_scales, id);
      if (b.mix(id) != a.mix(id)) mixes.add(b.mix(id), layer, id);
      if (b.unit_mask(id) != a.unit_mask(id)) unit_masks.add(b.unit_mask(id), layer, id);
      if (b.other(id) != a.other(id)) {
        others.add({b.other(id).kind, b.other(id).file, nullptr}, layer, id);
        if (b.other(id).tensors) files[b.other(id).file].experts[{layer, e}] = *b.other(id).tensors;
      }
      if (const RowSource row = entry(b.router_rows, id, {}); row != entry(a.router_rows, id, {}))
        router_rows.add(row, layer, id);
      const auto flag = [&](const std::vector<uint8_t>& was, const std::vector<uint8_t>& is, Flag off, Flag on) {
        const bool before = entry<uint8_t>(was, id, 0), after = entry<uint8_t>(is, id, 0);
        if (before != after) flags.add(after ? on : off, layer, id);
      };
      flag(a.muted, b.muted, kUnmute, kMute);
      flag(a.forced, b.forced, kUnforce, kForce);
    }
  }

  std::vector<Edit> edits(schemes.begin(), schemes.end());
  flags.each([&](Flag flag, const LayerSet& layers, const std::vector<ExpertId>& experts) {
    switch (flag) {
      case kUnmute:
        edits.push_back(Unmute{layers, experts});
        break;
      case kUnforce:
        edits.push_back(Unforce{layers, experts});
        break;
      case kMute:
        edits.push_back(Mute{layers, experts});
        break;
      case kForce:
        edits.push_back(Force{layers, experts});
        break;
    }
  });
  mixes.each([&](const ExpertMix& mix, auto& layers, auto& experts) {
    edits.push_back(Replace{layers, experts, mix});
  });
  unit_masks.each([&](const std::vector<int>& neurons, auto& layers, auto& experts) {
    edits.push_back(NeuronMask{layers, experts, neurons});
  });
  others.each([&](const OtherExpert& other, auto& layers, auto& experts) {
    std::shared_ptr<const ExpertFile> file;
    if (needs_file(other.kind)) file = std::make_shared<const ExpertFile>(files[other.file]);
    edits.push_back(SetExpertKind{layers, experts, other.kind, other.file, std::move(file)});
  });
  router_rows.each([&](const RowSource& row, auto& layers, auto& experts) {
    edits.push_back(RouterRow{layers, experts, 1, row});
  });
  row_scales.each([&](float value, auto& layers, auto& experts) {
    edits.push_back(RouterRow{layers, experts, value});
  });
  biases.each([&](float value, auto& layers, auto& experts) { edits.push_back(Bias{layers, experts, value}); });
  temperatures.each([&](float value, auto& layers, auto&) { edits.push_back(Temperature{layers, value}); });
  select_biases.each([&](float value, auto& layers, auto& experts) {
    edits.push_back(SelectBias{layers, experts, value});
  });
  ks.each([&](int k, auto& layers, auto&) { edits.push_back(TopK{layers, k}); });
  expert_scales.each([&](float value, auto& layers, auto& experts) {
    edits.push_back(ExpertScale{layers, experts, value});
  });
  return edits;
}

// As above for any rows, and the path.
std::vector<Edit> difference(const Recipe& from, const Recipe& to, const std::vector<int>& rows, const ModelPlan& plan) {
  std::vector<int> feed_forward, attention;
  for (const int row : rows) (moe_of(plan, row) ? feed_forward : attention).push_back(row);
  std::vector<Edit> edits;
  if (from.path != to.path) edits.push_back(to.path);
  for (Edit& edit : difference_in(feed_forward, from, to, plan)) edits.push_back(std::move(edit));
  for (Edit& edit : difference_in(attention, from, to, plan)) {
    std::visit([](auto& e) {
      if constexpr (requires { e.layers; }) e.layers.attention = true;
    }, edit);
    edits.push_back(std::move(edit));
  }
  return edits;
}

}  // namespace

std::vector<int> path_of(const std::vector<uint8_t>& passes, int layers) {
  std::vector<int> path;
  for (int layer = 0; layer < layers; ++layer)
    path.insert(path.end(), passes.empty() ? 1 : passes[size_t(layer)], layer);
  return path;
}

void apply(const Edit& edit, const ModelPlan& plan, Recipe& recipe) {
  if (const auto* path = std::get_if<LayerPath>(&edit)) {
    recipe.path = *path;
    std::vector<uint8_t>& passes = recipe.path.passes;
    if (std::all_of(passes.begin(), passes.end(), [](uint8_t n) { return n == 1; })) passes.clear();
    return;
  }
  if (const auto* adapters = std::get_if<SetAdapters>(&edit)) return set_adapters(*adapters, plan, recipe.adapters);
  if (recipe.layers.empty()) recipe.layers.resize(plan.moe_layers.size());
  for (const int row : rows_of(edit, plan))
    apply_to_layer(edit, plan.moe_layers[row], plan.routed(row).router.experts, recipe.layers[row]);
  if (recipe.routes_natively()) recipe.layers.clear();
}

std::vector<Edit> invert(const Edit& edit, const ModelPlan& plan, const Recipe& before) {
  Recipe after = before;
  apply(edit, plan, after);
  if (std::holds_alternative<SetAdapters>(edit)) return adapter_difference(after.adapters, before.adapters, plan);
  return difference(after, before, rows_of(edit, plan), plan);
}

std::vector<Edit> edits_of(const Recipe& recipe, const ModelPlan& plan) {
  std::vector<int> rows(plan.rows.size());
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<Edit> edits = difference({}, recipe, rows, plan);
  for (Edit& edit : adapter_difference({}, recipe.adapters, plan)) edits.push_back(std::move(edit));
  return edits;
}

LayerSet layer_of_row(const ModelPlan& plan, int row) {
  return {{plan.moe_layers[size_t(row)]}, moe_of(plan, row) == nullptr};
}

}  // namespace switchyard
