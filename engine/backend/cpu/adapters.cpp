// See adapters.h.
#include "engine/backend/cpu/adapters.h"

#include <algorithm>

namespace switchyard::cpu {
namespace {

Matrix matrix_of(const std::vector<float>& values, int64_t rows, int64_t cols) {
  return {reinterpret_cast<const unsigned char*>(values.data()), Stored::kF32, rows, cols};
}

}  // namespace

const float* AdapterPart::base_factors(const float* weights) {
  if (!scales_base) return weights;
  factors.resize(size_t(count));
  for (int i = 0; i < count; ++i) factors[size_t(i)] = weights[i] * base[size_t(i)];
  return factors.data();
}

void AdapterPart::add_rows(const Kernels& kernels, int64_t begin, int64_t end, float* const* out) const {
  for (int i = 0; scales_base && i < count; ++i)
    for (int64_t row = begin; row < end; ++row) out[i][row] *= base[size_t(i)];
  kernels.dot_rows(b, begin, end, {count, low.data(), out, ones.data()});
}

AdapterPart* AdapterRun::prepare(const Step& step, int place, int count, const float* const* in, const int* tokens) {
  const AdapterSet* set = step.chunk->recipe->adapters_at(place);
  if (!set || count == 0) return nullptr;
  const AdaptedLinear& linear = set->linears.at(place);
  if (used_ == parts_.size()) parts_.push_back(std::make_unique<AdapterPart>());
  AdapterPart& part = *parts_[used_++];
  part.b = matrix_of(linear.b, linear.out, linear.rank);
  part.count = count;
  part.base.resize(size_t(count));
  part.ones.resize(size_t(count), 1.0f);
  shape_rows(count, linear.rank, part.low_rows, part.low);
  const Matrix a = matrix_of(linear.a, linear.rank, linear.in);
  const Product product{&a, {count, in, part.low.data(), nullptr}};
  step.multiply({&product, 1});

  const auto choices = size_t(linear.choices());
  weights_.resize(size_t(count) * choices);
  const int row = row_of(step.chunk->adapter_rows, place);
  if (row >= 0) scores_.resize(weights_.size());
  workers_.resize(size_t(step.pool.threads()));
  const int64_t bytes = (int64_t(linear.gate.size()) + linear.rank) * int64_t(sizeof(float)) * count;
  const int parts = std::min(count, step.parts_for(bytes));
  step.pool.run(parts, [&](int which, int worker) {
    Worker& own = workers_[size_t(worker)];
    own.coefficients.resize(size_t(linear.rank));
    const RowRange range = split_rows(count, parts, which);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const auto index = uint64_t(step.position + (tokens ? tokens[i] : int(i)));
      const AdapterInput input{{in[i], size_t(linear.in)},
                               {part.low[size_t(i)], size_t(linear.rank)},
                               serves(set->rule, index, step.chunk->prompt)};
      part.base[size_t(i)] =
          route_adapters(set->rule, linear, input, own.scratch,
                         std::span(weights_).subspan(size_t(i) * choices, choices), own.coefficients);
      if (row >= 0 && input.served) std::copy_n(own.scratch.scores.begin(), choices, scores_.begin() + std::ptrdiff_t(size_t(i) * choices));
      for (int rank = 0; rank < linear.rank; ++rank) part.low[size_t(i)][rank] *= own.coefficients[size_t(rank)];
    }
  });
  for (size_t i = 0; i < size_t(count); ++i) {
    const auto weights = std::span<const float>(weights_).subspan(i * choices, choices);
    if (step.chunk->adapter_log) step.chunk->adapter_log->take(place, weights);
    if (row >= 0) record_adapters(step.chunk->frames[tokens ? size_t(tokens[i]) : i], row, weights, std::span<const float>(scores_).subspan(i * choices, choices));
  }
  part.scales_base = std::any_of(part.base.begin(), part.base.end(), [](float factor) { return factor != 1; });
  return &part;
}

void AdapterRun::complete(const Step& step, int place, const float* const* in, float* const* out) {
  const size_t used = used_;
  const AdapterPart* part = prepare(step, place, step.count, in);
  if (!part) return;
  for (int i = 0; part->scales_base && i < part->count; ++i)
    for (int64_t row = 0; row < part->b.rows; ++row) out[i][row] *= part->base[size_t(i)];
  const Product product{&part->b, {part->count, part->low.data(), out, part->ones.data()}};
  step.multiply({&product, 1});
  used_ = used;
}

void AdapterRun::multiply(const Step& step, const Matrix& w, int place, const float* const* in, const Sum& sum) {
  const size_t used = used_;
  AdapterPart* part = prepare(step, place, step.count, in);
  const Product product{&w, {step.count, in, sum.rows, part ? part->base_factors(sum.factors) : sum.factors}};
  step.multiply({&product, 1});
  if (!part) return;
  const Product added{&part->b, {part->count, part->low.data(), sum.rows, sum.factors}};
  step.multiply({&added, 1});
  used_ = used;
}

}  // namespace switchyard::cpu
