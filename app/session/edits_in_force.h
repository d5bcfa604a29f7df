// Ready-made edits for the actions of the window: what "mute", "solo", "force" and "reset" mean for the
// recipe in force. Pure; any thread.
#pragma once

#include <optional>
#include <vector>

#include "engine/routing/edit.h"
#include "engine/runtime/session.h"

namespace switchyard {

// The recipe the next token will use, as far as the snapshot knows; nullptr: identity.
const Recipe* recipe_in_force(const SessionSnapshot& snapshot);

bool is_muted(const LayerRecipe* layer, int expert);
bool is_forced(const LayerRecipe* layer, int expert);
float bias_of(const LayerRecipe* layer, int expert);

// layer: the one router (layer_of_row()).
EditCommand toggle_mute(const LayerRecipe* recipe, const LayerSet& layer, int expert);
EditCommand toggle_force(const LayerRecipe* recipe, const LayerSet& layer, int expert);
EditCommand nudge_bias(const LayerRecipe* recipe, const LayerSet& layer, int expert, float by);
// Everything that makes the layer native again; empty where it is.
std::vector<EditCommand> reset_layer(const LayerRecipe* recipe, const LayerSet& layer);

// Whether both run alike, whatever their epochs.
bool same_edits(const Recipe& a, const Recipe& b);

// The history as a script: entries of an earlier sequence are in force from the start, the others from
// their first token on, scheduled ones from the token they wait for. Undone entries are left out.
std::vector<EditCommand> script_of(const SessionSnapshot& snapshot);

}  // namespace switchyard
