// Reads a trace commit by commit and compares checksums; counts what /agg holds.
#include "engine/trace/scan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>

#include "engine/analysis/affinity.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/domain_load.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/load.h"
#include "engine/analysis/locality.h"
#include "engine/analysis/vocabulary.h"
#include "engine/base/crc32c.h"
#include "engine/trace/rehearsal.h"
#include "engine/trace/sides.h"

namespace switchyard {
namespace {

using schema::Axes;
using schema::Field;

// The sums that go by sequence: of domains, of windows (A8) and of token ids (A5).
class SequenceSums {
 public:
  static Result<std::unique_ptr<SequenceSums>> of(const TraceFile& file) {
    auto sums = std::make_unique<SequenceSums>(file.shape(), file.header().domains.size(), Sides::of(file.header().router_names, file.info().layers));
    SY_TRY(sums->sequences_, file.sequences());
    SY_CHECK(sums->count_ids(file));
    return sums;
  }
  SequenceSums(const schema::Shape& shape, size_t domains, const Sides& sides)
      : shape_(shape), sides_(sides), vocabulary_(shape.layers, shape.experts, shape.slots, schema::kVocabularyLeast) {
    for (const int m : schema::kSrpWindows)
      if (schema::has_srp(shape, domains, m)) windows_.push_back(m);
    for (size_t d = 0; d < std::max<size_t>(domains, 1); ++d) locality_.emplace_back(shape.layers, shape.experts, windows_);
    if (domains > 0 && domains * size_t(shape.layers) * size_t(shape.experts) * 8 <= schema::kSumBytes)
      by_domain_.emplace(shape.layers, shape.experts, int(domains));
  }

  // ids: [L, tokens, slots]; token_ids: [tokens], or empty; decodes: [tokens], see Sides.
  Result<void> feed(std::span<const ExpertId> ids, std::span<const TokenId> token_ids, std::span<const uint8_t> decodes, uint64_t first, uint64_t tokens, size_t slots) {
    for (uint64_t at = 0; at < tokens;) {
      while (sequence_ + 1 < sequences_.size() && sequences_[sequence_ + 1].first_token <= first + at) ++sequence_;
      const uint64_t limit = sequence_ + 1 < sequences_.size() ? std::min(tokens, sequences_[sequence_ + 1].first_token - first) : tokens;
      const bool decoder = decodes[at];
      uint64_t end = at + 1;
      while (end < limit && decodes[end] == decodes[at]) ++end;
      const uint64_t count = end - at;
      const size_t k = size_t(shape_.slots), domain = sequences_.empty() ? 0 : sequences_[sequence_].domain;
      if (domain >= locality_.size()) return fail(ErrorCode::kMalformed, "sequence " + std::to_string(sequence_) + " has a domain without a name.");
      std::vector<ExpertId> own(size_t(shape_.layers) * count * k, kNoExpert);
      for (size_t row = 0; row < size_t(shape_.layers); ++row)
        for (uint64_t t = 0; t < count; ++t)
          std::copy_n(ids.begin() + ptrdiff_t((row * tokens + at + t) * slots), slots, own.begin() + ptrdiff_t((row * count + t) * k));
      const std::vector<uint32_t> sequence(count, uint32_t(2 * sequence_ + decoder)), no_positions(count);
      const std::vector<uint16_t> domains(count, uint16_t(domain));
      RoutingSlab slab{.first_token = first + at, .tokens = int(count), .rows = shape_.layers, .experts = shape_.experts, .k = shape_.slots,
                       .ids = own, .sequence = sequence, .position = no_positions, .domain = domains};
      if (!token_ids.empty()) slab.token_ids = token_ids.subspan(at, count);
      for (int row = sides_.begin(decoder); row < sides_.end(decoder); ++row) {
        SY_CHECK(locality_[domain].feed(slab, row));
        if (by_domain_) SY_CHECK(by_domain_->feed(slab, row));
        if (vocabulary_.ids() > 0) SY_CHECK(vocabulary_.feed(slab, row));
      }
      at = end;
    }
    return {};
  }

