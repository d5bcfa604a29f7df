// See walk.h.
#include "engine/trace/walk.h"

#include <algorithm>
#include <mutex>

#include "engine/base/thread_pool.h"

namespace switchyard {
namespace {

constexpr uint64_t kSlabTokens = 32'768;
constexpr uint64_t kSlabBytes = uint64_t(192) << 20;  // of everything a slab carries

// Of one token over all rows.
uint64_t bytes_per_token(const TraceShape& shape, const std::set<std::string>& fields) {
  uint64_t per_row = uint64_t(shape.k) * sizeof(ExpertId);
  for (const std::string& field : fields) {
    if (field == "/routing/router_logits") per_row += uint64_t(shape.experts) * sizeof(float);
    else if (field == "/routing/pred_gate_id") per_row += uint64_t(shape.k) * sizeof(ExpertId);
    else if (field == "/routing/weight" || field == "/routing/out_norm") per_row += uint64_t(shape.k) * sizeof(float);
    else per_row += sizeof(float);
  }
  return per_row * uint64_t(shape.rows) + 16;
}

}  // namespace

Result<TraceWalk> TraceWalk::of(std::vector<std::unique_ptr<TraceReader>> traces, const WalkFilter& filter) {
  if (traces.empty()) return fail(ErrorCode::kUsage, "no trace was given.");
  TraceWalk walk;
  walk.filter_ = filter;
  TraceShape& shape = walk.shape_;
  const TraceInfo& first = traces[0]->info();
  for (int row = 0; row < first.layers; ++row) {
    const int layer = first.moe_layers[row];
    if (!filter.layers.empty() && std::find(filter.layers.begin(), filter.layers.end(), layer) == filter.layers.end()) continue;
    walk.rows_.push_back(row);
    shape.layers.push_back(layer);
    shape.row_names.push_back(size_t(row) < first.router_names.size() ? first.router_names[row] : "layer " + std::to_string(layer));
  }
  for (const int layer : filter.layers)
    if (std::find(first.moe_layers.begin(), first.moe_layers.end(), layer) == first.moe_layers.end())
      return fail(ErrorCode::kUsage, "the trace has no routing of layer " + std::to_string(layer) + ".", first.path.string(),
                  "It holds layers " + std::to_string(first.moe_layers.front()) + " to " + std::to_string(first.moe_layers.back()) + ".");
  walk.sides_ = Sides::of(first.router_names, first.layers);
  shape.sides = walk.rows_.front() < walk.sides_.encoder_rows && walk.rows_.back() >= walk.sides_.encoder_rows ? 2 : 1;
  shape.rows = int(walk.rows_.size());
  shape.experts = first.experts;
  shape.counts_only = first.counts_only;
  shape.fields = first.fields;
  for (const auto& trace : traces) {
    const TraceInfo& info = trace->info();
    if (info.counts_only != first.counts_only)
      return fail(ErrorCode::kUsage, info.counts_only ? "holds counts only, the others hold tokens." : "holds tokens, the others counts only.", info.path.string());
    if (info.moe_layers != first.moe_layers || info.experts != first.experts)
      return fail(ErrorCode::kUsage, std::to_string(info.layers) + " rows and " + std::to_string(info.experts) + " experts do not fit the " +
                      std::to_string(first.layers) + " and " + std::to_string(first.experts) + " of " + first.path.string() + ".", info.path.string(),
                  "Traces of one model can be analysed together.");
    shape.k = std::max(shape.k, info.top_k);
    shape.tokens += info.tokens;
    shape.sequences += info.sequences;
    shape.ranked = shape.ranked && info.ranked;
    std::erase_if(shape.fields, [&](const std::string& field) { return std::find(info.fields.begin(), info.fields.end(), field) == info.fields.end(); });
    SY_TRY(const auto names, trace->domain_names());
    std::vector<uint32_t> place;
    for (const std::string& name : names) {
      const auto found = std::find(shape.domains.begin(), shape.domains.end(), name);
      place.push_back(uint32_t(found - shape.domains.begin()));
      if (found == shape.domains.end()) shape.domains.push_back(name);
    }
    std::vector<uint32_t>& of = walk.domain_of_.emplace_back();
    if (names.empty()) continue;
    SY_TRY(const auto domains, trace->sequence_domains());
    for (const uint16_t domain : domains) of.push_back(place[domain]);
  }
  if (shape.counts_only && (filter.phase || !filter.domain.empty()))
    return fail(ErrorCode::kUsage, "holds counts only: there are no tokens to choose by phase or domain.", first.path.string());
  if (!filter.domain.empty() && std::find(shape.domains.begin(), shape.domains.end(), filter.domain) == shape.domains.end()) {
    std::string names;
    for (const std::string& name : shape.domains) names += (names.empty() ? "" : ", ") + name;
    return fail(ErrorCode::kUsage, "the trace has no domain " + filter.domain + "; it has " + (names.empty() ? "none" : names) + ".", first.path.string());
  }
  walk.traces_ = std::move(traces);
  return walk;
}

Result<void> TraceWalk::run(const std::function<Result<void>(const RoutingSlab&)>& take, Task* task, double from, double to) const {
  const auto wants = [&](const char* field) {
    return fields_.contains(field) && std::find(shape_.fields.begin(), shape_.fields.end(), field) != shape_.fields.end();
  };
  const uint64_t piece = std::clamp<uint64_t>(kSlabBytes / bytes_per_token(shape_, fields_), 1, kSlabTokens);
  const auto wanted_domain = uint16_t(std::find(shape_.domains.begin(), shape_.domains.end(), filter_.domain) - shape_.domains.begin());
  std::vector<float> routers;
  for (const int row : rows_) {
    if (!wants("/model/router_weight")) break;
    SY_TRY(const auto own, traces_[0]->router_weight(row));
    routers.insert(routers.end(), own.begin(), own.end());
  }
  uint64_t walked = 0;
  uint32_t first_sequence = 0;
  for (size_t index = 0; index < traces_.size(); ++index) {
    const TraceReader& trace = *traces_[index];
    const TraceInfo& info = trace.info();
    SY_TRY(const auto offsets, trace.sequence_offsets());
    const size_t top_k = size_t(info.top_k), k = size_t(shape_.k), rows = rows_.size();
    size_t sequence = 0;
    const auto starts = [&](uint64_t t) { return std::binary_search(offsets.begin(), offsets.end(), int64_t(t)); };
    std::vector<uint8_t> decodes;  // of an encoder-decoder, from token `decodes_from` on
    uint64_t decodes_from = 0, part = 0;  // part: where the tokens of its side in the sequence begin
    bool decoder = false;
    for (uint64_t first = 0, count = 0; first < info.tokens; first += count) {
      if (task != nullptr && task->cancelled()) return fail(ErrorCode::kCancelled, "stopped before the trace was read.");
      count = std::min(piece, info.tokens - first);
      if (sides_.two()) {  // one side of one sequence at a time
        if (first >= decodes_from + decodes.size()) {
          SY_TRY(const auto first_row, trace.expert_ids(0, first, count));
          decodes = sides_.decodes(first_row, top_k), decodes_from = first;
        }
        const auto at = [&](uint64_t t) { return decodes[t - decodes_from] != 0; };
        if (starts(first) || at(first) != decoder) part = first;
        decoder = at(first);
        for (count = 1; first + count < decodes_from + decodes.size() && at(first + count) == decoder && !starts(first + count);) ++count;
      }
      RoutingSlab slab;
      const auto at_row = [&](int row) { return int(std::lower_bound(rows_.begin(), rows_.end(), row) - rows_.begin()); };
      slab.begin_row = at_row(sides_.begin(decoder)), slab.end_row = at_row(sides_.end(decoder));
      slab.first_token = walked, slab.tokens = int(count), slab.rows = shape_.rows, slab.experts = shape_.experts, slab.k = shape_.k;
      std::vector<uint32_t> sequences(count), positions(count), phases;
      std::vector<uint16_t> domains;
      std::vector<uint8_t> mask;
      const bool with_domain = index < domain_of_.size() && !domain_of_[index].empty();
      if (with_domain) domains.resize(count);
      for (uint64_t t = 0; t < count; ++t) {
        while (sequence + 2 < offsets.size() && first + t >= uint64_t(offsets[sequence + 1])) ++sequence;
        sequences[t] = first_sequence + uint32_t(sequence);
        positions[t] = uint32_t(first + t - (sides_.two() ? part : uint64_t(offsets.empty() ? 0 : offsets[sequence])));
        if (sides_.two()) sequences[t] = 2 * sequences[t] + decoder;
        if (with_domain) domains[t] = uint16_t(domain_of_[index][sequence]);
      }
      if (filter_.phase || !filter_.domain.empty()) {
        mask.assign(count, 1);
        if (filter_.phase) {
          SY_TRY(phases, trace.token_column("phase", first, count));
          for (uint64_t t = 0; t < count; ++t) mask[t] = phases[t] == *filter_.phase;
        }
        for (uint64_t t = 0; t < count && !filter_.domain.empty(); ++t) mask[t] = mask[t] && with_domain && domains[t] == wanted_domain;
      }
      std::vector<ExpertId> ids(rows * count * k, kNoExpert), guessed(wants("/routing/pred_gate_id") ? ids.size() : 0, kNoExpert);
      std::vector<float> weights, norms, logits, scalars[5];
      const auto widened = [&](std::vector<float>& to, size_t r, const std::vector<float>& part) {
        to.resize(rows * count * k);
        for (uint64_t t = 0; t < count; ++t) std::copy_n(part.begin() + t * top_k, top_k, to.begin() + (r * count + t) * k);
      };
      for (size_t r = 0; r < rows; ++r) {
        SY_TRY(const auto part, trace.expert_ids(rows_[r], first, count));
        for (uint64_t t = 0; t < count; ++t)
          if (mask.empty() || mask[t] != 0) std::copy_n(part.begin() + t * top_k, top_k, ids.begin() + (r * count + t) * k);
        if (!guessed.empty() && rows_[r] > 0) {
          SY_TRY(const auto values, trace.guessed_ids(rows_[r], first, count));
          for (uint64_t t = 0; t < count; ++t) std::copy_n(values.begin() + t * top_k, top_k, guessed.begin() + (r * count + t) * k);
        }
        if (wants("/routing/weight")) {
          SY_TRY(const auto values, trace.weights(rows_[r], first, count));
          widened(weights, r, values);
        }
        if (wants("/routing/out_norm")) {
          SY_TRY(const auto values, trace.out_norms(rows_[r], first, count));
          widened(norms, r, values);
        }
        if (wants("/routing/router_logits")) {
          SY_TRY(const auto values, trace.router_logits(rows_[r], first, count));
          logits.insert(logits.end(), values.begin(), values.end());
        }
        constexpr const char* kScalars[] = {"entropy", "topk_mass", "margin", "lse", "block_cos"};
        for (size_t s = 0; s < std::size(kScalars); ++s) {
          if (!wants((std::string("/routing/") + kScalars[s]).c_str())) continue;
          SY_TRY(const auto values, trace.scalar(kScalars[s], rows_[r], first, count));
          scalars[s].insert(scalars[s].end(), values.begin(), values.end());
        }
      }
      slab.ids = ids, slab.guessed = guessed, slab.weights = weights, slab.out_norm = norms, slab.router_logits = logits;
      slab.router_weight = routers;
      slab.entropy = scalars[0], slab.topk_mass = scalars[1], slab.margin = scalars[2], slab.lse = scalars[3], slab.block_cos = scalars[4];
      slab.sequence = sequences, slab.position = positions, slab.domain = domains, slab.mask = mask;
      std::vector<TokenId> token_ids;
      if (wants("/tokens/token_id")) {
        SY_TRY(token_ids, trace.token_ids(first, count));
        slab.token_ids = token_ids;
      }
      SY_CHECK(take(slab));
      walked += count;
      if (task != nullptr) task->report(from + (to - from) * double(walked) / double(std::max<uint64_t>(shape_.tokens, 1)), "analyse");
    }
    first_sequence += uint32_t(info.sequences);
  }
  return {};
}

Result<void> TraceWalk::give_counts(std::span<const std::unique_ptr<Analysis>> analyses) const {
  for (const auto& analysis : analyses) SY_CHECK(analysis->begin(0));
  for (const auto& trace : traces_) {
    SY_TRY(const TraceCounts counts, trace->counts());
    const auto experts = size_t(shape_.experts);
    for (const auto& analysis : analyses)
      for (size_t row = 0; row < rows_.size(); ++row)
        SY_CHECK(analysis->take_counts(int(row), std::span(counts.count).subspan(size_t(rows_[row]) * experts, experts), trace->info().tokens));
  }
  return {};
}

std::set<std::string> fields_of(std::span<const AnalysisInfo* const> analyses) {
  std::set<std::string> fields;
  for (const AnalysisInfo* info : analyses) {
    fields.insert(info->needs.begin(), info->needs.end());
    fields.insert(info->uses.begin(), info->uses.end());
  }
  return fields;
}

Result<void> run_analyses(TraceWalk& walk, std::span<const std::unique_ptr<Analysis>> analyses, int threads, Task* task) {
  if (walk.shape().counts_only) return walk.give_counts(analyses);
  ThreadPool pool(threads);
  int walks = 0;
  for (const auto& analysis : analyses) walks = std::max(walks, analysis->walks());
  for (int turn = 0; turn < walks; ++turn) {
    std::vector<Analysis*> active;
    for (const auto& analysis : analyses)
      if (analysis->walks() > turn) active.push_back(analysis.get());
    for (Analysis* analysis : active) SY_CHECK(analysis->begin(turn));
    SY_CHECK(walk.run([&](const RoutingSlab& slab) -> Result<void> {
      std::mutex mutex;
      Result<void> result;
      const int rows = slab.end_row - slab.begin_row;
      pool.run(rows * int(active.size()), [&](int part, int) {
        auto fed = active[size_t(part / rows)]->feed(turn, slab, slab.begin_row + part % rows);
        if (fed) return;
        const std::scoped_lock lock(mutex);
        if (result) result = std::move(fed);
      });
      return result;
    }, task, double(turn) / walks, double(turn + 1) / walks));
  }
  return {};
}

}  // namespace switchyard
