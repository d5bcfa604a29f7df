// Checks every piece, ranks the slots of its tokens, and lays them out as the trace stores them.
#include "engine/trace/import/sink.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/base/text.h"
#include "engine/routing/stages.h"
#include "engine/trace/rehearsal.h"

namespace switchyard::dumps {
namespace {

using schema::Field;
using schema::Quantity;

tl::unexpected<Error> refuse(const DumpTokens& piece, const std::string& what) { return fail(ErrorCode::kMalformed, what, piece.where); }

std::string token_text(const DumpTokens& piece, size_t row, size_t token) {
  return "token " + std::to_string(token) + " of layer " + std::to_string(piece.layers[row]);
}

// The used slots of a token: falling weight, else falling logit, then lower id; as they stand where neither is known.
std::vector<int> ranked(const DumpTokens& piece, size_t row, size_t token, bool by_weight, bool by_logit) {
  const size_t at = piece.at(row, token);
  std::vector<int> slots;
  for (int slot = 0; slot < piece.slots; ++slot)
    if (piece.ids[at + size_t(slot)] != kNoExpert) slots.push_back(slot);
  if (!by_weight && !by_logit) return slots;
  const float* logits = by_weight ? nullptr : piece.logits.data() + (row * piece.tokens + token) * size_t(piece.logit_experts);
  const auto value = [&](int slot) { return by_weight ? piece.weights[at + size_t(slot)] : double(logits[piece.ids[at + size_t(slot)]]); };
  std::sort(slots.begin(), slots.end(), [&](int a, int b) {
    const double x = value(a), y = value(b);
    return x != y ? x > y : piece.ids[at + size_t(a)] < piece.ids[at + size_t(b)];
  });
  return slots;
}

// Twice in one token, or an id that is none.
Result<void> check_ids(const DumpTokens& piece, int experts) {
  std::vector<ExpertId> sorted;
  for (size_t row = 0; row < piece.layers.size(); ++row) {
    for (size_t token = 0; token < piece.tokens; ++token) {
      const auto ids = std::span(piece.ids).subspan(piece.at(row, token), size_t(piece.slots));
      sorted.clear();
      for (const ExpertId id : ids)
        if (id != kNoExpert) sorted.push_back(id);
      std::sort(sorted.begin(), sorted.end());
      if (!sorted.empty() && sorted.back() >= experts)
        return refuse(piece, token_text(piece, row, token) + " names expert " + std::to_string(sorted.back()) + "; there are " + std::to_string(experts) + ".");
      const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
      if (twice != sorted.end()) return refuse(piece, token_text(piece, row, token) + " names expert " + std::to_string(*twice) + " twice.");
    }
  }
  return {};
}

Result<void> check(const DumpTokens& piece, const ImportOptions& options, const DumpFacts& facts) {
  const size_t rows = piece.layers.size(), slots = rows * piece.tokens * size_t(piece.slots);
  const auto fits = [&](size_t have, size_t want) { return have == 0 || have == want; };
  if (piece.ids.size() != slots || !fits(piece.weights.size(), slots) || !fits(piece.token_ids.size(), piece.tokens) ||
      !fits(piece.positions.size(), piece.tokens) || !fits(piece.phases.size(), piece.tokens) ||
      !fits(piece.logits.size(), rows * piece.tokens * size_t(piece.logit_experts)))
    return fail(ErrorCode::kInternal, "a reader gave columns of different lengths.", piece.where);
  if (std::any_of(piece.weights.begin(), piece.weights.end(), [](double w) { return !std::isfinite(w); }))
    return refuse(piece, "holds a weight that is no number.");
  if (std::any_of(piece.logits.begin(), piece.logits.end(), [](float z) { return std::isnan(z) || z == std::numeric_limits<float>::infinity(); }))
    return refuse(piece, "holds a router logit that is no number.");
  if (std::any_of(piece.layers.begin(), piece.layers.end(), [](int layer) { return layer < 0 || layer > 65'535; }))
    return refuse(piece, "names a layer that none can be.");
  int experts = options.experts > 0 ? options.experts : facts.experts > 0 ? facts.experts : 65'535;
  if (piece.logit_experts > 0 && !piece.logits.empty()) experts = std::min(experts, piece.logit_experts);
  return check_ids(piece, experts);
}

std::string domain_text(const std::string& domain) { return domain.empty() ? "unnamed" : printable(domain, 200); }

template <class T>
void put(std::vector<std::byte>& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

}  // namespace

void DumpFacts::note(const std::string& text) {
  if (std::find(notes.begin(), notes.end(), text) == notes.end()) notes.push_back(text);
}

void DumpSink::progress(double fraction) const { rehearsal_step(fraction, step_); }

Result<void> Survey::begin_sequence(uint32_t, const std::string& domain) {
  in_tokens_ = false;
  const std::string name = domain_text(domain);
  auto& domains = out_.domains;
  if (std::find(domains.begin(), domains.end(), name) == domains.end()) domains.push_back(name);
  if (domains.size() > 65'535) return fail(ErrorCode::kMalformed, "names more than 65,535 domains.", name);
  return {};
}

Result<void> Survey::tokens(const DumpTokens& piece) {
  SY_CHECK(check(piece, options_, facts));
  if (piece.tokens == 0) return {};
  if (out_.counts) return refuse(piece, "gives tokens after counts.");
  if (!in_tokens_) ++out_.sequences;
  in_tokens_ = true;
  out_.tokens += piece.tokens;
  out_.weights = out_.weights && !piece.weights.empty();
  out_.logits = out_.logits && !piece.logits.empty();
  out_.token_ids = out_.token_ids && !piece.token_ids.empty();
  out_.phases = out_.phases && !piece.phases.empty();
  named_.insert(piece.layers.begin(), piece.layers.end());
  if (!piece.logits.empty()) {
    if (out_.logit_experts != 0 && out_.logit_experts != piece.logit_experts)
      return refuse(piece, "has " + std::to_string(piece.logit_experts) + " router logits a token, the tokens before have " + std::to_string(out_.logit_experts) + ".");
    out_.logit_experts = piece.logit_experts;
    for (size_t row = 0; row < piece.layers.size() * piece.tokens && out_.probabilities; ++row) {
      const auto z = std::span(piece.logits).subspan(row * size_t(piece.logit_experts), size_t(piece.logit_experts));
      double sum = 0;
      for (const float value : z) {
        sum += value;
        if (value < 0) out_.probabilities = false;
      }
      if (std::abs(sum - 1) > 0.02) out_.probabilities = false;
    }
  }
  for (size_t row = 0; row < piece.layers.size(); ++row) {
    bool any = false;
    for (size_t token = 0; token < piece.tokens; ++token) {
      int used = 0;
      double sum = 0;
      for (size_t at = piece.at(row, token), end = at + size_t(piece.slots); at < end; ++at) {
        if (piece.ids[at] == kNoExpert) continue;
        ++used;
        out_.largest_id = std::max<int>(out_.largest_id, piece.ids[at]);
        if (!piece.weights.empty()) sum += piece.weights[at];
      }
      any = any || used > 0;
      out_.slots = std::max(out_.slots, used);
      if (used > 0 && std::abs(sum - 1) > 0.02) out_.sums_to_one = false;
    }
    if (any) used_.insert(piece.layers[row]);
  }
  return {};
}

Result<void> Survey::counts(const DumpCounts& counts) {
  const size_t values = counts.layers.size() * size_t(counts.experts);
  const auto fits = [&](const auto& all) { return all.empty() || all.size() == values; };
  const TraceCounts& sums = counts.sums;
  if (out_.counts || out_.tokens > 0) return fail(ErrorCode::kMalformed, "gives counts twice, or counts and tokens.", counts.where);
  if (counts.experts < 1 || counts.experts > 65'535 || counts.layers.empty() || counts.layers.size() > 2048 || sums.count.size() != values ||
      !fits(sums.weight_sum) || !fits(sums.ean_sum) || !fits(sums.reap_sum) || !fits(sums.max_act) || sums.pass_count.size() != sums.passes * values)
    return fail(ErrorCode::kMalformed, "holds counts of " + std::to_string(counts.layers.size()) + " layers and " + std::to_string(counts.experts) + " experts, which do not fit together.", counts.where);
  for (size_t row = 0; row < counts.layers.size(); ++row) {
    if (counts.layers[row] < 0 || counts.layers[row] > 65'535 || !named_.insert(counts.layers[row]).second)
      return fail(ErrorCode::kMalformed, "names layer " + std::to_string(counts.layers[row]) + " twice, or it is none.", counts.where);
    const auto of_row = std::span(sums.count).subspan(row * size_t(counts.experts), size_t(counts.experts));
    if (std::any_of(of_row.begin(), of_row.end(), [](uint64_t n) { return n > 0; })) used_.insert(counts.layers[row]);
  }
  for (const auto* all : {&sums.weight_sum, &sums.ean_sum, &sums.reap_sum})
    if (std::any_of(all->begin(), all->end(), [](double value) { return !std::isfinite(value); }))
      return fail(ErrorCode::kMalformed, "holds a sum that is no number.", counts.where);
  out_.counts = std::make_unique<DumpCounts>(counts);
  return {};
}

Result<Measured> Survey::finish(const std::string& shown) {
  if (!out_.counts && out_.tokens == 0) return fail(ErrorCode::kMalformed, "holds no token.", shown);
  if (used_.empty()) return fail(ErrorCode::kMalformed, "holds no chosen expert.", shown, "Was the capture switched on, and the model one with experts?");
  if (out_.counts) out_.weights = out_.logits = out_.token_ids = out_.phases = false;
  out_.layers.assign(used_.begin(), used_.end());
  if (out_.domains == std::vector<std::string>{domain_text("")}) out_.domains.clear();
  out_.empty_layers = int(named_.size() - used_.size());
  return std::move(out_);
}

Result<void> DumpWriter::counts(const DumpCounts& counts) {
  return fail(ErrorCode::kMalformed, "gives counts after tokens.", counts.where);
}

Result<void> DumpWriter::begin_sequence(uint32_t prompt_tokens, const std::string& domain) {
  SY_CHECK(flush());
  const auto found = std::find(measured_.domains.begin(), measured_.domains.end(), domain_text(domain));
  origin_ = {};
  if (found != measured_.domains.end()) origin_.domain = uint16_t(found - measured_.domains.begin());
  origin_.source_id = sequences_++;
  begun_ = false;
  prompt_tokens_ = prompt_tokens;
  index_ = 0;
  return {};
}

Result<void> DumpWriter::tokens(const DumpTokens& piece) {
  SY_CHECK(check(piece, options_, facts));
  if (piece.tokens == 0) return {};
  if (!begun_) SY_CHECK(writer_.begin_sequence(prompt_tokens_, origin_));
  begun_ = true;
  rows_.resize(writer_.fields().size());
  for (uint32_t token = 0; token < piece.tokens; ++token) {
    append(piece, token);
    if (++waiting_ == writer_.block_room()) SY_CHECK(flush());
  }
  return {};
}

void DumpWriter::append(const DumpTokens& piece, uint32_t token) {
  for (size_t f = 0; f < rows_.size(); ++f) {
    switch (writer_.fields()[f]->quantity) {
      case Quantity::kTokenId: put(rows_[f], piece.token_ids[token]); break;
      case Quantity::kPosition: put(rows_[f], piece.positions.empty() ? index_ : piece.positions[token]); break;
      case Quantity::kPhase: put(rows_[f], piece.phases[token]); break;
      case Quantity::kRecipeEpoch: put(rows_[f], uint32_t(0)); break;
      default: break;
    }
  }
  ++index_;
  for (const int layer : measured_.layers) {
    const auto found = std::find(piece.layers.begin(), piece.layers.end(), layer);
    append_row(piece, token, found == piece.layers.end() ? -1 : int(found - piece.layers.begin()));
  }
}

// piece_row -1: the dump has nothing of this token in this layer.
void DumpWriter::append_row(const DumpTokens& piece, uint32_t token, int piece_row) {
  const schema::Shape& shape = writer_.shape();
  const bool there = piece_row >= 0;
  std::vector<int> order;
  std::vector<ExpertId> ids;
  std::span<const float> z;
  DecisionStats stats;
  const size_t at = there ? piece.at(size_t(piece_row), token) : 0;
  if (there) {
    order = ranked(piece, size_t(piece_row), token, measured_.weights, measured_.logits);
    for (const int slot : order) ids.push_back(piece.ids[at + size_t(slot)]);
    if (measured_.logits) {
      z = std::span(piece.logits).subspan((size_t(piece_row) * piece.tokens + token) * size_t(shape.experts), size_t(shape.experts));
      stats = stages::stats_of(stages::softmax_sums(z, nullptr), z, ids);
    }
  }
  for (size_t f = 0; f < rows_.size(); ++f) {
    auto& out = rows_[f];
    const Field& field = *writer_.fields()[f];
    switch (field.quantity) {
      case Quantity::kExpertId:
        for (int slot = 0; slot < shape.slots; ++slot) {
          const ExpertId id = size_t(slot) < ids.size() ? ids[size_t(slot)] : kNoExpert;
          if (schema::bytes_of(field.stored, shape.experts) == 1)
            put(out, uint8_t(id));  // kNoExpert: all ones too
          else
            put(out, id);
        }
        break;
      case Quantity::kWeight:
        for (int slot = 0; slot < shape.slots; ++slot) put(out, size_t(slot) < order.size() ? float(piece.weights[at + size_t(order[size_t(slot)])]) : 0.0f);
        break;
      case Quantity::kEntropy: put(out, stats.entropy); break;
      case Quantity::kTopkMass: put(out, stats.topk_mass); break;
      case Quantity::kMargin: put(out, stats.margin); break;
      case Quantity::kLse: put(out, stats.lse); break;
      case Quantity::kLogits:
        for (int e = 0; e < shape.experts; ++e) put(out, z.empty() ? 0.0f : z[size_t(e)]);
        break;
      default: break;
    }
  }
}

Result<void> DumpWriter::flush() {
  if (waiting_ == 0) return {};
  const schema::Shape& shape = writer_.shape();
  TraceColumns columns{waiting_, {}};
  for (size_t f = 0; f < rows_.size(); ++f) {
    const Field& field = *writer_.fields()[f];
    const size_t layers = shape.rows(field.axes), bytes = shape.width(field.axes) * schema::bytes_of(field.stored, shape.experts);
    auto& column = columns.fields.emplace_back(rows_[f].size());
    for (uint64_t token = 0; token < waiting_; ++token)
      for (size_t layer = 0; layer < layers; ++layer)
        std::memcpy(column.data() + (layer * waiting_ + token) * bytes, rows_[f].data() + (token * layers + layer) * bytes, bytes);
    rows_[f].clear();
  }
  waiting_ = 0;
  rehearsal_step();
  return writer_.write(columns);
}

}  // namespace switchyard::dumps
