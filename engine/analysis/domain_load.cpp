// See domain_load.h.
#include "engine/analysis/domain_load.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/analysis/check_ids.h"

namespace switchyard {

DomainLoad::DomainLoad(int rows, int experts, int domains, int choices)
    : rows_(rows), experts_(experts), domains_(domains), choices_(choices), counts_(size_t(rows) * domains * experts), tokens_(size_t(rows) * domains) {}

Result<void> DomainLoad::feed(const RoutingSlab& slab, int row) {
  SY_CHECK(check_row(row, rows_));
  SY_CHECK(check_ids(row, slab.row_ids(row), slab.k, experts_));
  for (const uint16_t domain : slab.domain)
    if (domain >= domains_) return fail(ErrorCode::kMalformed, "domain " + std::to_string(domain) + " of " + std::to_string(domains_) + ".");
  const int slots = choices_ > 0 ? std::min(choices_, slab.k) : slab.k;
  for (int t = 0; t < slab.tokens; ++t) {
    if (!slab.mask.empty() && slab.mask[t] == 0) continue;
    const size_t cell = size_t(row) * domains_ + slab.domain[t];
    ++tokens_[cell];
    uint64_t* counts = counts_.data() + cell * experts_;
    for (const ExpertId id : slab.token(row, t).first(slots))
      if (id != kNoExpert) ++counts[id];
  }
  return {};
}

void DomainLoad::merge(const DomainLoad& other) {
  std::transform(counts_.begin(), counts_.end(), other.counts_.begin(), counts_.begin(), std::plus<>());
  std::transform(tokens_.begin(), tokens_.end(), other.tokens_.begin(), tokens_.begin(), std::plus<>());
}

std::vector<double> DomainLoad::specialisation(int domain, int row) const {
  std::vector<double> share(experts_);
  const uint64_t all = tokens(domain, row);
  if (all == 0) return share;
  const auto counted = counts(domain, row);
  for (int e = 0; e < experts_; ++e) share[e] = double(counted[e]) / double(all);
  return share;
}

double DomainLoad::mean_cv_across_domains(int row) const {
  std::vector<std::vector<double>> shares;
  for (int domain = 0; domain < domains_; ++domain)
    if (tokens(domain, row) > 0) shares.push_back(specialisation(domain, row));
  double sum = 0;
  int used = 0;
  for (int e = 0; e < experts_; ++e) {
    double mean = 0, squares = 0;
    for (const auto& share : shares) mean += share[e] / double(shares.size());
    if (mean == 0) continue;
    for (const auto& share : shares) squares += (share[e] - mean) * (share[e] - mean);
    sum += std::sqrt(squares / double(shares.size())) / mean;
    ++used;
  }
  return used == 0 ? 0 : sum / used;
}

}  // namespace switchyard
