// The few controls that live inside a picture: a slider line and a button, registered in the item map.
// GUI thread, inside a frame.
#pragma once

#include <optional>
#include <string>

#include "views/host/item_map.h"
#include "views/view.h"

namespace switchyard {

// What a slider last sent, so that it does not jump back before the engine has taken the edit.
struct SliderState {
  float value = 0;
  double until = -1;  // shown instead of the engine's value until then
};

struct SliderSpec {
  std::string id;  // "top_k": the item is "slider/top_k"
  std::string label;
  float min = 0, max = 1;
  float neutral = 0;            // the model's own value; double click returns to it
  const char* format = "%.2f";  // of the value at the right
  bool whole = false, logarithmic = false;
};

// One line: label, track with a round knob, value in mono. Returns the new value while it is dragged,
// typed (Ctrl+click) or reset.
std::optional<float> slider_line(const ViewContext& context, const ItemRect& line, const SliderSpec& spec, float value,
                                 SliderState& state);

// At the cursor of the ImGui window; true: pressed. The item is "button/<id>".
bool small_button(const ViewContext& context, const std::string& id, const std::string& words, bool edited = false,
                  bool enabled = true);
float small_button_width(const std::string& words);

}  // namespace switchyard