  void write_to(TraceAggregates& out) {
    for (Locality& one : locality_) one.finish();
    std::vector<uint64_t> TraceAggregates::*const srp[] = {&TraceAggregates::srp_m4, &TraceAggregates::srp_m16, &TraceAggregates::srp_m64, &TraceAggregates::srp_m256};
    for (size_t w = 0; w < windows_.size(); ++w) {
      auto& all = out.*srp[w];
      for (const Locality& one : locality_)
        for (int row = 0; row < shape_.layers; ++row)
          for (int e = 0; e < shape_.experts; ++e) append(all, one.expert(int(w), row, ExpertId(e)));
    }
    for (int d = 0; by_domain_ && d < by_domain_->domains(); ++d)
      for (int row = 0; row < shape_.layers; ++row) append(out.domain_count, by_domain_->counts(d, row));
    if (vocabulary_.ids() == 0) return;
    for (size_t x = 0; x < vocabulary_.ids(); ++x) out.vocab_id.push_back(uint64_t(vocabulary_.id(x)));
    out.vocab_indptr.push_back(0);
    for (int row = 0; row < shape_.layers; ++row) {
      for (size_t x = 0; x < vocabulary_.ids(); ++x) {
        const auto counts = vocabulary_.choices(row, x);
        for (int e = 0; e < shape_.experts; ++e) {
          if (counts[size_t(e)] == 0) continue;
          out.vocab_expert.push_back(uint64_t(e));
          out.vocab_count.push_back(counts[size_t(e)]);
        }
        out.vocab_indptr.push_back(out.vocab_expert.size());
      }
    }
  }

 private:
  static void append(std::vector<uint64_t>& all, std::span<const uint64_t> values) { all.insert(all.end(), values.begin(), values.end()); }

  // Nothing where the ids are not recorded, or their tables would take more than kSumBytes.
  Result<void> count_ids(const TraceFile& file) {
    const Field* field = schema::find_field("/tokens/token_id");
    if (!file.has(*field)) return {};
    constexpr uint64_t kPiece = 1 << 20;
    std::vector<TokenId> ids;
    for (uint64_t first = 0; first < file.info().tokens; first += kPiece) {
      const uint64_t count = std::min(kPiece, file.info().tokens - first);
      ids.resize(count);
      if (!file.read(*field, 0, 1, first, count, 1, H5T_NATIVE_INT32, ids.data())) return {};  // told with the rows
      rehearsal_step();
      const std::vector<uint32_t> no_positions(count);
      vocabulary_.count_ids({.tokens = int(count), .position = no_positions, .token_ids = ids});
    }
    static_cast<void>(vocabulary_.prepare(schema::kSumBytes));
    return {};
  }

  schema::Shape shape_;
  Sides sides_;
  std::vector<SequenceRow> sequences_;
  size_t sequence_ = 0;
  std::vector<int> windows_;
  std::vector<Locality> locality_;  // of each domain, or of all
  std::optional<DomainLoad> by_domain_;
  VocabularyUse vocabulary_;
};

// Counts into the aggregates what the recorder wrote.
class Aggregates {
 public:
  Aggregates(const schema::Shape& shape, CaptureLevel capture, const Sides& sides, SequenceSums& by_sequence)
      : shape_(shape),
        sides_(sides),
        by_sequence_(by_sequence),
        logits_(capture >= CaptureLevel::kLogits),
        pairs_(schema::has_pair_matrices(shape.layers, shape.experts)),
        load_(shape.layers, shape.experts),
        coact_(pairs_ ? shape.layers : 0, shape.experts),
        affinity_(pairs_ ? shape.layers : 1, shape.experts),
        gates_(shape.layers, shape.experts) {}

  Result<void> feed(const std::vector<const Field*>& fields, uint64_t first, uint32_t slots, const TraceColumns& columns) {
    for (size_t f = 0; f < fields.size(); ++f) {
      if (fields[f]->quantity == schema::Quantity::kTokenId)
        token_ids_.assign(reinterpret_cast<const TokenId*>(columns.fields[f].data()), reinterpret_cast<const TokenId*>(columns.fields[f].data()) + columns.tokens);
      if (fields[f]->quantity == schema::Quantity::kExpertId) SY_CHECK(feed_ids(columns.fields[f], first, columns.tokens, slots));
      if (fields[f]->axes != Axes::kExpert) continue;
      // The sums of a packed trace are those of the recording: reduced logits do not give them.
      reduced_ = columns.fields[f].size() != columns.tokens * shape_.layers * shape_.experts * 4;
      if (!reduced_) SY_CHECK(feed_logits(columns.fields[f], columns.tokens));
    }
    return {};
  }

