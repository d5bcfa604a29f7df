// Rows of frames for what adapter routers decide: behind the router's own rows of the layer (frame.h). A row has room for
// as many adapters as the model has experts. Routers that do not look at the token, layers without experts, and linears
// that not every token passes have none; of a layer that runs in passes it holds the last. Pure; any thread.
#pragma once

#include <span>
#include <vector>

#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard {

class RoutingFrame;

struct AdapterRow {
  int row = 0;    // of frames
  int place = 0;  // engine/model/linears.h
  const AdapterSet* set = nullptr;  // of the recipe
};

// By rising place.
std::vector<AdapterRow> adapter_rows(const ModelPlan& plan, const Recipe& recipe);
// -1: the place has none.
int row_of(std::span<const AdapterRow> rows, int place);

// Adapters, of FlyLoRA ranks, that may have a weight for one token.
int most_chosen(const AdapterRule& rule, const AdaptedLinear& linear);

// weights, scores: [choices]. The frame has the row; what no adapter serves is not recorded.
void record_adapters(RoutingFrame& frame, int row, std::span<const float> weights, std::span<const float> scores);

}  // namespace switchyard
