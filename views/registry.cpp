// The built-in views, in dock order. Adding one: a folder, a line here, a help page, a test.
#include "views/affinity/view.h"
#include "views/compare/view.h"
#include "views/expert_load/view.h"
#include "views/gate_inspector/view.h"
#include "views/routing_heatmap/view.h"
#include "views/token_strip/view.h"
#include "views/view.h"

namespace switchyard {

std::vector<std::unique_ptr<View>> make_builtin_views() {
  std::vector<std::unique_ptr<View>> views;
  views.push_back(std::make_unique<RoutingHeatmap>());
  views.push_back(std::make_unique<GateInspector>());
  views.push_back(std::make_unique<ExpertLoad>());
  views.push_back(std::make_unique<AffinityView>());
  views.push_back(std::make_unique<TokenStrip>());
  views.push_back(std::make_unique<CompareView>());
  return views;
}

}  // namespace switchyard
