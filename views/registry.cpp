// The built-in views, in dock order. Adding one: a folder, a line here, a help page, a test.
#include "views/routing_heatmap/view.h"
#include "views/view.h"

namespace switchyard {

std::vector<std::unique_ptr<View>> make_builtin_views() {
  std::vector<std::unique_ptr<View>> views;
  views.push_back(std::make_unique<RoutingHeatmap>());
  return views;
}

}  // namespace switchyard
