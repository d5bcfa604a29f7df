// Validating, applying, inverting and describing edits: one visitor each over the closed list of kinds.
#include "engine/routing/edit.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/routing/decision.h"

namespace switchyard {
namespace {

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

// The four kinds that set one number per expert: where the number lives and what means "none".
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
ValueField field_of(const RouterRow&) {
  return {&LayerRecipe::row_scale, 1.0f};
}
template <class E>
float value_of(const E& edit) {
  return edit.value;
}
float value_of(const RouterRow& edit) {
  return edit.scale;
}
template <class E>
concept SetsValues = requires(const E& edit) {
  field_of(edit);
};
template <class E>
concept NamesExperts = requires(const E& edit) {
  edit.experts;
};

const LayerSet& layers_of(const Edit& edit) {
  return std::visit([](const auto& e) -> const LayerSet& { return e.layers; }, edit);
}

// The routing rows that an edit touches, ascending.
std::vector<int> rows_of(const LayerSet& set, const ModelPlan& plan) {
  std::vector<int> rows;
  for (size_t row = 0; row < plan.moe_layers.size(); ++row)
    if (set.all() || std::find(set.layers.begin(), set.layers.end(), plan.moe_layers[row]) != set.layers.end())
      rows.push_back(static_cast<int>(row));
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
  if (std::all_of(values.begin(), values.end(), [&](T entry) { return entry == neutral; })) values.clear();
}

template <class T>
T entry(const std::vector<T>& values, ExpertId expert, T neutral) {
  return values.empty() ? neutral : values[expert];
}

void set_flag(std::vector<uint8_t>& flags, size_t size, ExpertId expert, bool on) {
  set_entry<uint8_t>(flags, size, expert, on, 0);
}

// model_layer: the layer that the row belongs to.
void apply_to_layer(const Edit& edit, int model_layer, int experts, LayerRecipe& layer) {
  const size_t size = experts;
  std::visit(Overloaded{
                 [&](const Mute& e) {
                   for (const ExpertId id : e.experts)
                     set_flag(layer.muted, size, id, true), set_flag(layer.forced, size, id, false);
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
                 [&]<SetsValues E>(const E& e) {
                   const ValueField field = field_of(e);
                   for (const ExpertId id : e.experts)
                     set_entry(layer.*field.values, size, id, value_of(e), field.neutral);
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

// Every edit that turns `from` into `to` in the given rows: the one place that knows how a difference of
// recipes is said in edits. rows ascending; experts per row from the plan.
std::vector<Edit> difference(const Recipe& from, const Recipe& to, const std::vector<int>& rows,
                             const ModelPlan& plan) {
  static const LayerRecipe kNative;
  enum Flag { kUnmute, kUnforce, kMute, kForce };  // removals first: a mute clears a force and vice versa
  Gathered<Flag> flags;
  Gathered<float> biases, select_biases, expert_scales, row_scales, temperatures;
  Gathered<int> ks;
  std::vector<SetScheme> schemes;
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
  if (set.all()) return "in all layers";
  return fmt::format("in layer{} {}", set.layers.size() == 1 ? "" : "s", ranges(set.layers));
}

std::string the_experts(const std::vector<ExpertId>& experts) {
  return fmt::format("expert{} {}", experts.size() == 1 ? "" : "s", ranges(experts));
}

Result<void> check_value(std::string_view what, float value) {
  if (std::isfinite(value)) return {};
  return fail(ErrorCode::kMalformed, fmt::format("{} is not a finite number", what));
}

}  // namespace

std::string_view kind(const Edit& edit) {
  return std::visit(
      Overloaded{[](const Mute&) { return "mute"; }, [](const Unmute&) { return "unmute"; },
                 [](const Force&) { return "force"; }, [](const Unforce&) { return "unforce"; },
                 [](const Bias&) { return "bias"; }, [](const SelectBias&) { return "select_bias"; },
                 [](const ExpertScale&) { return "expert_scale"; }, [](const TopK&) { return "top_k"; },
                 [](const Temperature&) { return "temperature"; }, [](const RouterRow&) { return "router_row"; },
                 [](const SetScheme&) { return "scheme"; }},
      edit);
}

Result<void> validate(const Edit& edit, const ModelPlan& plan) {
  for (const int layer : layers_of(edit).layers) {
    if (layer < 0 || layer >= static_cast<int>(plan.layers.size()))
      return fail(ErrorCode::kMalformed,
                  fmt::format("there is no layer {}; the model has layers 0 to {}", layer, plan.layers.size() - 1));
    if (!plan.layers[layer].routes())
      return fail(ErrorCode::kMalformed, fmt::format("layer {} has no experts", layer), {},
                  fmt::format("Layers with experts: {}.", ranges(plan.moe_layers)));
  }
  const std::vector<int> rows = rows_of(layers_of(edit), plan);
  if (rows.empty()) return fail(ErrorCode::kUsage, "the model has no layer with experts");

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
            }
            return {};
          },
          [&]<NamesExperts E>(const E& e) -> Result<void> {
            if (e.experts.empty()) return fail(ErrorCode::kMalformed, "no expert is named");
            for (const int row : rows)
              for (const ExpertId id : e.experts)
                if (const int experts = plan.routed(row).router.experts; id >= experts)
                  return fail(ErrorCode::kMalformed,
                              fmt::format("there is no expert {} in layer {}; it has experts 0 to {}", id,
                                          plan.moe_layers[row], experts - 1));
            if constexpr (SetsValues<E>) SY_CHECK(check_value(kind(edit), value_of(e)));
            return {};
          },
      },
      edit);
}

Result<void> validate(const Edit& edit, const ModelPlan& plan, const Recipe& before) {
  SY_CHECK(validate(edit, plan));
  static const LayerRecipe kNative;
  for (const int row : rows_of(layers_of(edit), plan)) {
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
    const int k = slots_needed(router, &after);
    if (forced > k)
      return fail(ErrorCode::kUsage, fmt::format("layer {} would have {} forced experts, a token takes {}",
                                                 plan.moe_layers[row], forced, k));
  }
  return {};
}

void apply(const Edit& edit, const ModelPlan& plan, Recipe& recipe) {
  if (recipe.layers.empty()) recipe.layers.resize(plan.moe_layers.size());
  for (const int row : rows_of(layers_of(edit), plan))
    apply_to_layer(edit, plan.moe_layers[row], plan.routed(row).router.experts, recipe.layers[row]);
  if (recipe.is_identity()) recipe.layers.clear();
}

std::vector<Edit> invert(const Edit& edit, const ModelPlan& plan, const Recipe& before) {
  Recipe after = before;
  apply(edit, plan, after);
  return difference(after, before, rows_of(layers_of(edit), plan), plan);
}

std::vector<Edit> edits_of(const Recipe& recipe, const ModelPlan& plan) {
  return difference({}, recipe, rows_of({}, plan), plan);
}

std::string tag(const Edit& edit) {
  const LayerSet& set = layers_of(edit);
  std::string text =
      fmt::format("{}/{}", kind(edit), set.all() ? "all" : fmt::format("{}", fmt::join(set.layers, ",")));
  std::visit(Overloaded{[&](const SetScheme& e) { text += "/" + e.scheme.choice.name; },
                        [&]<NamesExperts E>(const E& e) { text += fmt::format("/{}", fmt::join(e.experts, ",")); },
                        [](const auto&) {}},
             edit);
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
          [&](const RouterRow& e) {
            return fmt::format("Scale the router row of {} by {:g} {}", the_experts(e.experts), e.scale, where);
          },
      },
      edit);
}

}  // namespace switchyard
