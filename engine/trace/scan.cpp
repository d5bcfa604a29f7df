// Reads a trace commit by commit and compares checksums; counts what /agg holds.
#include "engine/trace/scan.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/analysis/affinity.h"
#include "engine/analysis/coactivation.h"
#include "engine/analysis/gate_entropy.h"
#include "engine/analysis/load.h"
#include "engine/base/crc32c.h"
#include "engine/trace/rehearsal.h"

namespace switchyard {
namespace {

using schema::Axes;
using schema::Field;

// Counts into the aggregates what the recorder wrote.
class Aggregates {
 public:
  Aggregates(const schema::Shape& shape, CaptureLevel capture)
      : shape_(shape),
        logits_(capture >= CaptureLevel::kLogits),
        pairs_(schema::has_pair_matrices(shape.layers, shape.experts)),
        load_(shape.layers, shape.experts),
        coact_(pairs_ ? shape.layers : 0, shape.experts),
        affinity_(pairs_ ? shape.layers : 1, shape.experts),
        gates_(shape.layers, shape.experts) {}

  Result<void> feed(const std::vector<const Field*>& fields, uint32_t slots, const TraceColumns& columns) {
    for (size_t f = 0; f < fields.size(); ++f) {
      if (fields[f]->quantity == schema::Quantity::kExpertId) SY_CHECK(feed_ids(columns.fields[f], columns.tokens, slots));
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
  Result<void> feed_ids(const std::vector<std::byte>& stored, uint64_t tokens, uint32_t slots) {
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
    return {};
  }

  Result<void> feed_logits(const std::vector<std::byte>& stored, uint64_t tokens) {
    std::vector<float> logits(tokens * shape_.experts);
    for (int row = 0; row < shape_.layers; ++row) {
      std::memcpy(logits.data(), stored.data() + row * logits.size() * sizeof(float), logits.size() * sizeof(float));
      SY_CHECK(gates_.feed(row, logits));
    }
    return {};
  }

  schema::Shape shape_;
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
  Aggregates aggregates(file.shape(), file.info().capture);
  const auto describe = [&](uint64_t first, uint64_t end, const std::string& what) {
    scan.problems.push_back("tokens " + std::to_string(first) + " to " + std::to_string(end - 1) + ": " + what);
  };
  SY_CHECK(for_each_commit(
      file,
      [&](uint64_t first, uint32_t slots, const TraceColumns& columns) -> Result<void> {
        // A checksum that matches over ids that cannot be: the file was made so.
        if (const auto fed = aggregates.feed(file.fields(), slots, columns); !fed)
          describe(first, first + columns.tokens, fed.error().message());
        return {};
      },
      describe, task));
  aggregates.write_to(scan.aggregates);
  return scan;
}

}  // namespace switchyard
