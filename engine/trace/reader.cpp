// The public reader: committed rows of an opened trace, converted to what analyses expect.
#include <algorithm>
#include <optional>
#include <string>

#include "engine/base/checked.h"
#include "engine/routing/tap_names.h"
#include "engine/trace/file.h"
#include "engine/trace/guard.h"
#include "engine/trace/rehearsal.h"
#include "engine/trace/schema.h"
#include "engine/trace/trace.h"

namespace switchyard {
namespace {

using schema::Axes;
using schema::Field;

class FileReader final : public TraceReader {
 public:
  explicit FileReader(std::unique_ptr<TraceFile> file) : file_(std::move(file)) {}

  const TraceInfo& info() const override { return file_->info(); }

  Result<std::vector<TokenId>> token_ids(uint64_t first, uint64_t tokens) const override {
    return read<TokenId>("/tokens/token_id", 0, first, tokens, H5T_NATIVE_INT32);
  }

  Result<std::vector<uint32_t>> token_column(std::string_view name, uint64_t first, uint64_t tokens) const override {
    return read<uint32_t>("/tokens/" + std::string(name), 0, first, tokens, H5T_NATIVE_UINT32, Axes::kToken);
  }

  Result<std::vector<ExpertId>> expert_ids(int row, uint64_t first, uint64_t tokens) const override {
    return ids_of("/routing/expert_id", row, first, tokens);
  }

  Result<std::vector<ExpertId>> guessed_ids(int row, uint64_t first, uint64_t tokens) const override {
    return ids_of("/routing/pred_gate_id", row - 1, first, tokens);
  }

  Result<std::vector<float>> weights(int row, uint64_t first, uint64_t tokens) const override {
    return read<float>("/routing/weight", row, first, tokens, H5T_NATIVE_FLOAT);
  }

  Result<std::vector<uint8_t>> slot_kinds(int row, uint64_t first, uint64_t tokens) const override {
    return read<uint8_t>("/routing/slot_kind", row, first, tokens, H5T_NATIVE_UINT8);
  }

  Result<std::vector<float>> out_norms(int row, uint64_t first, uint64_t tokens) const override {
    return read<float>("/routing/out_norm", row, first, tokens, H5T_NATIVE_FLOAT);
  }

  Result<std::vector<float>> router_logits(int row, uint64_t first, uint64_t tokens) const override {
    return read<float>("/routing/router_logits", row, first, tokens, H5T_NATIVE_FLOAT);
  }

  Result<std::vector<float>> scalar(std::string_view name, int row, uint64_t first, uint64_t tokens) const override {
    return read<float>("/routing/" + std::string(name), row, first, tokens, H5T_NATIVE_FLOAT, Axes::kRow);
  }

  Result<std::vector<float>> router_weight(int row) const override {
    h5::quiet();
    if (file_->header().router_width == 0)
      return fail(ErrorCode::kUsage, "the trace has no /model/router_weight.", info().path.string(), "Record it with --routers.");
    return file_->router_weight(row);
  }

  Result<std::vector<EpochRow>> epochs() const override {
    h5::quiet();
    return file_->epochs();
  }

  Result<std::vector<int64_t>> sequence_offsets() const override {
    h5::quiet();
    if (info().counts_only)
      return fail(ErrorCode::kUsage, "the trace has no /sequences/offset.", info().path.string(), "It holds counts only.");
    SY_TRY(const auto rows, file_->sequences());
    std::vector<int64_t> offsets;
    for (const SequenceRow& row : rows) offsets.push_back(int64_t(row.first_token));
    offsets.push_back(int64_t(info().tokens));
    return offsets;
  }

  Result<std::vector<std::string>> domain_names() const override { return file_->header().domains; }

  Result<std::vector<uint16_t>> sequence_domains() const override { return labels(&SequenceRow::domain); }
  Result<std::vector<uint64_t>> sequence_sources() const override { return labels(&SequenceRow::source_id); }

  Result<TraceCounts> counts() const override {
    h5::quiet();
    return file_->counts();
  }

 private:
  Result<std::vector<ExpertId>> ids_of(const char* path, int row, uint64_t first, uint64_t tokens) const {
    SY_TRY(auto ids, read<ExpertId>(path, row, first, tokens, H5T_NATIVE_UINT16));
    const int experts = info().experts;
    const ExpertId empty = experts <= 255 ? 0xFF : kNoExpert;  // all ones, as stored
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == empty) {
        ids[i] = kNoExpert;
      } else if (ids[i] >= experts) {
        return file_->malformed(std::string(path) + " names expert " + std::to_string(ids[i]) + " of " + std::to_string(experts) +
                                    " at row " + std::to_string(row) + ", token " + std::to_string(first + i / info().top_k) + ".",
                                "Run switchyard trace verify.");
      }
    }
    return ids;
  }

