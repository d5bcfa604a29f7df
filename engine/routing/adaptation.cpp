// See adaptation.h.
#include "engine/routing/adaptation.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace switchyard {

double rewire_confidence(std::span<const float> logits, int k) {
  std::vector<double> z(logits.begin(), logits.end());
  std::partial_sort(z.begin(), z.begin() + k, z.end(), std::greater<>());
  const double max = z[0];
  double sum = 0, top = 0;
  for (const double logit : z) sum += std::exp(logit - max);
  for (int slot = 0; slot < k; ++slot) top += z[slot] - max - std::log(sum);
  return -top / k;
}

void condenser_bias_rule(std::span<const double> usage, double gamma, std::span<double> bias) {
  const double mean = std::accumulate(usage.begin(), usage.end(), 0.0) / double(usage.size());
  for (size_t e = 0; e < usage.size(); ++e) bias[e] += usage[e] > mean ? gamma : usage[e] < mean ? -gamma : 0;
}

std::vector<ExpertId> ema_prototypes(std::span<const float> hidden, size_t width, double eta, std::span<double> prototypes) {
  const size_t experts = prototypes.size() / width, tokens = hidden.size() / width;
  std::vector<double> lengths(experts), means(prototypes.size());
  for (size_t e = 0; e < experts; ++e)
    for (size_t i = 0; i < width; ++i) lengths[e] += prototypes[e * width + i] * prototypes[e * width + i];
  std::vector<size_t> counts(experts);
  std::vector<ExpertId> ids(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    const auto h = hidden.subspan(t * width, width);
    double best = 0;
    for (size_t e = 0; e < experts; ++e) {
      double product = 0;  // over |h|, which is the same for all experts
      for (size_t i = 0; i < width; ++i) product += h[i] * prototypes[e * width + i];
      const double cosine = lengths[e] > 0 ? product / std::sqrt(lengths[e]) : 0;
      if (e == 0 || cosine > best) best = cosine, ids[t] = static_cast<ExpertId>(e);
    }
    ++counts[ids[t]];
    for (size_t i = 0; i < width; ++i) means[ids[t] * width + i] += h[i];
  }
  for (size_t e = 0; e < experts; ++e)
    for (size_t i = 0; counts[e] > 0 && i < width; ++i) {
      double& c = prototypes[e * width + i];
      c = (1 - eta) * c + eta * means[e * width + i] / double(counts[e]);
    }
  return ids;
}

size_t edit_distance(std::span<const ExpertId> a, std::span<const ExpertId> b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t(0));
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

void Adam::step(std::span<const double> gradient, double lr, std::span<double> values) {
  constexpr double kMean = 0.9, kSquare = 0.999, kEps = 1e-8;
  ++steps_;
  const double mean_share = 1 - std::pow(kMean, double(steps_)), square_share = 1 - std::pow(kSquare, double(steps_));
  for (size_t i = 0; i < values.size(); ++i) {
    mean_[i] = kMean * mean_[i] + (1 - kMean) * gradient[i];
    square_[i] = kSquare * square_[i] + (1 - kSquare) * gradient[i] * gradient[i];
    values[i] -= lr * (mean_[i] / mean_share) / (std::sqrt(square_[i] / square_share) + kEps);
  }
}

}  // namespace switchyard
