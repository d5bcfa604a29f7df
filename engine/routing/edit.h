// Edits as commands: one closed list of small structs that is the undo stack, the edit script, the
// provenance in a trace, the palette and the command line (kinds and fields: specs/cli.md).
// Pure functions on values; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// Which routers an edit touches: model layer indices, ascending; empty means every layer with experts. Of the two
// routers that jetmoe has in a layer it is the feed-forward's, or the attention's.
struct LayerSet {
  std::vector<int> layers;
  bool attention = false;
  bool all() const { return layers.empty(); }
  bool operator==(const LayerSet&) const = default;
};

// The one router of a routing row.
LayerSet layer_of_row(const ModelPlan& plan, int row);

struct Mute { LayerSet layers; std::vector<ExpertId> experts; bool operator==(const Mute&) const = default; };
struct Unmute { LayerSet layers; std::vector<ExpertId> experts; bool operator==(const Unmute&) const = default; };
struct Force { LayerSet layers; std::vector<ExpertId> experts; bool operator==(const Force&) const = default; };
struct Unforce { LayerSet layers; std::vector<ExpertId> experts; bool operator==(const Unforce&) const = default; };
struct Bias { LayerSet layers; std::vector<ExpertId> experts; float value = 0; bool operator==(const Bias&) const = default; };
struct SelectBias { LayerSet layers; std::vector<ExpertId> experts; float value = 0; bool operator==(const SelectBias&) const = default; };
struct ExpertScale { LayerSet layers; std::vector<ExpertId> experts; float value = 1; bool operator==(const ExpertScale&) const = default; };
struct TopK { LayerSet layers; int k = 0; bool operator==(const TopK&) const = default; };  // 0: the model's own
struct Temperature { LayerSet layers; float value = 1; bool operator==(const Temperature&) const = default; };
// Either the scale (row absent) or what stands in the row; the other stays.
struct RouterRow { LayerSet layers; std::vector<ExpertId> experts; float scale = 1; std::optional<RowSource> row = {}; bool operator==(const RouterRow&) const = default; };

// Edits of what runs in an expert's place. Its router row, biases, scale and unit mask stay with the place.
struct Swap { LayerSet layers; std::vector<ExpertId> members; bool operator==(const Swap&) const = default; };   // two
struct Merge { LayerSet layers; std::vector<ExpertId> members; std::vector<float> weights; bool operator==(const Merge&) const = default; };  // the mean runs in the first's place, the others are muted; no weights: equal ones
struct Clone { LayerSet layers; std::vector<ExpertId> members; bool operator==(const Clone&) const = default; };  // the first runs in all their places
struct Replace { LayerSet layers; std::vector<ExpertId> experts; ExpertMix mix; bool operator==(const Replace&) const = default; };  // of the checkpoint's experts; empty: its own
struct NeuronMask { LayerSet layers; std::vector<ExpertId> experts; std::vector<int> neurons; bool operator==(const NeuronMask&) const = default; };  // all that are off

// An expert of another kind in the place; kOwn: what ran there before. Weights are those of the file for the layer and id.
struct SetExpertKind {
  LayerSet layers;
  std::vector<ExpertId> experts;
  ExpertKind to = ExpertKind::kOwn;
  std::string file = {};
  std::shared_ptr<const ExpertFile> tensors = {};  // of the file
  bool operator==(const SetExpertKind& other) const {
    return layers == other.layers && experts == other.experts && to == other.to && file == other.file;
  }
};
// LayerPath (engine/routing/recipe.h) is an edit as it stands: all of the path is set, not one layer of it.
inline constexpr int kMostLayerPasses = 4;

// An empty scheme: the model's own router.
struct SetScheme { LayerSet layers; Scheme scheme; bool operator==(const SetScheme&) const = default; };

// Routed adapters on the linears of these layers, with experts or without, whose module one of `modules` names (empty:
// all that the set has); what stood there is replaced. A null set: none any more.
struct SetAdapters { LayerSet layers; std::vector<std::string> modules; AdapterRef adapters; bool operator==(const SetAdapters&) const = default; };

// Values are set, not accumulated: a later bias of the same expert replaces the earlier one. Swap, merge and clone
// act on what runs in the places at that moment.
using Edit = std::variant<Mute, Unmute, Force, Unforce, Bias, SelectBias, ExpertScale, TopK, Temperature, RouterRow,
                          SetScheme, Swap, Merge, Clone, Replace, NeuronMask, SetExpertKind, SetAdapters, LayerPath>;

// One entry of a script or of the undo stack.
struct EditCommand {
  Edit edit;
  std::optional<uint64_t> at_token;  // first token routed under it; absent: now (scripts: from the start)
  bool operator==(const EditCommand&) const = default;
};

std::string_view kind(const Edit& edit);  // "mute"

// Checks ids, layers, k and finiteness against the model. kMalformed for nonsense, kUsage for a sound
// edit that does not fit this model.
Result<void> validate(const Edit& edit, const ModelPlan& plan);

// kUsage: a layer path that begins within a sequence.
Result<void> check_time(const EditCommand& command);

// The layers in the order in which they run, each as often as it does.
std::vector<int> path_of(const std::vector<uint8_t>& passes, int layers);

// As above, and refuses (kUsage) an edit that would leave a layer without an expert or force more experts
// than a token takes, given the recipe that it would change.
Result<void> validate(const Edit& edit, const ModelPlan& plan, const Recipe& before);

// Applies a validated edit. A layer path is for the next sequence: who calls keeps it from a running one. Muting an expert ends its being forced, and the other way round. Equal edit states
// are equal recipes: what is back at its native value is let go, a recipe without edits has no layers.
void apply(const Edit& edit, const ModelPlan& plan, Recipe& recipe);

// The edits that restore `before` exactly where `edit` touches it; applying them after `edit` gives a
// recipe equal to `before`.
std::vector<Edit> invert(const Edit& edit, const ModelPlan& plan, const Recipe& before);

// The fewest edits that make this recipe from the native router.
std::vector<Edit> edits_of(const Recipe& recipe, const ModelPlan& plan);

// Same tag: a drag; the later edit replaces the earlier as one undo step ("bias/3/5"). Empty: never.
std::string tag(const Edit& edit);

// One sentence for people: "Mute expert 12 in layer 5", "Top-k 2 in layers 6-7".
std::string describe(const Edit& edit);

// JSON of one entry: {"kind":"mute","layer":3,"expert":5,"at_token":10}, and of a whole script.
std::string to_json(const EditCommand& command);
std::string to_json_script(const std::vector<EditCommand>& commands);

// A problem of one script entry, by position in "edits" (from 0).
struct ScriptProblem {
  int entry = -1;  // -1: the document itself
  std::string message;
  ErrorCode code = ErrorCode::kMalformed;
};
// Reads a script; applied whole or not at all. On failure the error carries the first problem with its
// entry ("edits[3]"); `problems`, when given, receives all of them.
Result<std::vector<EditCommand>> parse_script(std::string_view json, const ModelPlan& plan,
                                              std::vector<ScriptProblem>* problems = nullptr);

}  // namespace switchyard