  void write_to(TraceAggregates& out) const {
    const auto append = [](auto& all, const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
    for (int row = 0; row < shape_.layers; ++row) {
      append(out.count, load_.counts(row));
      append(out.count_top1, load_.first_choice_counts(row));
      if (logits_ && !reduced_) append(out.prob_sum, gates_.prob_sum(row));
      if (pairs_) append(out.coact, coact_.counts(row));
    }
    for (int row = 0; row < affinity_.transitions(); ++row) {
      append(out.trans_top1, affinity_.top1(row));
      append(out.trans_topk, affinity_.topk(row));
    }
  }

 private:
  Result<void> feed_ids(const std::vector<std::byte>& stored, uint64_t first, uint64_t tokens, uint32_t slots) {
    const bool narrow = schema::bytes_of(schema::Stored::kExpertId, shape_.experts) == 1;
    std::vector<ExpertId> ids(shape_.layers * tokens * slots);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (narrow) {
        const auto id = std::to_integer<uint8_t>(stored[i]);
        ids[i] = id == 0xFF ? kNoExpert : id;
      } else {
        std::memcpy(&ids[i], stored.data() + 2 * i, 2);
      }
    }
    for (int row = 0; row < shape_.layers; ++row) {
      const auto all = std::span(ids).subspan(row * tokens * slots, tokens * slots);
      SY_CHECK(load_.feed(row, all, int(slots)));
      if (!pairs_) continue;
      SY_CHECK(coact_.feed(row, all, int(slots)));
      if (row + 1 == shape_.layers) continue;
      SY_CHECK(affinity_.feed(row, all, std::span(ids).subspan((row + 1) * tokens * slots, tokens * slots), int(slots)));
    }
    decodes_ = sides_.decodes(std::span(ids).first(tokens * slots), slots);
    return by_sequence_.feed(ids, token_ids_, decodes_, first, tokens, slots);
  }

  Result<void> feed_logits(const std::vector<std::byte>& stored, uint64_t tokens) {
    std::vector<float> logits(tokens * shape_.experts);
    for (int row = 0; row < shape_.layers; ++row) {
      std::memcpy(logits.data(), stored.data() + row * logits.size() * sizeof(float), logits.size() * sizeof(float));
      std::vector<uint8_t> passed;
      if (sides_.two()) std::ranges::transform(decodes_, std::back_inserter(passed), [&](uint8_t decodes) { return decodes == (row >= sides_.encoder_rows); });
      SY_CHECK(gates_.feed(row, logits, passed));
    }
    return {};
  }

