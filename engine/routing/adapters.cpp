// See adapters.h. The decisions; formulas: specs/gating.md 1.7.
#include "engine/routing/adapters.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/routing/adapter_files.h"
#include "engine/routing/scheme_stages.h"

namespace switchyard {
namespace {

// Four sums side by side: in double, and without waiting for each other.
double dot(const float* a, const float* b, size_t n) {
  double sums[4] = {};
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t j = 0; j < 4; ++j) sums[j] += double(a[i + j]) * b[i + j];
  for (; i < n; ++i) sums[0] += double(a[i]) * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// sigmoid(w2 (w1 w0 x + b1) + b2).
float blend(const BlendNet& net, std::span<const float> x, std::vector<float>& hidden) {
  hidden.resize(size_t(net.inner) + size_t(net.outer));
  float *first = hidden.data(), *second = first + net.inner;
  for (int i = 0; i < net.inner; ++i)
    first[i] = static_cast<float>(dot(net.w0.data() + i * x.size(), x.data(), x.size()));
  for (int i = 0; i < net.outer; ++i)
    second[i] =
        static_cast<float>(dot(net.w1.data() + size_t(i) * net.inner, first, size_t(net.inner)) + net.b1[size_t(i)]);
  return static_cast<float>(sigmoid(dot(net.w2.data(), second, size_t(net.outer)) + net.b2[0]));
}

// Layer norm without weights, eps 1e-5, population variance.
std::span<const float> normed(std::span<const float> x, std::vector<float>& out) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
  double variance = 0;
  for (const float value : x) variance += (value - mean) * (value - mean);
  const double inverse = 1 / std::sqrt(variance / double(x.size()) + 1e-5);
  out.resize(x.size());
  std::transform(x.begin(), x.end(), out.begin(),
                 [&](float value) { return static_cast<float>((value - mean) * inverse); });
  return out;
}

// gate x of each expert; PHATGOOSE: LN(x) . v / sqrt(d), v a normed gate.
void score(const AdapterRule& rule, const AdaptedLinear& linear, std::span<const float> x, AdapterScratch& scratch) {
  const bool goose = rule.router == AdapterRouter::kPhatgoose, arrow = rule.router == AdapterRouter::kArrow;
  const std::span<const float> in = goose ? normed(x, scratch.hidden) : x;
  const double divisor = goose ? std::sqrt(double(x.size())) : arrow ? 10 : 1;
  for (size_t e = 0; e < scratch.scores.size(); ++e) {
    const double product = dot(linear.gate.data() + e * in.size(), in.data(), in.size());
    const double offset = linear.offsets.empty() ? 0.0 : double(linear.offsets[e]);
    scratch.scores[e] =
        stages::kept_finite(static_cast<float>((arrow ? std::abs(product) : product) / divisor + offset));
  }
}

void softmax(std::span<const float> z, std::span<float> p) {
  const auto sum = static_cast<float>(stages::softmax_sums(z, p.data()).sum);
  for (float& value : p) value /= sum;
}

// The k best by score; their weights are a softmax over them, or their shares of the softmax over all.
void top_k(int k, bool renorm, AdapterScratch& scratch, std::span<float> weights) {
  const std::span<const float> scores(scratch.scores);
  const int used = stages::select(scores, std::min<int>(k, int(scores.size())), scratch.ids);
  const auto ids = std::span<const ExpertId>(scratch.ids).first(size_t(used));
  if (renorm)
    stages::softmax_selected(scores, ids, std::span(scratch.probabilities).first(ids.size()));
  else
    softmax(scores, scratch.probabilities);
  for (size_t slot = 0; slot < ids.size(); ++slot)
    weights[ids[slot]] = scratch.probabilities[renorm ? slot : ids[slot]];
}

void hybrid(const Stages& stages_of, AdapterScratch& scratch, std::span<float> weights) {
  const std::span<const float> scores(scratch.scores);
  const std::span<float> p(scratch.probabilities);
  softmax(scores, p);
  const int used = stages::select(scores, int(scores.size()), scratch.ids);
  const auto ids = std::span<const ExpertId>(scratch.ids).first(size_t(used));
  const double entropy = stages::normalised_entropy(stages_of.entropy, stages_of.q, stages_of.eps, p);
  const int n = stages::kept(stages_of, p, ids, entropy);
  for (int slot = 0; slot < n; ++slot) weights[ids[size_t(slot)]] = p[ids[size_t(slot)]];
}

// The k ranks with the largest |y + d| or y + d; what is taken is y.
void ranks(const AdapterRule& rule, const AdaptedLinear& linear, std::span<const float> y, AdapterScratch& scratch,
           std::span<float> weights) {
  for (size_t i = 0; i < y.size(); ++i) {
    const float key = y[i] + (linear.bias.empty() ? 0.0f : linear.bias[i]);
    scratch.scores[i] = stages::kept_finite(rule.by_magnitude ? std::abs(key) : key);
  }
  const int used = stages::select(scratch.scores, std::min<int>(rule.k, int(y.size())), scratch.ids);
  for (int slot = 0; slot < used; ++slot) weights[scratch.ids[size_t(slot)]] = 1;
}

}  // namespace

