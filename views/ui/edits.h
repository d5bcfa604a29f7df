// What was changed on one expert, in words and as state, and the commands that change it: shared by all
// views, so that a click, a key and a menu entry send the same edit. GUI thread only.
#pragma once

#include <string>

#include "views/host/item_map.h"
#include "views/ui/canvas.h"
#include "views/view.h"

namespace switchyard {

struct ExpertEdits {
  bool muted = false, forced = false;
  float bias = 0, select_bias = 0;
  float output_scale = 1, row_scale = 1;
  ExpertMix mix;  // what runs in its place; empty: its own weights
  int neurons_off = 0;
  bool row_replaced = false;
  ExpertKind kind = ExpertKind::kOwn;
  bool any() const { return *this != ExpertEdits{}; }
  bool operator==(const ExpertEdits&) const = default;
};

// nullptr: native.
const LayerRecipe* recipe_shown(const RunData& data, const TimeCursor& cursor, int moe_layer);  // routed the shown token
const LayerRecipe* recipe_next(const RunData& data, int moe_layer);                             // will route the next one
const Recipe* recipe_of(const RunData& data, uint64_t token);  // routed this token; nullptr: native or not known
ExpertEdits edits_of(const LayerRecipe* recipe, int expert);
std::string in_words(const ExpertEdits& edits);  // "muted", "bias +0.50, output × 0.80"; empty: none
// For tooltips: edits at the shown token, and from the next one where that differs.
std::string edit_lines(const ViewContext& context, int moe_layer, int expert);

int experts_of(const RunData& data, int moe_layer);     // E of one row
// Rows of frames in the order of execution: the routers' first decisions, and the later ones that some frame has.
std::vector<int> shown_rows(const RunData& data);
// Of the selected router: the selected decision where the frame has it, else the first.
int decision_row(const RunData& data, const Selection& selection, const RoutingFrame* frame);
// "3"; "3a": the router of layer 3's attention, where a layer has two; "3·2": its second decision. Rows of frames.
std::string row_label(const RunData& data, int row);
int model_layer(const RunData& data, int moe_layer);    // the model's layer number
int clamped_row(const RunData& data, const Selection& selection);
// The selected expert where the selected row has it; a selection may come from another model.
std::optional<int> selected_expert(const ViewContext& context);

// Both recipes of one row; looked up once per row, not once per cell.
struct RowRecipes {
  const LayerRecipe* shown = nullptr;
  const LayerRecipe* next = nullptr;
  bool native() const { return !shown && !next; }
};
RowRecipes row_recipes(const ViewContext& context, int moe_layer);
// Hatching in the edit colour where an expert is edited: full at the shown token, faint from the next on.
void mark_edits(const Theme& theme, const RowRecipes& recipes, int expert, const ItemRect& cell);

void select_expert(const ViewContext& context, int moe_layer, int expert);
void toggle_mute(const ViewContext& context, int moe_layer, int expert);
void toggle_force(const ViewContext& context, int moe_layer, int expert);
void nudge_bias(const ViewContext& context, int moe_layer, int expert, float by);
void reset_expert(const ViewContext& context, int moe_layer, int expert);
void reset_layer(const ViewContext& context, int moe_layer);

// M mutes, G forces, [ and ] move the logit bias by 0.1; true: the key was one of them.
bool edit_key(const ViewContext& context, const KeyPress& press, int moe_layer, int expert);

// Call once per repaint with the popup's place; opens with ImGui::OpenPopup(kExpertMenu).
inline constexpr const char* kExpertMenu = "expert menu";
void expert_menu(const ViewContext& context, int moe_layer, int expert);

}  // namespace switchyard
