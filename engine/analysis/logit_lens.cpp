// See logit_lens.h.
#include "engine/analysis/logit_lens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard {
namespace {

double log_sum_exp(std::span<const float> z) {
  const double most = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const float value : z) sum += std::exp(value - most);
  return most + std::log(sum);
}

template <class Of>
double mean(const std::vector<LensReading>& tokens, Of&& of) {
  double sum = 0;
  for (const LensReading& token : tokens) sum += of(token);
  return tokens.empty() ? 0 : sum / double(tokens.size());
}

}  // namespace

LensReading read_lens(std::span<const float> model, std::span<const float> lens) {
  const double p_norm = log_sum_exp(model), q_norm = log_sum_exp(lens);
  const size_t own = size_t(std::max_element(model.begin(), model.end()) - model.begin());
  LensReading out;
  for (size_t v = 0; v < model.size(); ++v) {
    const double ln_p = model[v] - p_norm, ln_q = lens[v] - q_norm;
    out.kl += std::exp(ln_p) * (ln_p - ln_q);
    out.rank += lens[v] > lens[own];
  }
  out.first = TokenId(std::max_element(lens.begin(), lens.end()) - lens.begin());
  out.probability = std::exp(lens[own] - q_norm);
  return out;
}

double LensPlace::mean_kl() const {
  return mean(tokens, [](const LensReading& t) { return t.kl; });
}
double LensPlace::mean_probability() const {
  return mean(tokens, [](const LensReading& t) { return t.probability; });
}
double LensPlace::agreement() const {
  return mean(tokens, [](const LensReading& t) { return t.rank == 0 ? 1.0 : 0.0; });
}

}  // namespace switchyard
