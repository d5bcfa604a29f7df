// The numbers of edited weights, the same wherever they are made: by a backend while a model runs, and by export.
// Sums in double, rounded once to the type in which the checkpoint stores the tensor. Pure; any thread.
#pragma once

#include <span>

#include "engine/model/dtype.h"
#include "engine/routing/recipe.h"

namespace switchyard {

// The nearest value that the type holds, ties to even; beyond its range infinity. Types other than BF16 and F16: as it is.
float rounded(DType type, float value);

// out = the weighted sum of `sources`, one per share of the mix, each of out.size() values.
void mix_weights(const ExpertMix& mix, std::span<const float* const> sources, DType type, std::span<float> out);

// What stands in a router row: own, and `other` for a source that names another expert, are rows of the checkpoint,
// all of one length. A row that is rotated towards one of its own direction, or of the opposite, stays.
void edited_row(const RowSource& source, std::span<const float> own, std::span<const float> other, DType type,
                std::span<float> out);

}  // namespace switchyard
