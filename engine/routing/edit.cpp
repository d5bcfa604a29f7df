// Validating, applying, inverting and describing edits: one visitor each over the closed list of kinds.
#include "engine/routing/edit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/text.h"
#include "engine/model/linears.h"
#include "engine/routing/decision.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/path_router.h"

namespace switchyard {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

// The three kinds that set one number per expert: where the number lives and what means "none".
struct ValueField {
  std::vector<float> LayerRecipe::*values;
  float neutral;
};
ValueField field_of(const Bias&) {
  return {&LayerRecipe::logit_bias, 0.0f};
}
ValueField field_of(const SelectBias&) {
  return {&LayerRecipe::select_bias, 0.0f};
}
ValueField field_of(const ExpertScale&) {
  return {&LayerRecipe::expert_scale, 1.0f};
}
template <class E>
concept SetsValues = requires(const E& edit) {
  field_of(edit);
};
template <class E>
concept NamesExperts = requires(const E& edit) {
  edit.experts;
};
template <class E>
concept NamesMembers = requires(const E& edit) {
  edit.members;
};

const LayerSet& layers_of(const Edit& edit) {
  static const LayerSet kWholeModel;
  return std::visit(Overloaded{[](const LayerPath&) -> const LayerSet& { return kWholeModel; },
                               [](const auto& e) -> const LayerSet& { return e.layers; }},
                    edit);
}

// nullptr: a router of attention.
const MoeSpec* moe_of(const ModelPlan& plan, int row) {
  const RoutingRow& at = plan.rows[row];
  return std::get_if<MoeSpec>(&plan.layers[at.layer].sublayers[at.sublayer].op);
}

// The experts that have weights; identities come behind them.
int stored_experts(const ModelPlan& plan, int row) {
  const MoeSpec* moe = moe_of(plan, row);
  return plan.routed(row).router.experts - (moe ? moe->identity_experts : 0);
}

bool holds(const LayerSet& set, int layer) {
  return set.all() || std::find(set.layers.begin(), set.layers.end(), layer) != set.layers.end();
}

// The routing rows of these routers, ascending.
std::vector<int> rows_of(const LayerSet& set, const ModelPlan& plan) {
  std::vector<int> rows;
  for (int row = 0; row < static_cast<int>(plan.moe_layers.size()); ++row) {
    if ((moe_of(plan, row) == nullptr) != set.attention) continue;
    if (holds(set, plan.moe_layers[row])) rows.push_back(row);
  }
  return rows;
}

// As above; a mask only where the experts have hidden units; adapters and paths change no row.
std::vector<int> rows_of(const Edit& edit, const ModelPlan& plan) {
  if (std::holds_alternative<SetAdapters>(edit) || std::holds_alternative<LayerPath>(edit)) return {};
  std::vector<int> rows = rows_of(layers_of(edit), plan);
  if (std::holds_alternative<NeuronMask>(edit) || std::holds_alternative<SetExpertKind>(edit))
    std::erase_if(rows, [&](int row) { return moe_of(plan, row) == nullptr; });
  return rows;
}

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

bool names(const SetAdapters& edit, const Linear& linear) {
  return holds(edit.layers, linear.layer) && !linear.module.empty() &&
         (edit.modules.empty() || std::any_of(edit.modules.begin(), edit.modules.end(), [&](const std::string& m) { return names_module(m, linear.module); }));
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

// model_layer: the layer that the row belongs to.
void apply_to_layer(const Edit& edit, int model_layer, int experts, LayerRecipe& layer) {
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

// "2-5, 7"
template <class T>
std::string ranges(const std::vector<T>& values) {
  std::string text;
  for (size_t i = 0; i < values.size();) {
    size_t end = i;
    while (end + 1 < values.size() && values[end + 1] == values[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += end - i >= 2 ? fmt::format("{}-{}", values[i], values[end]) : fmt::format("{}", values[i]);
    i = end - i >= 2 ? end + 1 : i + 1;
  }
  return text;
}

std::string in_layers(const LayerSet& set) {
  const std::string_view router = set.attention ? "the attention of " : "";
  if (set.all()) return fmt::format("in {}all layers", router);
  return fmt::format("in {}layer{} {}", router, set.layers.size() == 1 ? "" : "s", ranges(set.layers));
}

std::string the_experts(const std::vector<ExpertId>& experts) {
  return fmt::format("expert{} {}", experts.size() == 1 ? "" : "s", ranges(experts));
}

std::string weighted(const ExpertMix& mix) {
  if (mix.size() == 1 && mix[0].weight == 1) return fmt::format("expert {}", mix[0].expert);
  std::string text;
  for (const ExpertShare& share : mix)
    text += fmt::format("{}{:g} × expert {}", text.empty() ? "" : " + ", share.weight, share.expert);
  return text;
}

// "0-3, 3, 4, 6-11"
std::string path_text(const std::vector<uint8_t>& passes) {
  return ranges(path_of(passes, int(passes.size())));
}

Result<void> check_chooser(const PathChooser& chooser, const ModelPlan& plan) {
  if (!(chooser.budget >= -1 && chooser.budget <= 1))
    return fail(ErrorCode::kMalformed, fmt::format("budget is {}, needs -1 to 1", chooser.budget));
  if (plan.encoder_layers > 0)
    return fail(ErrorCode::kUsage, "layer routers choose the path of a decoder's prompt; this is an encoder-decoder");
  if (chooser.routers->hidden != plan.hidden)
    return fail(ErrorCode::kUsage, fmt::format("the layer routers read {} values, the model's layers have {}: layers.0.drllm.l1.weight needs shape [128, {}]",
                                               chooser.routers->hidden, plan.hidden, plan.hidden), chooser.file);
  if (const int last = chooser.routers->layers.rbegin()->first; last >= int(plan.layers.size()))
    return fail(ErrorCode::kUsage, fmt::format("there is a router of layer {}; the model has layers 0 to {}", last, plan.layers.size() - 1), chooser.file);
  return {};
}

Result<void> check_path(const LayerPath& path, const ModelPlan& plan) {
  if (path.chooser) return check_chooser(path.chooser, plan);
  const std::vector<uint8_t>& passes = path.passes;
  if (passes.empty()) return {};
  if (passes.size() != plan.layers.size())
    return fail(ErrorCode::kMalformed, fmt::format("the path is over {} layers, the model has {}", passes.size(), plan.layers.size()));
  if (std::all_of(passes.begin(), passes.end(), [](uint8_t n) { return n == 0; }))
    return fail(ErrorCode::kMalformed, "the path names no layer");
  for (size_t layer = 0; layer < passes.size(); ++layer)
    if (passes[layer] > kMostLayerPasses)
      return fail(ErrorCode::kMalformed,
                  fmt::format("the path runs layer {} {} times, at most {} are possible", layer, passes[layer], kMostLayerPasses));
  return {};
}

Result<void> check_value(std::string_view what, float value) {
  if (std::isfinite(value)) return {};
  return fail(ErrorCode::kMalformed, fmt::format("{} is not a finite number", what));
}

Result<void> check_weights(const std::vector<float>& weights, size_t members) {
  if (weights.empty()) return {};
  if (weights.size() != members)
    return fail(ErrorCode::kMalformed, fmt::format("there are {} weights for {} experts", weights.size(), members));
  double sum = 0;
  for (const float weight : weights) {
    SY_CHECK(check_value("weight", weight));
    sum += weight;
  }
  if (!(sum > 0)) return fail(ErrorCode::kMalformed, fmt::format("the weights add up to {:g}, need more than 0", sum));
  return {};
}

// rows: that the row would stand in.
Result<void> check_row(const RowSource& source, const std::vector<int>& rows, const ModelPlan& plan) {
  for (const int row : rows) {
    const RouterSpec& router = plan.routed(row).router;
    if (router.product_key)
      return fail(ErrorCode::kUsage, fmt::format("the router of layer {} makes its logits of two sets of keys, it has no row "
                                                 "of an expert", plan.moe_layers[row]), {}, "Use \"scale\" or bias.");
    const bool names_expert = source.kind == RowSource::Kind::kCopy || source.kind == RowSource::Kind::kRotate;
    if (names_expert && source.expert >= router.experts)
      return fail(ErrorCode::kMalformed, fmt::format("there is no expert {} in layer {}; it has experts 0 to {}",
                                                     source.expert, plan.moe_layers[row], router.experts - 1));
  }
  if (source.kind == RowSource::Kind::kRotate) return check_value("angle", source.degrees);
  if (source.kind != RowSource::Kind::kValues) return {};
  if (source.values->size() != size_t(plan.hidden))
    return fail(ErrorCode::kMalformed, fmt::format("values has {} numbers, a router row of this model has {}",
                                                   source.values->size(), plan.hidden));
  for (const float value : *source.values) SY_CHECK(check_value("values", value));
  return {};
}

// A place holds an expert of another kind, or a mix or a mask of the model's own.
Result<void> check_places(const Edit& edit, int row, const ModelPlan& plan, const LayerRecipe& before, const LayerRecipe& after) {
  const auto refuse = [&](size_t expert) {
    return fail(ErrorCode::kUsage,
                fmt::format("expert {} of layer {} is of kind {}; {} is for the model's own", expert, plan.moe_layers[row],
                            name((after.other(expert) ? after : before).other(expert).kind),
                            std::holds_alternative<SetExpertKind>(edit) ? "what runs there now" : kind(edit)),
                {}, "Give it its own kind first: expert_kind with \"to\":\"own\".");
  };
  if (after.others.empty() && before.others.empty()) return {};
  for (size_t id = 0; id < after.others.size(); ++id)
    if (after.other(id) && (!after.mix(id).empty() || !after.unit_mask(id).empty())) return refuse(id);
  Result<void> fits;
  std::visit([&]<class E>(const E& e) {
    if constexpr (NamesMembers<E>)
      for (const ExpertId id : e.members)
        if (fits && before.other(id)) fits = refuse(id);
  }, edit);
  if (!fits) return fits;
  if (cuts_experts(after.scheme) && std::any_of(after.others.begin(), after.others.end(), [](const OtherExpert& other) { return bool(other); }))
    return fail(ErrorCode::kUsage, fmt::format("layer {} has experts of other kinds, which {} does not cut", plan.moe_layers[row], after.scheme.choice.name));
  return {};
}

// Whether the set was made for linears of these shapes, and something is named.
Result<void> check_adapters(const SetAdapters& edit, const ModelPlan& plan) {
  const std::vector<Linear> linears = linears_of(plan);
  const AdapterSet* set = edit.adapters.set.get();
  bool any = false;
  std::set<std::string> known;
  for (size_t place = 0; place < linears.size(); ++place) {
    const Linear& linear = linears[place];
    if (holds(edit.layers, linear.layer) && !linear.local.empty() && linear.refused.empty()) known.insert(linear.local);
    if (!names(edit, linear)) continue;
    const auto found = set ? set->linears.find(int(place)) : decltype(set->linears.find(0)){};
    if (set && found == set->linears.end()) continue;
    any = true;
    if (set && (found->second.in != linear.cols || found->second.out != linear.rows))
      return fail(ErrorCode::kUsage, fmt::format("an adapter is for {} inputs and {} outputs, the layer has {} and {}", found->second.in, found->second.out,
                                                 linear.cols, linear.rows), linear.module);
  }
  if (any) return {};
  std::vector<std::string> some(known.begin(), known.end());
  if (some.size() > 12) some.resize(12), some.push_back("...");
  return fail(ErrorCode::kUsage, fmt::format("{} is no linear layer here on which adapters can stand", edit.modules.empty() ? "there" : quote(fmt::format("{}", fmt::join(edit.modules, ", ")))), {},
              fmt::format("There are {}.", fmt::join(some, ", ")));
}

}  // namespace

std::string_view kind(const Edit& edit) {
  return std::visit(
      Overloaded{[](const Mute&) { return "mute"; }, [](const Unmute&) { return "unmute"; },
                 [](const Force&) { return "force"; }, [](const Unforce&) { return "unforce"; },
                 [](const Bias&) { return "bias"; }, [](const SelectBias&) { return "select_bias"; },
                 [](const ExpertScale&) { return "expert_scale"; }, [](const TopK&) { return "top_k"; },
                 [](const Temperature&) { return "temperature"; }, [](const RouterRow&) { return "router_row"; },
                 [](const SetScheme&) { return "scheme"; },
                 [](const Swap&) { return "swap"; }, [](const Merge&) { return "merge"; },
                 [](const Clone&) { return "clone"; }, [](const Replace&) { return "replace"; },
                 [](const NeuronMask&) { return "neuron_mask"; }, [](const SetExpertKind&) { return "expert_kind"; },
                 [](const SetAdapters&) { return "adapters"; }, [](const LayerPath&) { return "layer_path"; }},
      edit);
}

Result<void> validate(const Edit& edit, const ModelPlan& plan) {
  for (const int layer : layers_of(edit).layers) {
    if (layer < 0 || layer >= static_cast<int>(plan.layers.size()))
      return fail(ErrorCode::kMalformed,
                  fmt::format("there is no layer {}; the model has layers 0 to {}", layer, plan.layers.size() - 1));
    if (!std::holds_alternative<SetAdapters>(edit) && !plan.layers[layer].routes())
      return fail(ErrorCode::kMalformed, fmt::format("layer {} has no experts", layer), {},
                  fmt::format("Layers with experts: {}.", ranges(plan.moe_layers)));
  }
  if (const auto* adapters = std::get_if<SetAdapters>(&edit)) return check_adapters(*adapters, plan);
  if (const auto* path = std::get_if<LayerPath>(&edit)) return check_path(*path, plan);
  const LayerSet& where = layers_of(edit);
  const std::vector<int> routers = rows_of(where, plan), rows = rows_of(edit, plan);
  if (routers.empty())
    return fail(ErrorCode::kUsage, where.attention && !plan.rows.empty() ? "the model's layers have one router, \"mlp\""
                                                                         : "the model has no layer with experts");
  for (const int layer : where.layers)
    if (std::none_of(routers.begin(), routers.end(), [&](int row) { return plan.moe_layers[row] == layer; }))
      return fail(ErrorCode::kUsage, fmt::format("layer {} has no router \"{}\"", layer, where.attention ? "attention" : "mlp"));
  if (rows.empty()) return fail(ErrorCode::kUsage, "the experts of attention have no hidden layer");
  const auto known = [&](const auto& experts) -> Result<void> {
    if (experts.empty()) return fail(ErrorCode::kMalformed, "no expert is named");
    for (const int row : rows)
      for (const ExpertId id : experts)
        if (const int count = plan.routed(row).router.experts; id >= count)
          return fail(ErrorCode::kMalformed, fmt::format("there is no expert {} in layer {}; it has experts 0 to {}",
                                                         id, plan.moe_layers[row], count - 1));
    return {};
  };
  const auto have_weights = [&](const auto& experts) -> Result<void> {
    for (const int row : rows)
      for (const ExpertId id : experts)
        if (const int count = stored_experts(plan, row); id >= count)
          return fail(ErrorCode::kUsage,
                      fmt::format("expert {} of layer {} has no weights; experts 0 to {} have", id,
                                  plan.moe_layers[row], count - 1));
    return {};
  };

  return std::visit(
      Overloaded{
          [&](const TopK& e) -> Result<void> {
            if (e.k < 0) return fail(ErrorCode::kMalformed, fmt::format("k is {}, needs 1 or more", e.k));
            for (const int row : rows)
              if (const int experts = plan.routed(row).router.experts; e.k > experts)
                return fail(ErrorCode::kUsage,
                            fmt::format("k is {}, layer {} has {} experts", e.k, plan.moe_layers[row], experts));
            return {};
          },
          [&](const Temperature& e) -> Result<void> {
            SY_CHECK(check_value("temperature", e.value));
            if (!(e.value > 0))
              return fail(ErrorCode::kMalformed, fmt::format("temperature is {}, needs more than 0", e.value));
            return {};
          },
          [&](const SetScheme& e) -> Result<void> {
            for (const int row : rows) {
              const int layer = plan.moe_layers[row];
              auto fits = check_scheme(e.scheme.of_layer(layer), plan.routed(row).router, plan.hidden, plan.vocab);
              if (!fits) return fail(fits.error().code, fits.error().what, fmt::format("layer {}", layer), fits.error().hint);
              if (const std::string why = cannot_mix(e.scheme, plan, row); !why.empty())
                return fail(ErrorCode::kUsage, fmt::format("scheme {}: {}", e.scheme.choice.name, why), fmt::format("layer {}", layer));
              if (e.layers.attention && (runs_in_passes(e.scheme) || cuts_experts(e.scheme)))
                return fail(ErrorCode::kUsage, fmt::format("scheme {}: not for the experts of attention", e.scheme.choice.name));
              if (const int slices = e.scheme.stages.slices; slices > 0) {
                const FfnShape& shape = plan.moe(row).expert;
                if (shape.width % slices != 0 || shape.kind == FfnKind::kRankOne)
                  return fail(ErrorCode::kUsage, fmt::format("scheme {}: the experts of layer {} have {} hidden units, which do not make {} equal slices",
                                                             e.scheme.choice.name, layer, shape.width, slices));
              }
              if (runs_in_passes(e.scheme) && plan.layers[layer].sublayers[plan.rows[row].sublayer].deferred)
                return fail(ErrorCode::kUsage, fmt::format("scheme {}: the output of layer {} is not added where it is made",
                                                           e.scheme.choice.name, layer));
            }
            return {};
          },
          [&](const RouterRow& e) -> Result<void> {
            SY_CHECK(known(e.experts));
            return e.row ? check_row(*e.row, rows, plan) : check_value("scale", e.scale);
          },
          [&]<NamesMembers E>(const E& e) -> Result<void> {
            SY_CHECK(known(e.members));
            SY_CHECK(have_weights(e.members));
            if (std::is_same_v<E, Swap> ? e.members.size() != 2 : e.members.size() < 2)
              return fail(ErrorCode::kMalformed, fmt::format("{} takes {} experts, here are {}", kind(edit),
                                                             std::is_same_v<E, Swap> ? "two" : "two or more",
                                                             e.members.size()));
            if (std::set(e.members.begin(), e.members.end()).size() != e.members.size())
              return fail(ErrorCode::kMalformed, fmt::format("{} names an expert twice", kind(edit)));
            if constexpr (std::is_same_v<E, Merge>) return check_weights(e.weights, e.members.size());
            return {};
          },
          [&](const Replace& e) -> Result<void> {
            SY_CHECK(known(e.experts));
            SY_CHECK(have_weights(e.experts));
            std::vector<ExpertId> from;
            for (const ExpertShare& share : e.mix) {
              SY_CHECK(check_value("weight", share.weight));
              from.push_back(share.expert);
            }
            if (from.empty()) return {};
            SY_CHECK(known(from));
            return have_weights(from);
          },
          [&](const SetAdapters&) -> Result<void> { return {}; },  // checked above
          [&](const NeuronMask& e) -> Result<void> {
            SY_CHECK(known(e.experts));
            SY_CHECK(have_weights(e.experts));
            for (const int row : rows)
              if (const int width = plan.moe(row).expert.width; !e.neurons.empty() && e.neurons.back() >= width)
                return fail(ErrorCode::kMalformed,
                            fmt::format("there is no neuron {} in the experts of layer {}; they have 0 to {}",
                                        e.neurons.back(), plan.moe_layers[row], width - 1));
            return {};
          },
          [&](const SetExpertKind& e) -> Result<void> {
            SY_CHECK(known(e.experts));
            SY_CHECK(have_weights(e.experts));
            for (const int row : rows)
              for (const ExpertId id : e.experts)
                if (auto fits = check_expert(e.to, e.tensors.get(), plan.moe_layers[row], id, plan.hidden); !fits)
                  return fail(fits.error().code, fits.error().what, e.file, fits.error().hint);
            return {};
          },
          [](const LayerPath&) -> Result<void> { return {}; },
          [&]<NamesExperts E>(const E& e) -> Result<void> {
            SY_CHECK(known(e.experts));
            if constexpr (SetsValues<E>) SY_CHECK(check_value(kind(edit), e.value));
            return {};
          },
      },
      edit);
}

Result<void> validate(const Edit& edit, const ModelPlan& plan, const Recipe& before) {
  SY_CHECK(validate(edit, plan));
  static const LayerRecipe kNative;
  for (const int row : rows_of(edit, plan)) {
    const RouterSpec& router = plan.routed(row).router;
    LayerRecipe after = before.layers.empty() ? kNative : before.layers[row];
    apply_to_layer(edit, plan.moe_layers[row], router.experts, after);
    const auto muted = std::count(after.muted.begin(), after.muted.end(), 1);
    if (muted == router.experts)
      return fail(ErrorCode::kUsage,
                  fmt::format("layer {} would have no expert left: all {} are muted", plan.moe_layers[row], muted));
    const auto forced = std::count(after.forced.begin(), after.forced.end(), 1);
    if (forced > 0 && batch_coupled(after.scheme))
      return fail(ErrorCode::kUsage,
                  fmt::format("layer {}: the scheme {} decides for all tokens together and cannot force an expert",
                              plan.moe_layers[row], after.scheme.choice.name));
    SY_CHECK(check_places(edit, row, plan, before.layers.empty() ? kNative : before.layers[row], after));
    const int k = slots_needed(router, &after);
    if (forced > k)
      return fail(ErrorCode::kUsage, fmt::format("layer {} would have {} forced experts, a token takes {}",
                                                 plan.moe_layers[row], forced, k));
  }
  return {};
}

Result<void> check_time(const EditCommand& command) {
  if (command.at_token.value_or(0) == 0 || !std::holds_alternative<LayerPath>(command.edit)) return {};
  return fail(ErrorCode::kUsage,
              fmt::format("a layer path holds for a whole sequence and cannot begin at token {}", *command.at_token), {},
              "Leave out at_token; in a running session it takes effect at the next prefill.");
}

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

std::string tag(const Edit& edit) {
  if (std::holds_alternative<LayerPath>(edit)) return {};
  if (std::visit([]<class E>(const E&) { return NamesMembers<E>; }, edit)) return {};
  const LayerSet& set = layers_of(edit);
  std::string text = fmt::format("{}/{}{}", kind(edit), set.attention ? "attention " : "",
                                 set.all() ? "all" : fmt::format("{}", fmt::join(set.layers, ",")));
  std::visit(Overloaded{[&](const SetScheme& e) { text += "/" + e.scheme.choice.name; },
                        [&](const SetAdapters& e) {
                          text += fmt::format("/{}", fmt::join(e.modules, ","));
                          if (e.adapters) text += fmt::format("/{}/{}", e.adapters.set->choice.router, fmt::join(e.adapters.set->choice.files, ","));
                        },
                        [&]<NamesExperts E>(const E& e) { text += fmt::format("/{}", fmt::join(e.experts, ",")); },
                        [](const auto&) {}},
             edit);
  if (const auto* row = std::get_if<RouterRow>(&edit); row && row->row) text += "/row";
  return text;
}

std::string describe(const Edit& edit) {
  const std::string where = in_layers(layers_of(edit));
  return std::visit(
      Overloaded{
          [&](const Mute& e) { return fmt::format("Mute {} {}", the_experts(e.experts), where); },
          [&](const Unmute& e) { return fmt::format("Unmute {} {}", the_experts(e.experts), where); },
          [&](const Force& e) { return fmt::format("Force {} {}", the_experts(e.experts), where); },
          [&](const Unforce& e) { return fmt::format("No longer force {} {}", the_experts(e.experts), where); },
          [&](const Bias& e) {
            return e.value == 0 ? fmt::format("Remove the bias of {} {}", the_experts(e.experts), where)
                                : fmt::format("Bias {} by {:+g} {}", the_experts(e.experts), e.value, where);
          },
          [&](const SelectBias& e) {
            return e.value == 0
                       ? fmt::format("Remove the selection bias of {} {}", the_experts(e.experts), where)
                       : fmt::format("Bias the selection of {} by {:+g} {}", the_experts(e.experts), e.value, where);
          },
          [&](const ExpertScale& e) {
            return fmt::format("Scale the output of {} by {:g} {}", the_experts(e.experts), e.value, where);
          },
          [&](const TopK& e) {
            return e.k == 0 ? fmt::format("Top-k as the model has it {}", where)
                            : fmt::format("Top-k {} {}", e.k, where);
          },
          [&](const Temperature& e) { return fmt::format("Router temperature {:g} {}", e.value, where); },
          [&](const SetScheme& e) {
            return e.scheme ? fmt::format("Gate by {} {}", describe(e.scheme.choice), where)
                            : fmt::format("The model's own router {}", where);
          },
          [&](const SetAdapters& e) {
            const std::string on = e.modules.empty() ? where : fmt::format("on {} {}", fmt::join(e.modules, ", "), where);
            return e.adapters ? fmt::format("Adapters {} {}", describe(e.adapters.set->choice), on) : fmt::format("Take the adapters away {}", on);
          },
          [&](const RouterRow& e) {
            const std::string rows = fmt::format("the router row of {}", the_experts(e.experts));
            if (!e.row) return fmt::format("Scale {} by {:g} {}", rows, e.scale, where);
            switch (e.row->kind) {
              case RowSource::Kind::kOwn: return fmt::format("Put {} back {}", rows, where);
              case RowSource::Kind::kCopy: return fmt::format("Copy expert {}'s row to {} {}", e.row->expert, rows, where);
              case RowSource::Kind::kRotate:
                return fmt::format("Rotate {} by {:g}° towards expert {} {}", rows, e.row->degrees, e.row->expert, where);
              case RowSource::Kind::kValues: return fmt::format("Write new values to {} {}", rows, where);
            }
            return rows;
          },
          [&](const Swap& e) {
            return fmt::format("Swap the weights of experts {} and {} {}", e.members[0], e.members[1], where);
          },
          [&](const Merge& e) {
            return fmt::format("Merge experts {} into expert {} {}{}", fmt::join(e.members, ", "), e.members[0], where,
                               e.weights.empty() ? "" : fmt::format(" with weights {}", fmt::join(e.weights, ", ")));
          },
          [&](const Clone& e) {
            const std::vector<ExpertId> others(e.members.begin() + 1, e.members.end());
            return fmt::format("Clone expert {} over {} {}", e.members[0], the_experts(others), where);
          },
          [&](const Replace& e) {
            return e.mix.empty() ? fmt::format("Give {} {} own weights back {}", the_experts(e.experts),
                                                   e.experts.size() == 1 ? "its" : "their", where)
                                 : fmt::format("Run {} in the place of {} {}", weighted(e.mix), the_experts(e.experts), where);
          },
          [](const LayerPath& e) {
            if (e.chooser) return fmt::format("Choose the layers by the routers of {}, budget {:+g}", e.chooser.file, e.chooser.budget);
            return e.passes.empty() ? std::string("Run every layer once") : fmt::format("Run the layers {}", path_text(e.passes));
          },
          [&](const NeuronMask& e) {
            return e.neurons.empty()
                       ? fmt::format("Switch all neurons of {} on {}", the_experts(e.experts), where)
                       : fmt::format("Switch neuron{} {} of {} off {}", e.neurons.size() == 1 ? "" : "s",
                                     ranges(e.neurons), the_experts(e.experts), where);
          },
          [&](const SetExpertKind& e) {
            return e.to == ExpertKind::kOwn ? fmt::format("Make {} {} own kind again {}", the_experts(e.experts), e.experts.size() == 1 ? "its" : "their", where)
                                            : fmt::format("Make {} {} {}{}", the_experts(e.experts), name(e.to), where,
                                                          e.file.empty() ? "" : " from " + e.file);
          },
      },
      edit);
}

}  // namespace switchyard
