// See edited_weights.h.
#include "engine/backend/cpu/edited_weights.h"

#include <cmath>
#include <cstring>

#include "engine/routing/edited_weights.h"

namespace switchyard::cpu {
namespace {

DType dtype(Stored type) {
  return type == Stored::kBF16 ? DType::kBF16 : type == Stored::kF16 ? DType::kF16 : DType::kF32;
}

// values: such that the type holds them exactly.
void store(std::span<const float> values, Stored type, unsigned char* to) {
  if (type == Stored::kF32) {
    std::memcpy(to, values.data(), values.size_bytes());
    return;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = type == Stored::kBF16 ? exact_bf16(values[i]) : exact_f16(values[i]);
    std::memcpy(to + i * sizeof(half), &half, sizeof(half));
  }
}

std::vector<float> row_of(const Kernels& kernels, const Matrix& matrix, int64_t row) {
  std::vector<float> values(size_t(matrix.cols));
  kernels.load_row(matrix, row, values.data());
  return values;
}

// Row by row, so that the memory beside the result is a few rows.
Matrix mix_matrices(const Kernels& kernels, const ExpertMix& mix, const std::vector<Expert>& experts, Matrix Expert::*part,
                    std::vector<std::unique_ptr<unsigned char[]>>& keep) {
  const Matrix& first = experts[mix[0].expert].*part;
  Matrix out{nullptr, plain(first.type), first.rows, first.cols};
  if (out.rows == 0) return out;
  const int64_t bytes = plain_bytes(out.type, out.cols);
  unsigned char* data = keep.emplace_back(std::make_unique_for_overwrite<unsigned char[]>(size_t(out.rows * bytes))).get();
  std::vector<float> sum(size_t(out.cols));
  for (int64_t row = 0; row < out.rows; ++row) {
    std::vector<std::vector<float>> rows;
    std::vector<const float*> sources;
    for (const ExpertShare& share : mix) {
      rows.push_back(row_of(kernels, experts[share.expert].*part, row));
      sources.push_back(rows.back().data());
    }
    mix_weights(mix, sources, dtype(out.type), sum);
    store(sum, out.type, data + row * bytes);
  }
  out.data = data;
  return out;
}

std::vector<float> mix_biases(const ExpertMix& mix, const std::vector<Expert>& experts, std::vector<float> Expert::*part) {
  const Expert& first = experts[mix[0].expert];
  std::vector<float> out((first.*part).size());
  std::vector<const float*> sources;
  for (const ExpertShare& share : mix) sources.push_back((experts[share.expert].*part).data());
  mix_weights(mix, sources, first.bias_type, out);
  return out;
}

Matrix matrix_of(const ExpertTensors::Tensor& tensor) {
  return {reinterpret_cast<const unsigned char*>(tensor.values.data()), Stored::kF32, tensor.rows, tensor.cols};
}

// Either may be absent.
std::vector<float> sum_of(const ExpertTensors::Tensor& a, const ExpertTensors::Tensor& b) {
  std::vector<float> out = a ? a.values : b.values;
  for (size_t i = 0; a && i < b.values.size(); ++i) out[i] += b.values[i];
  return out;
}

OtherNetwork network_of(const OtherExpert& other) {
  const ExpertTensors& t = *other.tensors;
  OtherNetwork out{.tensors = other.tensors};
  out.form.width = static_cast<int>(t.width());
  out.expert.down = matrix_of(t.down);
  out.expert.down_bias = t.down_bias.values;
  if (other.kind == ExpertKind::kGru) {
    out.expert.gate = matrix_of(t.iz);
    out.expert.up = matrix_of(t.in);
    out.expert.gate_bias = sum_of(t.b_iz, t.b_hz);
    out.expert.up_bias = t.b_in.values;
    out.reset = matrix_of(t.ir);
    out.reset_bias = sum_of(t.b_ir, t.b_hr);
    out.state_bias = t.b_hn.values;
    return out;
  }
  out.form.kind = t.gate ? FfnKind::kGlu : FfnKind::kMlp;
  out.form.unit = t.gate ? Unit::kSilu : Unit::kGelu;
  if (t.gate) out.expert.gate = matrix_of(t.gate);
  out.expert.up = matrix_of(t.up);
  out.expert.gate_bias = t.gate_bias.values;
  out.expert.up_bias = t.up_bias.values;
  return out;
}

}  // namespace

const OtherNetwork& EditedWeights::other(int row, size_t id, const OtherExpert& other) {
  OtherNetwork& kept = others_[{row, id}];
  if (kept.tensors != other.tensors) kept = network_of(other);
  return kept;
}

const Expert& EditedWeights::expert(const Kernels& kernels, const FeedForward& spec, const LayerRecipe& recipe, size_t id) {
  const ExpertMix& mix = recipe.mix(id);
  if (mix.empty()) return spec.experts[id];
  if (is_one(mix)) return spec.experts[mix[0].expert];
  const auto make = [&] {
    Merged merged;
    Expert& out = merged.expert;
    for (Matrix Expert::*part : {&Expert::gate, &Expert::up, &Expert::down})
      out.*part = mix_matrices(kernels, mix, spec.experts, part, merged.data);
    for (std::vector<float> Expert::*part : {&Expert::gate_bias, &Expert::up_bias, &Expert::down_bias})
      out.*part = mix_biases(mix, spec.experts, part);
    return merged;
  };
  return merged_[spec.row].get(mix, make).expert;
}

const ReplacedRows& EditedWeights::rows(const Kernels& kernels, const FeedForward& spec, const LayerRecipe& recipe) {
  ReplacedRows& rows = rows_[spec.row];
  if (rows.sources == recipe.router_rows) return rows;
  const Matrix& router = spec.router_weight;
  const int64_t bytes = plain_bytes(router.type, router.cols);
  rows = {.sources = recipe.router_rows};
  for (size_t id = 0; id < rows.sources.size(); ++id) {
    const RowSource& source = rows.sources[id];
    if (source == RowSource{}) continue;
    std::vector<float> other, row(size_t(router.cols));
    if (source.expert != kNoExpert) other = row_of(kernels, router, source.expert);
    edited_row(source, row_of(kernels, router, int64_t(id)), other, dtype(router.type), row);
    rows.experts.push_back(static_cast<ExpertId>(id));
    double squares = 0;
    for (const float value : row) squares += double(value) * value;
    rows.lengths.push_back(static_cast<float>(std::sqrt(squares)));
    rows.data.resize(rows.data.size() + size_t(bytes));
    store(row, router.type, rows.data.data() + rows.data.size() - bytes);
  }
  rows.matrix = {rows.data.data(), router.type, int64_t(rows.experts.size()), router.cols};
  return rows;
}

void EditedWeights::set_norms(int row, std::span<const float> own) {
  ReplacedRows& rows = rows_.at(row);
  rows.norms.assign(own.begin(), own.end());
  for (size_t i = 0; i < rows.experts.size(); ++i) rows.norms[rows.experts[i]] = rows.lengths[i];
}

void EditedWeights::tidy(int row, const LayerRecipe* recipe) {
  if (const auto found = merged_.find(row); found != merged_.end()) found->second.tidy(recipe);
  std::erase_if(others_, [&](const auto& entry) {
    return entry.first.first == row && (!recipe || recipe->other(entry.first.second).tensors != entry.second.tensors);
  });
}

}  // namespace switchyard::cpu
