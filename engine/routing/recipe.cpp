// When is an edited layer exactly the native one? Asked by backends for every token and layer.
#include "engine/routing/recipe.h"

#include <algorithm>

namespace switchyard {
namespace {

template <class T>
bool all_equal(const std::vector<T>& values, T neutral) {
  return std::all_of(values.begin(), values.end(), [&](T value) { return value == neutral; });
}

}  // namespace

bool LayerRecipe::is_identity() const {
  return !scheme && k == 0 && temperature == 1.0f && all_equal(row_scale, 1.0f) && all_equal(logit_bias, 0.0f) &&
         all_equal(select_bias, 0.0f) && all_equal(expert_scale, 1.0f) && all_equal(muted, uint8_t(0)) &&
         all_equal(forced, uint8_t(0));
}

bool Recipe::is_identity() const {
  return std::all_of(layers.begin(), layers.end(), [](const LayerRecipe& layer) { return layer.is_identity(); });
}

}  // namespace switchyard
