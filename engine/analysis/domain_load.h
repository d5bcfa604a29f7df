// Domain specialisation (specs/analyses.md A4): which share of a domain's tokens an expert sees. Streaming and
// mergeable; no files. Rows may be fed from different threads, each row from one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/analysis/slab.h"
#include "engine/base/result.h"

namespace switchyard {

class DomainLoad {
 public:
  // choices: the first `choices` slots of a token count; 0: all.
  DomainLoad(int rows, int experts, int domains, int choices = 0);
  // slab.domain must be there; a domain or expert out of range is an error, then nothing is counted.
  Result<void> feed(const RoutingSlab& slab, int row);
  void merge(const DomainLoad& other);  // of the same shape

  int domains() const { return domains_; }
  uint64_t tokens(int domain, int row = 0) const { return tokens_[size_t(row) * domains_ + domain]; }
  std::span<const uint64_t> counts(int domain, int row) const {
    return {counts_.data() + (size_t(row) * domains_ + domain) * experts_, size_t(experts_)};
  }
  // [E]: counts / tokens of the domain; 0 where the domain has no token.
  std::vector<double> specialisation(int domain, int row) const;
  // Mean over experts that any domain uses of std / mean of the specialisation across domains (population std).
  double mean_cv_across_domains(int row) const;

 private:
  int rows_, experts_, domains_, choices_;
  std::vector<uint64_t> counts_;  // [rows, D, E]
  std::vector<uint64_t> tokens_;  // [rows, D]
};

}  // namespace switchyard
