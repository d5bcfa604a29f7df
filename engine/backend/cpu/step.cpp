// See step.h.
#include "engine/backend/cpu/step.h"

namespace switchyard::cpu {
namespace {

// Below this a barrier costs more than the second thread gains (measured: 0.2 us a barrier, about
// 50 bytes of cached weights per ns and thread).
constexpr int64_t kAloneBytes = 24 * 1024;
constexpr int kPartsPerThread = 4;   // so that a thread held up by other programs delays little
constexpr int64_t kRowMultiple = 8;  // rows of the one-token tile

}  // namespace

void Step::begin(const Chunk& next) {
  chunk = &next;
  count = static_cast<int>(next.tokens.size());
  position = next.cache->length();
  rotations.prepare(position, count, next.length);
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

// The rows of all products, end to end, shared out in even parts of whole tiles.
void Step::multiply(std::span<const Product> products) const {
  int64_t rows = 0, bytes = 0;
  for (const Product& product : products) {
    rows += product.matrix->rows;
    bytes += stored_size(*product.matrix) * ((product.tokens.count + 1) / 2);
  }
  const int parts = parts_for(bytes);
  pool.run(parts, [&](int part, int) {
    RowRange left = split_rows(rows, parts, part, kRowMultiple);
    for (const Product& product : products) {
      const int64_t own = product.matrix->rows;
      const int64_t begin = std::max<int64_t>(left.begin, 0), end = std::min(left.end, own);
      if (begin < end) kernels.dot_rows(*product.matrix, begin, end, product.tokens);
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
