// Edits in words: the name of a kind, what one drag is recognised by, the sentence that lists show.
#include "engine/routing/edit.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/routing/edit_parts.h"

namespace switchyard {

using namespace edit_parts;

namespace {

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