bool serves(const AdapterRule& rule, uint64_t index, uint64_t prompt) {
  return rule.router != AdapterRouter::kMogu || rule.tokens == 0 || prompt == 0 ||
         index + 1 < prompt + uint64_t(rule.tokens);
}

bool looks_at_input(const AdapterRule& rule) {
  return rule.router != AdapterRouter::kFixed && rule.router != AdapterRouter::kPoly &&
         !(rule.router == AdapterRouter::kLoraMixer && rule.label >= 0);
}

float route_adapters(const AdapterRule& rule, const AdaptedLinear& linear, const AdapterInput& in,
                     AdapterScratch& scratch, std::span<float> weights, std::span<float> coefficients) {
  std::fill(weights.begin(), weights.end(), 0.0f);
  std::fill(coefficients.begin(), coefficients.end(), 0.0f);
  if (!in.served) return 1;
  const auto choices = weights.size();
  scratch.scores.resize(choices);
  scratch.probabilities.resize(choices);
  scratch.ids.resize(choices);
  float base = 1;
  switch (rule.router) {
    case AdapterRouter::kFixed:
    case AdapterRouter::kPoly:
      std::copy(linear.weights.begin(), linear.weights.end(), weights.begin());
      break;
    case AdapterRouter::kPhatgoose:
    case AdapterRouter::kArrow:
      score(rule, linear, in.x, scratch);
      top_k(rule.k, true, scratch, weights);
      break;
    case AdapterRouter::kDynMole:
      score(rule, linear, in.x, scratch);
      hybrid(rule.hybrid, scratch, weights);
      break;
    case AdapterRouter::kLoraMixer:
      if (rule.label >= 0) {
        weights[size_t(rule.label)] = 1;
        break;
      }
      score(rule, linear, in.x, scratch);
      top_k(rule.k, rule.renorm, scratch, weights);
      break;
    case AdapterRouter::kFlyLora:
      ranks(rule, linear, in.low, scratch, weights);
      for (size_t i = 0; i < coefficients.size(); ++i) coefficients[i] = weights[i] * linear.scales[0];
      return 1;
    case AdapterRouter::kMogu:
      weights[0] = linear.alpha ? blend(*linear.alpha, in.x, scratch.hidden) : rule.blend_alpha;
      weights[1] = linear.beta ? blend(*linear.beta, in.x, scratch.hidden) : rule.blend_beta;
      base = weights[0] + weights[1];
      std::copy(weights.begin(), weights.end(), scratch.scores.begin());
      break;
  }
  if (rule.router == AdapterRouter::kPoly) {  // one adapter, of mixed matrices
    std::fill(coefficients.begin(), coefficients.end(), linear.scales[0]);
    return 1;
  }
  int rank = 0;
  for (size_t e = 0; e < choices; ++e)
    for (; rank < linear.ends[e]; ++rank) coefficients[size_t(rank)] = weights[e] * linear.scales[e];
  return base;
}

void AdapterLog::take(int place, std::span<const float> weights) {
  AdapterTally& tally = linears[place];
  ++tally.tokens;
  tally.last.assign(weights.begin(), weights.end());
  tally.sums.resize(weights.size());
  tally.chosen.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    tally.sums[i] += weights[i];
    tally.chosen[i] += weights[i] != 0;
  }
}

