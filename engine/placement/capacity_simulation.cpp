// Capacity and drops, see capacity_simulation.h.
#include "engine/placement/capacity_simulation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "engine/placement/check_slab.h"

namespace switchyard {
namespace {

template <class T>
Result<T> chosen(std::string_view text, std::initializer_list<std::pair<std::string_view, T>> names,
                 std::string_view what) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (text == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return fail(ErrorCode::kUsage, "\"" + std::string(text.substr(0, 40)) + "\" is no " + std::string(what) + ".", "",
              "Choose among " + known + ".");
}

void count(std::vector<uint64_t>& counts, size_t at) {
  if (at >= counts.size()) counts.resize(at + 1, 0);
  ++counts[at];
}

}  // namespace

Result<CapacityRounding> parse_capacity_rounding(std::string_view text) {
  return chosen<CapacityRounding>(
      text, {{"floor", CapacityRounding::kFloor}, {"ceil", CapacityRounding::kCeil}, {"even", CapacityRounding::kEven}},
      "way to round a capacity");
}

Result<FillOrder> parse_fill_order(std::string_view text) {
  return chosen<FillOrder>(text,
                           {{"rank-major", FillOrder::kRankMajor},
                            {"token-major", FillOrder::kTokenMajor},
                            {"prioritised", FillOrder::kPrioritised}},
                           "fill order");
}

int64_t group_capacity(const CapacityOptions& options, int k, int64_t tokens, int experts) {
  const double exact = double(k) * options.factor * double(tokens) / experts;
  int64_t capacity = int64_t(options.rounding == CapacityRounding::kCeil ? std::ceil(exact) : std::floor(exact));
  if (options.rounding == CapacityRounding::kEven) capacity -= capacity % 2;
  return std::max(capacity, options.min_capacity);
}

CapacitySimulation::CapacitySimulation(int rows, int experts, const CapacityOptions& options)
    : rows_(rows),
      experts_(experts),
      options_(options),
      ids_(size_t(rows)),
      weights_(size_t(rows)),
      demands_(size_t(rows), 0),
      drops_(size_t(rows), 0) {}

Result<void> CapacitySimulation::feed(const RoutingSlab& slab) {
  SY_CHECK(check_slab(slab, rows_, experts_));
  const bool prioritised = options_.fill == FillOrder::kPrioritised;
  if (prioritised && slab.weights.empty())
    return fail(ErrorCode::kUsage, "prioritised filling needs routing weights, and the trace has none.",
                "/routing/weight", "Record with --capture weights, or choose another --fill.");
  k_ = slab.k;
  with_domains_ = with_domains_ || !slab.domain.empty();
  for (int t = 0; t < slab.tokens; ++t) {
    const uint32_t sequence = slab.sequence[size_t(t)];
    const bool full = options_.group_tokens > 0 && tokens_.size() == size_t(options_.group_tokens);
    if (open_ && (sequence != sequence_ || full)) fill_group();
    open_ = true;
    sequence_ = sequence;
    bool any = false;
    for (int r = 0; r < rows_; ++r)
      for (const ExpertId e : slab.token(r, t)) any = any || e != kNoExpert;
    if (!any) continue;
    tokens_.push_back({slab.position[size_t(t)], slab.domain.empty() ? uint16_t{0} : slab.domain[size_t(t)]});
    for (int r = 0; r < rows_; ++r) {
      const auto ids = slab.token(r, t);
      ids_[size_t(r)].insert(ids_[size_t(r)].end(), ids.begin(), ids.end());
      if (prioritised) weights_[size_t(r)].push_back(slab.of_row(slab.weights, r)[size_t(t) * size_t(k_)]);
    }
  }
  return {};
}

void CapacitySimulation::finish() {
  if (open_) fill_group();
  open_ = false;
}

void CapacitySimulation::fill_group() {
  const size_t tokens = tokens_.size(), k = size_t(k_);
  if (tokens == 0) return;
  const int64_t capacity = group_capacity(options_, k_, int64_t(tokens), experts_);
  if (capacities_.size() < kKept) capacities_.push_back(capacity);
  ++groups_;
  std::vector<int64_t> held(size_t(experts_), 0);
  std::vector<size_t> order(tokens);
  for (int r = 0; r < rows_; ++r) {
    std::fill(held.begin(), held.end(), 0);
    std::iota(order.begin(), order.end(), size_t{0});
    if (options_.fill == FillOrder::kPrioritised)
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return weights_[size_t(r)][a] > weights_[size_t(r)][b]; });
    const auto serve = [&](size_t token, size_t slot) {
      const ExpertId e = ids_[size_t(r)][token * k + slot];
      if (e == kNoExpert) return;
      const Held& of = tokens_[token];
      ++demands_[size_t(r)];
      count(demands_at_, of.position);
      if (with_domains_) count(demands_in_, of.domain);
      if (held[e] < capacity) {
        ++held[e];
        return;
      }
      ++drops_[size_t(r)];
      count(drops_at_, of.position);
      if (with_domains_) count(drops_in_, of.domain);
    };
    if (options_.fill == FillOrder::kTokenMajor) {
      for (const size_t token : order)
        for (size_t slot = 0; slot < k; ++slot) serve(token, slot);
    } else {
      for (size_t slot = 0; slot < k; ++slot)
        for (const size_t token : order) serve(token, slot);
    }
    ids_[size_t(r)].clear();
    weights_[size_t(r)].clear();
  }
  drops_at_.resize(demands_at_.size(), 0);
  drops_in_.resize(demands_in_.size(), 0);
  tokens_.clear();
}

}  // namespace switchyard
