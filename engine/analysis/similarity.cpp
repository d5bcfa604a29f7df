// See similarity.h.
#include "engine/analysis/similarity.h"

#include <algorithm>
#include <cmath>

#include "engine/analysis/check_ids.h"

namespace switchyard {
namespace {

// From a Gram matrix whose upper triangle is filled.
std::vector<double> cosines_of(std::span<const double> gram, int n) {
  std::vector<double> out(gram.size());
  for (int i = 0; i < n; ++i) {
    for (int j = i; j < n; ++j) {
      const double norms = std::sqrt(gram[size_t(i) * n + i] * gram[size_t(j) * n + j]);
      out[size_t(i) * n + j] = out[size_t(j) * n + i] = norms > 0 ? (i == j ? 1 : gram[size_t(i) * n + j] / norms) : 0;
    }
  }
  return out;
}

std::vector<double> centred(std::span<const double> x, int d, int n) {
  std::vector<double> out(x.begin(), x.end());
  for (int column = 0; column < d; ++column) {
    double mean = 0;
    for (int row = 0; row < n; ++row) mean += out[size_t(row) * d + column] / n;
    for (int row = 0; row < n; ++row) out[size_t(row) * d + column] -= mean;
  }
  return out;
}

// |A'B|_F^2 of A [n, da] and B [n, db].
double cross_norm(const std::vector<double>& a, int da, const std::vector<double>& b, int db, int n) {
  double squares = 0;
  for (int i = 0; i < da; ++i) {
    for (int j = 0; j < db; ++j) {
      double sum = 0;
      for (int row = 0; row < n; ++row) sum += a[size_t(row) * da + i] * b[size_t(row) * db + j];
      squares += sum * sum;
    }
  }
  return squares;
}

}  // namespace

std::vector<double> cosine_matrix(std::span<const float> rows, int n, int d) {
  std::vector<double> gram(size_t(n) * n);
  for (int i = 0; i < n; ++i)
    for (int j = i; j < n; ++j)
      for (int c = 0; c < d; ++c) gram[size_t(i) * n + j] += double(rows[size_t(i) * d + c]) * rows[size_t(j) * d + c];
  return cosines_of(gram, n);
}

double linear_cka(std::span<const double> x, int dx, std::span<const double> y, int dy, int n) {
  const auto a = centred(x, dx, n), b = centred(y, dy, n);
  const double norms = std::sqrt(cross_norm(a, dx, a, dx, n)) * std::sqrt(cross_norm(b, dy, b, dy, n));
  return norms > 0 ? cross_norm(b, dy, a, dx, n) / norms : 0;
}

double flattened_cosine(std::span<const double> x, std::span<const double> y) {
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += x[i] * y[i];
    xx += x[i] * x[i];
    yy += y[i] * y[i];
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

Result<void> LogitSimilarity::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, rows_));
  double* gram = gram_.data() + size_t(row) * experts_ * experts_;
  const auto logits = slab.of_row(slab.router_logits, row);
  for (int t = 0; t < slab.tokens; ++t) {
    if (!slab.mask.empty() && slab.mask[t] == 0) continue;
    const auto z = logits.subspan(size_t(t) * experts_, experts_);
    if (!std::all_of(z.begin(), z.end(), [](float value) { return std::isfinite(value); })) continue;
    for (int i = 0; i < experts_; ++i) {
      const double zi = z[i];
      double* out = gram + size_t(i) * experts_;
      for (int j = i; j < experts_; ++j) out[j] += zi * z[j];
    }
  }
  return {};
}

std::vector<double> LogitSimilarity::cosines(int row) const {
  return cosines_of(std::span<const double>(gram_).subspan(size_t(row) * experts_ * experts_, size_t(experts_) * experts_), experts_);
}

}  // namespace switchyard
