// verify and recover: a pass over all checksums, and a copy of the rows that hold.
#include <algorithm>
#include <cmath>

#include "engine/base/text.h"
#include "engine/trace/file.h"
#include "engine/trace/rehearsal.h"
#include "engine/trace/scan.h"
#include "engine/trace/trace.h"
#include "engine/trace/writer.h"

namespace switchyard {
namespace {

// Begins the sequences and epochs that start at or before row `row` of the source; those whose own tokens
// were lost start at the first row that was saved.
class Starts {
 public:
  Starts(std::vector<SequenceRow> sequences, std::vector<TraceReader::EpochRow> epochs)
      : sequences_(std::move(sequences)), epochs_(std::move(epochs)) {}

  Result<void> begin_until(uint64_t row, TraceWriter& writer) {
    for (; sequence_ < sequences_.size() && sequences_[sequence_].first_token <= row; ++sequence_) {
      const SequenceRow& start = sequences_[sequence_];
      SY_CHECK(writer.begin_sequence(start.prompt_len, {start.parent, start.fork_offset, start.domain, start.source_id}));
    }
    for (; epoch_ < epochs_.size() && epochs_[epoch_].first_token <= row; ++epoch_) SY_CHECK(writer.begin_epoch(epochs_[epoch_].json));
    return {};
  }

  // The first row after `row` at which something begins.
  uint64_t next() const {
    uint64_t row = UINT64_MAX;
    if (sequence_ < sequences_.size()) row = std::min(row, sequences_[sequence_].first_token);
    if (epoch_ < epochs_.size()) row = std::min(row, epochs_[epoch_].first_token);
    return row;
  }