  schema::Shape shape_;
  SequenceSums& by_sequence_;
  Sides sides_;
  std::vector<TokenId> token_ids_;  // of the columns in hand, like the next
  std::vector<uint8_t> decodes_;
  bool logits_, pairs_, reduced_ = false;
  Load load_;
  Coactivation coact_;
  Affinity affinity_;
  GateEntropy gates_;
};

// Everything in order of the file, numbers as 8 little-endian bytes, texts after their length. Sequences and
// epochs that begin behind the last token are left out: they have no rows to be wrong about.
Result<uint32_t> bookkeeping_crc(const TraceFile& file) {
  uint32_t crc = 0;
  const auto number = [&](uint64_t value) {
    std::array<std::byte, 8> bytes;
    for (int i = 0; i < 8; ++i) bytes[i] = std::byte(value >> (8 * i));
    crc = crc32c(bytes, crc);
  };
  const auto text = [&](const std::string& value) {
    number(value.size());
    crc = crc32c(std::as_bytes(std::span(value)), crc);
  };
  const TraceInfo& info = file.info();
  for (const std::string* value : {&info.model_config_json, &info.edits_json, &info.run_json}) text(*value);
  for (const std::string& name : file.header().router_names) text(name);
  for (const int layer : info.moe_layers) number(uint64_t(layer));
  for (const std::string& name : file.header().domains) text(name);
  for (int row = 0; file.header().router_width > 0 && row < info.layers; ++row) {
    SY_TRY(const auto weights, file.router_weight(row));
    crc = crc32c(std::as_bytes(std::span(weights)), crc);
  }
  SY_TRY(const auto sequences, file.sequences());
  for (const SequenceRow& row : sequences) {
    if (row.first_token >= info.tokens) break;
    for (const uint64_t value : {row.first_token, uint64_t(row.parent), uint64_t(row.fork_offset), uint64_t(row.prompt_len)}) number(value);
    if (!file.header().domains.empty()) number(row.domain), number(row.source_id);
  }
  SY_TRY(const auto epochs, file.epochs());
  for (const auto& row : epochs) {
    if (row.first_token >= info.tokens) break;
    number(row.first_token);
    text(row.json);
  }
  if (!info.counts_only) return crc;
  SY_TRY(const TraceCounts counts, file.counts());
  const auto values = [&](const auto& all) { crc = crc32c(std::as_bytes(std::span(all)), crc); };
  values(counts.count);
  values(counts.pass_count);
  values(counts.weight_sum);
  values(counts.ean_sum);
  values(counts.reap_sum);
  values(counts.max_act);
  number(info.tokens);
  number(uint64_t(info.top_k));
  return crc;
}

}  // namespace

uint32_t frame_order_crc(std::span<const std::byte> column, uint64_t layers, uint64_t tokens, uint32_t before) {
  if (layers == 1) return crc32c(column, before);
  const size_t bytes = column.size() / (layers * tokens);
  uint32_t crc = before;
  for (uint64_t t = 0; t < tokens; ++t) {
    for (uint64_t l = 0; l < layers; ++l) crc = crc32c(column.subspan((l * tokens + t) * bytes, bytes), crc);
  }
  return crc;
}

Result<void> for_each_commit(const TraceFile& file, const SoundRows& sound, const DamagedRows& damaged, Task* task) {
  const auto& fields = file.fields();
  const auto& commits = file.commits();
  std::vector<uint32_t> crc(fields.size());
  uint64_t done = 0;
  bool block_is_damaged = false;
  for (size_t c = 0; c < commits.size(); ++c) {
    const Commit& commit = commits[c];
    if (task != nullptr) {
      if (task->cancelled()) return fail(ErrorCode::kCancelled, "stopped.", file.info().path.string());
      task->report(double(done) / double(file.info().tokens), "Checking rows");
    }
    if (commit.block == done) {
      std::fill(crc.begin(), crc.end(), 0);
      block_is_damaged = false;
    }
    TraceColumns columns{commit.tokens - done, {}};
    std::string what = block_is_damaged ? "they follow a damaged row of their block" : "";
    for (size_t f = 0; f < fields.size() && what.empty(); ++f) {
      const Field& field = *fields[f];
      const uint64_t width = has_slots(field.axes) ? commit.slots : file.shape().width(field.axes);
      auto& bytes = columns.fields.emplace_back();
      if (const auto read = file.read_stored(field, done, columns.tokens, width, bytes); !read) {
        what = read.error().what;
        continue;
      }
      rehearsal_step();
      crc[f] = frame_order_crc(bytes, file.shape().rows(field.axes), columns.tokens, crc[f]);
      if (crc[f] != commit.crc32c[f]) what = std::string("the checksum of ") + field.path + " does not match";
    }
    if (what.empty()) {
      SY_CHECK(sound(done, commit.slots, columns));
    } else {
      block_is_damaged = true;
      damaged(done, commit.tokens, what);
    }
    done = commit.tokens;
  }
  return {};
}

Result<TraceScan> scan_trace(const TraceFile& file, Task* task) {
  TraceScan scan;
  scan.tokens = file.info().tokens;
  SY_TRY(scan.bookkeeping_crc, bookkeeping_crc(file));
  if (file.info().counts_only) return scan;
  SY_TRY(const auto by_sequence, SequenceSums::of(file));
  Aggregates aggregates(file.shape(), file.info().capture, Sides::of(file.header().router_names, file.info().layers), *by_sequence);
  const auto describe = [&](uint64_t first, uint64_t end, const std::string& what) {
    scan.problems.push_back("tokens " + std::to_string(first) + " to " + std::to_string(end - 1) + ": " + what);
  };
  SY_CHECK(for_each_commit(
      file,
      [&](uint64_t first, uint32_t slots, const TraceColumns& columns) -> Result<void> {
        // A checksum that matches over ids that cannot be: the file was made so.
        if (const auto fed = aggregates.feed(file.fields(), first, slots, columns); !fed)
          describe(first, first + columns.tokens, fed.error().message());
        return {};
      },
      describe, task));
  aggregates.write_to(scan.aggregates);
  by_sequence->write_to(scan.aggregates);
  return scan;
}

}  // namespace switchyard