  template <class T>
  Result<std::vector<T>> labels(T SequenceRow::*field) const {
    std::vector<T> out;
    if (file_->header().domains.empty()) return out;
    h5::quiet();
    SY_TRY(const auto rows, file_->sequences());
    for (const SequenceRow& row : rows) out.push_back(row.*field);
    return out;
  }

  template <class T>
  Result<std::vector<T>> read(const std::string& path, int row, uint64_t first, uint64_t tokens, hid_t type,
                              std::optional<Axes> axes = {}) const {
    h5::quiet();
    const Field* field = schema::find_field(path);
    if (field == nullptr || (axes && field->axes != *axes)) return fail(ErrorCode::kUsage, "traces have no " + path + ".");
    if (!file_->has(*field)) return fail(ErrorCode::kUsage, "the trace has no " + path + ".", info().path.string(), advice(*field));
    if (row < 0 || uint64_t(row) >= file_->shape().rows(field->axes == Axes::kToken ? Axes::kRow : field->axes))
      return fail(ErrorCode::kUsage, "routing row " + std::to_string(row) + " of " + std::to_string(info().layers) + ".");
    const auto end = checked_add(first, tokens);
    if (!end || *end > info().tokens) {
      return fail(ErrorCode::kUsage, "tokens " + std::to_string(first) + " and " + std::to_string(tokens) + " more were asked for; " +
                                         std::to_string(info().tokens) + " are committed.", info().path.string());
    }
    const uint64_t width = file_->shape().width(field->axes);
    const auto values = checked_mul(tokens, width);
    if (!values || *values > TraceCaps::kReadBytes / sizeof(T))
      return fail(ErrorCode::kUsage, "more than 256 MiB were asked for at once.", info().path.string());
    std::vector<T> out(*values);
    if (!out.empty()) SY_CHECK(file_->read(*field, row, 1, first, tokens, width, type, out.data()));
    return out;
  }

  std::string advice(const Field& field) const {
    if (info().counts_only) return "It holds counts only.";
    for (const TapName& known : kTapNames)
      if (field.tap == known.tap) return std::string("Record it with --taps ") + known.name + ".";
    if (field.from == CaptureLevel::kIds) return "What it was imported from does not hold that.";
    return field.from == CaptureLevel::kLogits ? "Record it with --capture logits." : "Record it with --capture weights.";
  }

  std::unique_ptr<TraceFile> file_;
};

// Everything that a reader can be asked for. Pieces that cannot be read are no reason to refuse the others.
Result<void> read_all(const std::filesystem::path& path) {
  SY_TRY(const auto file, TraceFile::open(path));
  constexpr uint64_t kPieceBytes = TraceCaps::kReadBytes / 4;
  std::vector<std::byte> bytes;
  for (const Field* field : file->fields()) {
    const uint64_t width = file->shape().width(field->axes);
    const uint64_t per_token = file->shape().rows(field->axes) * width * file->stored_bytes(*field);
    if (per_token > TraceCaps::kReadBytes)
      return file->malformed(std::string(field->path) + " holds more than 256 MiB for each token.");
    const uint64_t piece = std::max<uint64_t>(1, kPieceBytes / per_token), end = file->info().tokens;
    for (uint64_t first = 0; first < end; first += piece) {
      static_cast<void>(file->read_stored(*field, first, std::min(piece, end - first), width, bytes));
      rehearsal_step();
    }
  }
  for (int row = 0; file->header().router_width > 0 && row < file->info().layers; ++row) {
    static_cast<void>(file->router_weight(row));
    rehearsal_step();
  }
  static_cast<void>(file->epochs());
  if (file->info().complete) static_cast<void>(file->counts());
  return {};
}

}  // namespace

Result<TraceInfo> read_trace_info(const std::filesystem::path& path) {
  const auto open = [&path] { return TraceFile::open(path).map([](const auto& file) { return file->info(); }); };
  SY_CHECK(rehearse(path, [&open] { return open().map([](const TraceInfo&) {}); }));
  return open();
}

Result<std::unique_ptr<TraceReader>> TraceReader::open(const std::filesystem::path& path, Task* task) {
  SY_CHECK(rehearse(path, [&path] { return read_all(path); }, task));
  SY_TRY(auto file, TraceFile::open(path));
  return std::make_unique<FileReader>(std::move(file));
}

}  // namespace switchyard
