// See placed_experts.h.
#include "engine/backend/cuda/placed_experts.h"

#include <algorithm>
#include <utility>

#include "engine/backend/cuda/host_numbers.h"
#include "engine/backend/merged_cache.h"
#include "engine/routing/edited_weights.h"

namespace switchyard::cuda {
namespace {

Result<Buffer> to_device(Stream& stream, const void* data, size_t bytes, const char* what) {
  SY_TRY(Buffer there, Buffer::make(std::max<size_t>(1, bytes), Place::kDevice, what));
  SY_CHECK(copy(stream, there.as<>(), data, bytes, what));
  SY_CHECK(wait(stream, what));
  return there;
}

// The weighed sum of the same part of several experts. parts: where each lies; null: the experts have no such part.
Result<Buffer> mixed(Stream& stream, const ExpertMix& mix, const std::vector<Matrix>& parts, DType rounded_to) {
  std::vector<std::vector<float>> numbers;
  std::vector<const float*> sources;
  for (const Matrix& part : parts) {
    SY_TRY(numbers.emplace_back(), numbers_on_host(stream, part));
    sources.push_back(numbers.back().data());
  }
  std::vector<float> sum(numbers[0].size());
  mix_weights(mix, sources, rounded_to, sum);
  const std::vector<unsigned char> bytes = as_stored(sum, parts[0].type);
  return to_device(stream, bytes.data(), bytes.size(), "a merged expert");
}

}  // namespace

Result<PlacedExperts::Merged> PlacedExperts::merge(Stream& stream, const FeedForwardOnDevice& layer, int hidden,
                                                   const ExpertMix& mix) {
  const Expert& first = layer.own[mix[0].expert];
  const int width = layer.form.width;
  Merged out;
  out.expert = first;
  const auto part = [&](const unsigned char* Expert::*place, int rows, int cols, Stored type) -> Result<void> {
    if (!(first.*place)) return {};
    std::vector<Matrix> parts;
    for (const ExpertShare& share : mix) parts.push_back({layer.own[share.expert].*place, rows, cols, type});
    SY_TRY(Buffer made, mixed(stream, mix, parts, stored_dtype(type)));
    out.expert.*place = out.memory.emplace_back(std::move(made)).as<>();
    return {};
  };
  const auto bias = [&](const float* Expert::*place, int count) -> Result<void> {
    if (!(first.*place)) return {};
    std::vector<Matrix> parts;
    for (const ExpertShare& share : mix)
      parts.push_back({reinterpret_cast<const unsigned char*>(layer.own[share.expert].*place), 1, count, Stored::kF32});
    SY_TRY(Buffer made, mixed(stream, mix, parts, layer.bias_type));
    out.expert.*place = out.memory.emplace_back(std::move(made)).as<float>();
    return {};
  };
  SY_CHECK(part(&Expert::gate, width, hidden, first.type));
  SY_CHECK(part(&Expert::up, width, hidden, first.type));
  SY_CHECK(part(&Expert::down, hidden, width, first.down_type));
  SY_CHECK(bias(&Expert::gate_bias, width));
  SY_CHECK(bias(&Expert::up_bias, width));
  SY_CHECK(bias(&Expert::down_bias, hidden));
  return out;
}

Result<void> PlacedExperts::place(const ModelOnDevice& model, Stream& stream, const Recipe& recipe) {
  rows_.resize(model.rows.size());
  for (size_t at = 0; at < model.rows.size(); ++at) {
    const FeedForwardOnDevice& layer = *model.rows[at];
    const LayerRecipe* edits = recipe.layer(int(at));
    std::vector<ExpertMix> mixes = edits ? edits->mixes : std::vector<ExpertMix>();
    std::vector<std::vector<int>> masks = edits ? edits->unit_masks : std::vector<std::vector<int>>();
    Row& row = rows_[at];
    if (row.mixes == mixes && row.masks == masks) continue;
    const auto width = size_t(layer.form.width);
    std::vector<Expert> table = layer.own;
    std::vector<uint8_t> off;
    for (size_t e = 0; edits && e < table.size(); ++e) {
      if (const ExpertMix& mix = edits->mix(e); is_one(mix)) {
        table[e] = layer.own[mix[0].expert];
      } else if (!mix.empty()) {
        if (!row.merged.contains(mix)) {
          SY_TRY(row.merged[mix], merge(stream, layer, model.hidden, mix));
        }
        table[e] = row.merged[mix].expert;
      }
      if (edits->unit_mask(e).empty()) continue;
      off.resize(off.size() + width);
      for (const int unit : edits->unit_mask(e)) off[off.size() - width + size_t(unit)] = 1;
    }
    if (!off.empty()) {
      SY_TRY(Buffer there, to_device(stream, off.data(), off.size(), "masks of hidden units"));
      size_t next = 0;
      for (size_t e = 0; e < table.size(); ++e)
        if (!edits->unit_mask(e).empty()) table[e].units_off = there.as<uint8_t>() + std::exchange(next, next + width);
      row.units_off = std::move(there);
    }
    SY_CHECK(copy(stream, layer.experts, table.data(), table.size() * sizeof(Expert), "the table of experts"));
    SY_CHECK(wait(stream, "the table of experts"));
    std::erase_if(row.merged, [&](const auto& made) { return std::ranges::find(mixes, made.first) == mixes.end(); });
    row.mixes = std::move(mixes), row.masks = std::move(masks);
  }
  return {};
}

}  // namespace switchyard::cuda
