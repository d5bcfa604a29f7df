// See gate_gradient.h.
#include "engine/analysis/gate_gradient.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

void gate_gradient(std::span<const float> p, std::span<const float> a, std::span<const uint8_t> selected, bool renormalised,
                   std::span<double> dense, std::span<double> sparse) {
  double n = 0, of_selected = 0, of_others = 0;  // sums of p over the selected, and of p a over either
  for (size_t e = 0; e < p.size(); ++e) {
    (selected[e] ? of_selected : of_others) += double(p[e]) * a[e];
    if (selected[e]) n += p[e];
  }
  for (size_t e = 0; e < p.size(); ++e) {
    const double own = p[e];
    if (!renormalised) {
      dense[e] = own * (a[e] - (of_selected + of_others));
      sparse[e] = own * ((selected[e] ? a[e] : 0.0) - of_selected);
      continue;
    }
    if (n == 0) {  // nobody ran
      dense[e] = sparse[e] = 0;
      continue;
    }
    sparse[e] = selected[e] ? own / n * (a[e] - of_selected / n) : 0;
    dense[e] = sparse[e] + own / n * ((selected[e] ? 0.0 : a[e]) - of_others);
  }
}

GateLens gate_lens(const GateTerms& terms, int experts) {
  const size_t count = size_t(experts), tokens = terms.scores.size() / count;
  GateLens out;
  out.dense.assign(count, 0);
  out.sparse.assign(count, 0);
  out.wanted.assign(count, 0);
  std::vector<double> dense(count), sparse(count);
  double product = 0, dense_square = 0, sparse_square = 0;
  for (size_t t = 0; t < tokens; ++t) {
    const auto of = [&](const auto& values) { return std::span(values).subspan(t * count, count); };
    const auto selected = of(terms.selected);
    gate_gradient(of(terms.scores), of(terms.gains), selected, terms.renormalised, dense, sparse);
    WantedExpert wanted;
    for (size_t e = 0; e < count; ++e) {
      out.dense[e] += dense[e];
      out.sparse[e] += sparse[e];
      product += dense[e] * sparse[e];
      dense_square += dense[e] * dense[e];
      sparse_square += sparse[e] * sparse[e];
      out.flips += dense[e] * sparse[e] < 0;
      if (!selected[e] && dense[e] < wanted.dense) wanted = {ExpertId(e), dense[e], sparse[e]};
    }
    if (wanted.expert != kNoExpert) ++out.wanted[wanted.expert];
    out.tokens.push_back(wanted);
  }
  if (dense_square > 0 && sparse_square > 0) out.cosine = product / std::sqrt(dense_square * sparse_square);
  return out;
}

std::vector<int> most_wanted(const GateLens& lens, size_t most) {
  std::vector<int> order;
  for (size_t e = 0; e < lens.wanted.size(); ++e)
    if (lens.wanted[e] > 0) order.push_back(int(e));
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return lens.wanted[size_t(a)] > lens.wanted[size_t(b)]; });
  order.resize(std::min(order.size(), most));
  return order;
}

}  // namespace switchyard
