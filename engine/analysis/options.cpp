// See options.h.
#include "engine/analysis/options.h"

#include <charconv>

#include "engine/base/number_list.h"

namespace switchyard {
namespace {

using Set = Result<void> (*)(AnalysisOptions&, std::string_view);

tl::unexpected<Error> misfit(std::string_view value, const std::string& needs) {
  return fail(ErrorCode::kUsage, "is " + quote(value, 40) + ", needs " + needs + ".");
}

// A number member within [least, most].
template <auto Member, auto Least, auto Most>
Result<void> number(AnalysisOptions& options, std::string_view value) {
  auto& member = options.*Member;
  std::remove_reference_t<decltype(member)> read{};
  const auto [end, problem] = std::from_chars(value.data(), value.data() + value.size(), read);
  using T = decltype(read);
  if (problem != std::errc() || end != value.data() + value.size() || !(read >= T(Least) && read <= T(Most)))
    return misfit(value, (std::is_integral_v<T> ? "a whole number from " : "a number from ") + std::to_string(Least) + " to " + std::to_string(Most));
  member = read;
  return {};
}

template <auto Member>
Result<void> list(AnalysisOptions& options, std::string_view value) {
  SY_TRY(options.*Member, number_list(value, ""));
  return {};
}

template <auto Member>
Result<void> text(AnalysisOptions& options, std::string_view value) {
  options.*Member = value;
  return {};
}

template <auto Member, bool To>
Result<void> flag(AnalysisOptions& options, std::string_view) {
  options.*Member = To;
  return {};
}

Result<void> score(AnalysisOptions& options, std::string_view value) {
  if (value != "token" && value != "gate") return misfit(value, "token or gate");
  options.score = value;
  return {};
}

}  // namespace

std::span<const AnalysisOption> analysis_options() {
  using O = AnalysisOptions;
  static constexpr AnalysisOption list_of_all[] = {
      {"top", "10", "entries of a list", number<&O::top, 0, 1'000'000>},
      {"gpus", "", "affinity: share of hops that stay on a GPU, for so many GPUs: 4,8", list<&O::gpus>},
      {"windows", "4,16,64", "srp: window lengths in tokens", list<&O::windows>},
      {"resamples", "1000", "srp, cohort: bootstrap resamples; 0: no intervals", number<&O::resamples, 0, 100'000>},
      {"seed", "0", "srp, cohort: of the resampling", number<&O::seed, 0ULL, UINT64_MAX>},
      {"threshold", "0.2", "esft: share that the experts of a layer must reach", number<&O::threshold, 0, 1>},
      {"score", "token", "esft: token or gate", score},
      {"decimals", "4", "esft: scores are rounded before they are sorted", number<&O::decimals, 0, 15>},
      {"min-count", "8", "vocabulary: occurrences that a token id needs", number<&O::min_count, 1, 1'000'000'000>},
      {"batch-tokens", "0", "load: also the mean MaxVio of batches of so many tokens; 0: none. load-over-time: tokens of a window; 0: 128 windows, 16 tokens at least", number<&O::batch_tokens, 0, 1'000'000'000>},
      {"neighbours", nullptr, "coactivation: pairs of neighbouring ranks only, as a published script counts", flag<&O::neighbours, true>},
      {"matrices", nullptr, "coactivation: all pairs with rates, Jaccard and PMI", flag<&O::matrices, true>},
      {"keep", "0", "saliency: experts that stay in each layer, for pruned sets; 0: none", number<&O::keep, 0, 65'535>},
      {"no-renormalise", nullptr, "saliency: weights as applied, not divided by their sum", flag<&O::renormalise, false>},
      {"a", "", "cohort: the domain on the left side; empty: the trace's first", text<&O::domain_a>},
      {"b", "", "cohort: the domain on the right side; empty: the trace's second", text<&O::domain_b>},
  };
  return list_of_all;
}

Result<void> set_option(AnalysisOptions& options, std::string_view name, std::string_view value) {
  for (const AnalysisOption& option : analysis_options()) {
    if (name != option.name) continue;
    auto set = option.set(options, value);
    if (!set && set.error().where.empty()) set.error().where = "--" + std::string(name);
    return set;
  }
  return fail(ErrorCode::kUsage, "is no option of an analysis.", std::string(name));
}

}  // namespace switchyard
