// See step.h.
#include "engine/backend/cpu/step.h"

#include <algorithm>

namespace switchyard::cpu {
namespace {

// Below this a barrier costs more than the second thread gains (measured: 0.2 us a barrier, about
// 50 bytes of cached weights per ns and thread).
constexpr int64_t kAloneBytes = 24 * 1024;
constexpr int kPartsPerThread = 4;  // so that a thread held up by other programs delays little

}  // namespace

void Step::begin(const Chunk& next) {
  chunk = &next;
  count = static_cast<int>(next.tokens.size());
  position = next.cache->length();
  rotations.prepare(position, count, next.length);
  packed.resize(size_t(pool.threads()));
}

void Step::normalise(const Norm& norm, const float* x, float* out, int64_t n) const {
  switch (norm.kind) {
    case Norm::Kind::kNone:
      if (x != out) std::copy_n(x, n, out);
      return;
    case Norm::Kind::kRms:
      return kernels.rms_norm(x, norm.weight.data(), norm.eps, out, n);
    case Norm::Kind::kLayer:
      return kernels.layer_norm(x, norm.weight.data(), norm.bias.data(), norm.eps, out, n);
  }
}

int Step::parts_for(int64_t bytes) const {
  if (pool.threads() == 1 || bytes < kAloneBytes) return 1;
  return static_cast<int>(std::min<int64_t>(int64_t(pool.threads()) * kPartsPerThread, bytes / (kAloneBytes / 2)));
}

void Step::make_room(Stored type, int count, int64_t cols) const {
  const auto floats = size_t(kernels.packed_floats(type, count, cols));
  for (AlignedFloats& room : packed) room.reserve(floats);
}

const float* Step::pack(Stored type, const float* const* x, int count, int64_t cols, int worker) const {
  const int64_t floats = kernels.packed_floats(type, count, cols);
  if (floats == 0) return nullptr;
  AlignedFloats& room = packed[size_t(worker)];
  room.reserve(size_t(floats));
  kernels.pack(x, count, cols, room.data());
  return room.data();
}

void Step::dot_rows(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens, int worker) const {
  TokenRows own = tokens;
  own.packed = pack(w.type, tokens.x, tokens.count, w.cols, worker);
  kernels.dot_rows(w, begin, end, own);
}

void Step::pack_into(float* place, Stored type, const float* const* x, int count, int64_t cols) const {
  const int blocks = (count + kPackedTokens - 1) / kPackedTokens;
  const int parts = std::min(blocks, parts_for(kernels.packed_floats(type, count, cols) * int64_t(sizeof(float))));
  pool.run(parts, [&](int part, int) {
    const RowRange own = split_rows(count, parts, part, kPackedTokens);
    if (own.begin < own.end)
      kernels.pack(x + own.begin, int(own.end - own.begin), cols,
                   place + kernels.packed_floats(type, int(own.begin), cols));
  });
}

void Step::pack_inputs(std::span<const Product> products) const {
  packed_inputs.clear();
  for (size_t i = 0; i < products.size(); ++i) {
    const auto& [matrix, tokens] = products[i];
    const auto same = [&](const Product& other) {
      return other.tokens.x == tokens.x && other.tokens.count == tokens.count && other.matrix->cols == matrix->cols &&
             other.matrix->type == matrix->type;
    };
    const size_t first = size_t(std::find_if(products.begin(), products.end(), same) - products.begin());
    if (first < i) {
      packed_inputs.push_back(packed_inputs[first]);
      continue;
    }
    const int64_t floats = kernels.packed_floats(matrix->type, tokens.count, matrix->cols);
    packed_inputs.push_back(nullptr);
    if (floats == 0) continue;
    if (inputs.size() <= i) inputs.resize(i + 1);
    inputs[i].reserve(size_t(floats));
    pack_into(inputs[i].data(), matrix->type, tokens.x, tokens.count, matrix->cols);
    packed_inputs.back() = inputs[i].data();
  }
}

// The rows of all products, end to end, shared out in even parts of whole tiles.
void Step::multiply(std::span<const Product> products) const {
  int64_t rows = 0, bytes = 0;
  for (const Product& product : products) {
    rows += product.matrix->rows;
    bytes += stored_size(*product.matrix) * ((product.tokens.count + 1) / 2);
  }
  const int parts = parts_for(bytes);
  pack_inputs(products);
  pool.run(parts, [&](int part, int) {
    RowRange left = split_rows(rows, parts, part, kRowMultiple);
    for (size_t i = 0; i < products.size(); ++i) {
      const Product& product = products[i];
      TokenRows tokens = product.tokens;
      tokens.packed = packed_inputs[i];
      const int64_t own = product.matrix->rows;
      const int64_t begin = std::max<int64_t>(left.begin, 0), end = std::min(left.end, own);
      if (begin < end) kernels.dot_rows(*product.matrix, begin, end, tokens);
      left.begin -= own;
      left.end -= own;
    }
  });
}

void Step::add_bias(const std::vector<float>& bias, const Sum& sum) const {
  if (bias.empty()) return;
  for (int token = 0; token < count; ++token)
    for (size_t i = 0; i < bias.size(); ++i) sum.rows[token][i] += sum.factor * bias[i];
}

}  // namespace switchyard::cpu