void AdapterLog::add(const AdapterLog& later) {
  for (const auto& [place, more] : later.linears) {
    AdapterTally& tally = linears[place];
    tally.tokens += more.tokens;
    tally.last = more.last;
    tally.sums.resize(more.sums.size());
    tally.chosen.resize(more.chosen.size());
    for (size_t i = 0; i < more.sums.size(); ++i) tally.sums[i] += more.sums[i], tally.chosen[i] += more.chosen[i];
  }
}

namespace {

using Columns = std::vector<std::vector<double>>;

// Largest eigenvector of a symmetric matrix [n][n], by Jacobi's rotations.
std::vector<double> top_eigenvector(Columns s) {
  const size_t n = s.size();
  Columns v(n, std::vector<double>(n, 0.0));
  for (size_t i = 0; i < n; ++i) v[i][i] = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) (i == j ? all : off) += s[i][j] * s[i][j];
    if (off <= 1e-30 * (all + off)) break;
    for (size_t p = 0; p + 1 < n; ++p)
      for (size_t q = p + 1; q < n; ++q) {
        if (s[p][q] == 0) continue;
        const double theta = (s[q][q] - s[p][p]) / (2 * s[p][q]);
        const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), d = t * c;
        for (size_t i = 0; i < n; ++i) {
          const double a = s[i][p], b = s[i][q];
          s[i][p] = c * a - d * b, s[i][q] = d * a + c * b;
        }
        for (size_t i = 0; i < n; ++i) {
          const double a = s[p][i], b = s[q][i];
          s[p][i] = c * a - d * b, s[q][i] = d * a + c * b;
          const double x = v[i][p], y = v[i][q];
          v[i][p] = c * x - d * y, v[i][q] = d * x + c * y;
        }
      }
  }
  size_t best = 0;
  for (size_t i = 1; i < n; ++i)
    if (s[i][i] > s[best][best]) best = i;
  std::vector<double> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = v[i][best];
  return out;
}

}  // namespace

// The rows of A span the inputs that matter: with an orthonormal base Q of them, A = R Q, the direction is Q^T times
// the largest eigenvector of R^T B^T B R.
std::vector<float> amplified_direction(std::span<const float> a, std::span<const float> b, int rank, int in, int out) {
  const auto r = size_t(rank), d = size_t(in);
  Columns base;                                         // orthonormal rows, at most `rank` of them
  Columns coordinates(r, std::vector<double>(r, 0.0));  // R: of A's rows in the base
  for (size_t i = 0; i < r; ++i) {
    std::vector<double> row(a.begin() + std::ptrdiff_t(i * d), a.begin() + std::ptrdiff_t((i + 1) * d));
    const double length = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    for (int turn = 0; turn < 2; ++turn)  // twice is enough
      for (size_t j = 0; j < base.size(); ++j) {
        const double share = std::inner_product(row.begin(), row.end(), base[j].begin(), 0.0);
        coordinates[i][j] += share;
        for (size_t c = 0; c < d; ++c) row[c] -= share * base[j][c];
      }
    const double left = std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
    if (left <= 1e-12 * length || left == 0) continue;  // it lies in those before it
    coordinates[i][base.size()] = left;
    for (double& value : row) value /= left;
    base.push_back(std::move(row));
  }
  std::vector<float> direction(d, 0.0f);
  const size_t n = base.size();
  Columns gram(n, std::vector<double>(n, 0.0));  // (B R)^T (B R)
  std::vector<double> row(n);
  double total = 0;
  for (int o = 0; o < out; ++o) {
    for (size_t j = 0; j < n; ++j) {
      row[j] = 0;
      for (size_t i = 0; i < r; ++i) row[j] += double(b[size_t(o) * r + i]) * coordinates[i][j];
    }
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) gram[i][j] += row[i] * row[j];
  }
  for (size_t i = 0; i < n; ++i) total += gram[i][i];
  if (total == 0) return direction;
  const std::vector<double> top = top_eigenvector(std::move(gram));
  std::vector<double> exact(d, 0.0);
  for (size_t j = 0; j < n; ++j)
    for (size_t c = 0; c < d; ++c) exact[c] += top[j] * base[j][c];
  const auto largest =
      std::max_element(exact.begin(), exact.end(), [](double x, double y) { return std::abs(x) < std::abs(y); });
  const double sign = *largest < 0 ? -1 : 1;
  std::transform(exact.begin(), exact.end(), direction.begin(),
                 [&](double value) { return static_cast<float>(sign * value); });
  return direction;
}

}  // namespace switchyard