 private:
  std::vector<SequenceRow> sequences_;
  std::vector<TraceReader::EpochRow> epochs_;
  size_t sequence_ = 0, epoch_ = 0;
};

// Tokens [from, to) of columns that hold `columns.tokens` of them, with the slot axis `slots` wide in both.
TraceColumns part_of(const TraceColumns& columns, const TraceWriter& writer, uint32_t source_slots, uint64_t from, uint64_t to) {
  TraceColumns part{to - from, {}};
  schema::Shape source = writer.shape();
  source.slots = int(source_slots);
  for (size_t f = 0; f < writer.fields().size(); ++f) {
    const schema::Field& field = *writer.fields()[f];
    const size_t value = schema::bytes_of(field.stored, source.experts);
    const size_t bytes = source.width(field.axes) * value, wide = writer.shape().width(field.axes) * value;
    const std::byte fill = field.stored == schema::Stored::kExpertId ? std::byte{0xFF} : std::byte{0};
    auto& out = part.fields.emplace_back(source.rows(field.axes) * part.tokens * wide, fill);
    for (uint64_t row = 0; row < source.rows(field.axes); ++row) {
      for (uint64_t t = 0; t < part.tokens; ++t) {
        const std::byte* in = columns.fields[f].data() + (row * columns.tokens + from + t) * bytes;
        std::copy(in, in + bytes, out.data() + (row * part.tokens + t) * wide);
      }
    }
  }
  return part;
}

// One dataset of /agg against what the rows give; sums of exponentials may differ between machines.
template <class T>
void compare(const TraceFile& file, const char* path, const std::vector<T>& want, std::vector<std::string>& problems) {
  if (want.empty()) return;
  const auto have = file.aggregate<T>(path, want.size());
  const auto same = [](T a, T b) { return a == b || std::abs(double(a) - double(b)) <= 1e-9 * std::abs(double(b)); };
  if (!have) {
    problems.push_back(have.error().what);
  } else if (!std::equal(have->begin(), have->end(), want.begin(), same)) {
    problems.push_back(std::string(path) + " does not match the rows");
  }
}

std::string range_text(uint64_t first, uint64_t end) {
  return "tokens " + std::to_string(first) + " to " + std::to_string(end - 1);
}

Result<VerifyReport> check_trace(const std::filesystem::path& path, Task* task) {
  SY_TRY(const auto file, TraceFile::open(path));
  SY_TRY(const TraceScan scan, scan_trace(*file, task));
  VerifyReport report{file->info(), scan.problems};
  if (!file->info().complete || !scan.problems.empty()) return report;
  SY_TRY(const uint64_t tokens, file->number("n_tokens"));
  SY_TRY(const uint64_t bookkeeping, file->number("bookkeeping_crc32c"));
  if (tokens != scan.tokens)
    report.problems.push_back("n_tokens says " + std::to_string(tokens) + ", " + std::to_string(scan.tokens) + " are committed");
  if (bookkeeping != scan.bookkeeping_crc)
    report.problems.push_back("the checksum of /meta, /model, /sequences and /epochs does not match");
  const TraceAggregates& sums = scan.aggregates;
  for (const CountSum& sum : kCountSums)
    if ((file->info().ranked || !sum.ranked) && (!sum.later || file->exists(sum.path))) compare(*file, sum.path, sums.*sum.values, report.problems);
  compare(*file, "/agg/prob_sum", sums.prob_sum, report.problems);
  return report;
}

// Every byte that verify and recover read is read in a child first.
Result<void> rehearse_check(const std::filesystem::path& path, Task* task) {
  return rehearse(path, [&path] { return check_trace(path, nullptr).map([](const VerifyReport&) {}); }, task);
}

}  // namespace

Result<VerifyReport> verify_trace(const std::filesystem::path& path, Task* task) {
  h5::quiet();
  SY_CHECK(rehearse_check(path, task));
  return check_trace(path, task);
}

namespace {

// Copies a trace row by row through a writer. damage_allowed: damaged rows are left out and told; else they end it.
Result<VerifyReport> copy_trace(const std::filesystem::path& source, const std::filesystem::path& target, TraceWriterOptions options,
                                bool damage_allowed, Task* task) {
  h5::quiet();
  SY_CHECK(rehearse_check(source, task));
  SY_TRY(const auto file, TraceFile::open(source));
  std::error_code ignored;
  if (std::filesystem::equivalent(source, target, ignored)) {
    return fail(ErrorCode::kUsage, "is the file to read; the result goes to a new one.", printable(target.string(), 400),
                "Choose another name with -o.");
  }
  if (file->info().counts_only)
    return file->malformed("holds counts only: there are no tokens to recover.", "Import it again.");
  for (const schema::Field* field : file->fields()) {
    if (file->stored_bytes(*field) != schema::bytes_of(field->stored, file->shape().experts))
      return file->malformed(std::string(field->path) + " is packed to fewer bytes; only recordings are copied.");
  }
  if (options.half && file->info().capture >= CaptureLevel::kLogits) {
    SY_TRY(TraceScan scan, scan_trace(*file, task));
    options.prob_sum = std::move(scan.aggregates.prob_sum);
  }
  // A name of its own: the source may well be the .part of the target. What an earlier try left is a copy.
  std::filesystem::remove(target.string() + options.part_suffix, ignored);
  TraceHeader header = file->header();
  if (header.router_width > 0) {
    auto weights = std::make_shared<std::vector<float>>();
    for (int row = 0; row < file->info().layers; ++row) {
      SY_TRY(const auto own, file->router_weight(row));
      weights->insert(weights->end(), own.begin(), own.end());
    }
    header.router_weight = std::move(weights);
  }
  SY_TRY(const auto writer, TraceWriter::create(target, header, options));
  SY_TRY(auto sequences, file->sequences());
  SY_TRY(auto epochs, file->epochs());
  Starts starts(std::move(sequences), std::move(epochs));

  std::vector<std::string> lost;
  const auto copy = [&](uint64_t first, uint32_t slots, const TraceColumns& columns) -> Result<void> {
    SY_CHECK(writer->need_slots(int(slots)));
    for (uint64_t row = first, end = first + columns.tokens; row < end;) {
      SY_CHECK(starts.begin_until(row, *writer));
      const uint64_t next = std::min({end, row + writer->block_room(), starts.next()});
      SY_CHECK(writer->write(part_of(columns, *writer, slots, row - first, next - first)));
      row = next;
    }
    return writer->commit();
  };
  const auto leave_out = [&](uint64_t first, uint64_t end, const std::string& what) {
    lost.push_back(range_text(first, end) + " of the source are left out: " + what);
  };
  auto copied = for_each_commit(*file, copy, leave_out, task);
  if (copied && !damage_allowed && !lost.empty())
    copied = file->malformed("is damaged: " + lost.front() + ".", "switchyard trace recover saves what is sound.");
  if (copied) copied = writer->finish(file->info().dropped, task);
  if (!copied) {
    std::filesystem::remove(writer->part_path(), ignored);
    return tl::unexpected(std::move(copied).error());
  }
  SY_TRY(VerifyReport report, verify_trace(target, task));
  report.problems.insert(report.problems.begin(), lost.begin(), lost.end());
  return report;
}

}  // namespace

Result<VerifyReport> recover_trace(const std::filesystem::path& source, const std::filesystem::path& target, bool overwrite,
                                   Task* task) {
  TraceWriterOptions options;
  options.overwrite = overwrite ? Overwrite::kAllow : Overwrite::kRefuse;
  options.part_suffix = ".recover.part";
  return copy_trace(source, target, std::move(options), true, task);
}

Result<VerifyReport> pack_trace(const std::filesystem::path& source, const std::filesystem::path& target, bool half, bool overwrite,
                                Task* task) {
  TraceWriterOptions options;
  options.overwrite = overwrite ? Overwrite::kAllow : Overwrite::kRefuse;
  options.part_suffix = ".pack.part";
  options.chunk_rows = 32'768;
  options.packed = true;
  options.half = half;
  return copy_trace(source, target, std::move(options), false, task);
}

}  // namespace switchyard
