// How alike two experts are (specs/analyses.md A17): cosines of router rows, of logit columns, and linear CKA of
// outputs. Pure; the logit Gram matrix is streaming, rows of it may be fed from different threads.
#pragma once

#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

// rows: [n, d]. [n, n] cosines; 0 where a row is 0.
std::vector<double> cosine_matrix(std::span<const float> rows, int n, int d);

// Linear CKA of X [n, dx] and Y [n, dy], columns centred: |Y'X|_F^2 / (|X'X|_F |Y'Y|_F); 0 where a side is constant.
double linear_cka(std::span<const double> x, int dx, std::span<const double> y, int dy, int n);
// Cosine of two equally long vectors, without centring.
double flattened_cosine(std::span<const double> x, std::span<const double> y);

// Cosine of logit columns over all tokens of a row.
class LogitSimilarity {
 public:
  LogitSimilarity(int rows, int experts) : rows_(rows), experts_(experts), gram_(size_t(rows) * experts * experts) {}
  // slab.router_logits must be there. A token with a logit that is not finite is left out.
  Result<void> feed(const RoutingSlab& slab, int row);
  std::vector<double> cosines(int row) const;  // [E, E]

 private:
  int rows_, experts_;
  std::vector<double> gram_;  // [rows, E, E], upper triangle
};

}  // namespace switchyard
