// Whether an edit can be made: of the model's shape, and after the edits before it.
#include "engine/routing/edit.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/text.h"
#include "engine/model/linears.h"
#include "engine/routing/decision.h"
#include "engine/routing/edit_parts.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/path_router.h"

namespace switchyard {

using namespace edit_parts;

namespace {

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

}  // namespace switchyard
