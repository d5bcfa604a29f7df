// When is an edited layer exactly the native one? Asked by backends for every token and layer.
#include "engine/routing/recipe.h"

#include <algorithm>
#include <tuple>

namespace switchyard {
namespace {

template <class T>
bool all_equal(const std::vector<T>& values, T neutral) {
  return std::all_of(values.begin(), values.end(), [&](const T& value) { return value == neutral; });
}

template <class T>
bool all_equal(const std::vector<std::vector<T>>& values) {
  return std::all_of(values.begin(), values.end(), [](const std::vector<T>& value) { return value.empty(); });
}

std::tuple<RowSource::Kind, ExpertId, float> place(const RowSource& row) {
  return {row.kind, row.expert, row.degrees};
}

}  // namespace

bool RowSource::operator==(const RowSource& other) const {
  return place(*this) == place(other) && (values == other.values || (values && other.values && *values == *other.values));
}

bool RowSource::operator<(const RowSource& other) const {
  if (place(*this) != place(other)) return place(*this) < place(other);
  return values != other.values && (!values || (other.values && *values < *other.values));
}

const ExpertMix& LayerRecipe::mix(size_t expert) const {
  static const ExpertMix kOwn;
  return mixes.empty() ? kOwn : mixes[expert];
}

const std::vector<int>& LayerRecipe::unit_mask(size_t expert) const {
  static const std::vector<int> kNone;
  return unit_masks.empty() ? kNone : unit_masks[expert];
}

const OtherExpert& LayerRecipe::other(size_t expert) const {
  static const OtherExpert kOwn;
  return others.empty() ? kOwn : others[expert];
}

bool LayerRecipe::is_identity() const {
  return !scheme && k == 0 && temperature == 1.0f && all_equal(row_scale, 1.0f) && all_equal(logit_bias, 0.0f) &&
         all_equal(select_bias, 0.0f) && all_equal(expert_scale, 1.0f) && all_equal(muted, uint8_t(0)) &&
         all_equal(forced, uint8_t(0)) && all_equal(mixes) && all_equal(unit_masks) &&
         all_equal(router_rows, RowSource{}) && all_equal(others, OtherExpert{});
}

bool Recipe::routes_natively() const {
  return std::all_of(layers.begin(), layers.end(), [](const LayerRecipe& layer) { return layer.is_identity(); });
}

}  // namespace switchyard
