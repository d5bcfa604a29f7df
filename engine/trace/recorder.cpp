// Records frames: the engine thread copies each into a ring, one writer thread owns the file. A recording is one file
// or, where a recipe needs more rows, several one after the other.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/ring.h"
#include "engine/routing/scheme_makers.h"
#include "engine/trace/provenance.h"
#include "engine/trace/schema.h"
#include "engine/trace/trace.h"
#include "engine/trace/writer.h"

namespace switchyard {
namespace {

using schema::Axes;
using schema::Field;
using schema::Quantity;
using schema::Stored;
using std::chrono::steady_clock;

constexpr size_t kRingBytes = size_t(64) << 20;
constexpr auto kSyncEvery = std::chrono::seconds(10);

// What happens between two tokens; `first_token` is the first row that it is true of.
struct SequenceStart { uint64_t first_token; uint32_t prompt_tokens; SequenceOrigin origin; };
struct EpochStart { uint64_t first_token; std::string json; };
using Event = std::variant<SequenceStart, EpochStart>;

template <class T>
void put(std::byte*& at, T value) {
  std::memcpy(at, &value, sizeof value);
  at += sizeof value;
}

int slots_used(const RoutingFrame& frame) {
  int slots = 0;
  for (int row = 0; row < frame.rows(); ++row) slots = std::max<int>(slots, frame.layer(row).k_used + frame.layer(row).nulls);
  return slots;
}

// What is recorded of a slot, [slots]; `empty` past the used ones.
template <class T, class Source>
void put_slots(std::byte*& at, std::span<const Source> values, int used, int slots, T empty) {
  for (int slot = 0; slot < slots; ++slot) put(at, slot < used ? T(values[slot]) : empty);
}

void put_ids(std::byte*& at, std::span<const ExpertId> ids, int used, const schema::Shape& shape) {
  if (schema::bytes_of(schema::Stored::kExpertId, shape.experts) == 1) return put_slots<uint8_t>(at, ids, used, shape.slots, 0xFF);
  put_slots<uint16_t>(at, ids, used, shape.slots, kNoExpert);
}

// The value of a token that does not depend on the layer.
void put_token(const Field& field, const FrameHeader& header, std::byte* at) {
  switch (field.quantity) {
    case Quantity::kTokenId: return put(at, uint32_t(header.token_id));
    case Quantity::kPosition: return put(at, header.position);
    case Quantity::kPhase: return put(at, uint8_t(header.phase));
    case Quantity::kRecipeEpoch: return put(at, header.recipe_epoch);
    default: return;
  }
}

// The values of a token in one row of the frame; of a row that the frame lacks those of one that it did not pass.
void put_layer(const Field& field, const RoutingFrame& frame, int row, const schema::Shape& shape, std::byte* at) {
  if (row >= frame.rows()) {
    const size_t bytes = shape.width(field.axes) * schema::bytes_of(field.stored, shape.experts);
    std::memset(at, field.stored == Stored::kExpertId ? 0xFF : 0, bytes);
    return;
  }
  const LayerHeader& layer = frame.layer(row);
  const int used = layer.k_used;
  switch (field.quantity) {
    case Quantity::kExpertId: return put_ids(at, frame.ids(row), used, shape);
    case Quantity::kPredGate: return put_ids(at, frame.guessed(row), int(frame.guessed(row).size()), shape);
    case Quantity::kWeight: return put_slots<float>(at, frame.weights(row), used, shape.slots, 0);
    case Quantity::kSlotKind: return put_slots<uint8_t>(at, frame.kinds(row), used + layer.nulls, shape.slots, 0);
    case Quantity::kEntropy: return put(at, layer.stats.entropy);
    case Quantity::kTopkMass: return put(at, layer.stats.topk_mass);
    case Quantity::kMargin: return put(at, layer.stats.margin);
    case Quantity::kLse: return put(at, layer.stats.lse);
    case Quantity::kOutNorm: return put_slots<float>(at, frame.out_norms(row), used, shape.slots, 0);
    case Quantity::kBlockCos: return put(at, frame.block_cos(row));
    case Quantity::kLogits: std::memcpy(at, frame.logits(row).data(), frame.logits(row).size_bytes()); return;
    default: return;
  }
}

// One file.
class FileRecorder final : public TraceSink {
 public:
  static Result<std::unique_ptr<FileRecorder>> create(const std::filesystem::path& path, const TraceHeader& header,
                                                      const RecorderOptions& options) {
    SY_TRY(auto writer, TraceWriter::create(path, header, {options.chunk_rows, options.overwrite ? Overwrite::kAllow : Overwrite::kRefuse}));
    const size_t frame_bytes = std::max<size_t>(1, RoutingFrame(int(header.moe_layers.size()), header.experts,
                                                                header.experts_per_token, header.capture, 1, header.taps).memory_bytes());
    const size_t ring_frames = std::clamp<size_t>(kRingBytes / frame_bytes, 2, std::max<size_t>(options.ring_frames, 2));
    return std::make_unique<FileRecorder>(path, std::move(writer), header, options, ring_frames);
  }

  FileRecorder(std::filesystem::path path, std::unique_ptr<TraceWriter> writer, const TraceHeader& header,
               const RecorderOptions& options, size_t ring_frames)
      : path_(std::move(path)),
        options_(options),
        shape_(writer->shape()),
        frame_rows_(header.frame_rows),
        capture_(header.capture),
        taps_(header.taps),
        writer_(std::move(writer)),
        part_(writer_->part_path()),
        ring_(ring_frames, std::clamp<size_t>(ring_frames / 2, 1, 1024)),
        thread_([this] { run(); }) {}

  ~FileRecorder() override { static_cast<void>(close()); }

  uint64_t accepted() const { return accepted_; }
  uint64_t committed_tokens() const { return committed_.load(std::memory_order_acquire); }
  // Ends a recording in which no frame is; the file goes.
  void discard() {
    discarded_ = true;
    static_cast<void>(close());
    std::error_code ignored;
    std::filesystem::remove(part_, ignored);
  }
  uint64_t dropped() const override { return dropped_.load(std::memory_order_relaxed); }

  using TraceSink::begin_sequence;
  Result<void> begin_sequence(uint32_t, uint32_t prompt_tokens, SequenceOrigin origin) override {
    SY_CHECK(still_open());
    has_sequence_ = true;
    const std::scoped_lock lock(mutex_);
    events_.push_back(SequenceStart{accepted_, prompt_tokens, origin});
    return {};
  }

  Result<void> begin_epoch(uint32_t epoch, uint64_t, const std::string& edits_json) override {
    SY_CHECK(still_open());
    auto edits = nlohmann::ordered_json::parse(edits_json.empty() ? "{}" : edits_json, nullptr, false);
    if (!edits.is_object()) return fail(ErrorCode::kInternal, "the edits of an epoch are not a JSON object.", path_.string());
    name_makers(edits);
    edits["epoch"] = epoch;
    edits["parent_sha256"] = parent_.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(parent_);
    std::string json = edits.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    parent_ = sha256_of_text(json);
    const std::scoped_lock lock(mutex_);
    events_.push_back(EpochStart{accepted_, std::move(json)});
    return {};
  }

  Result<void> append(const RoutingFrame& frame) override {
    const FrameHeader& header = frame.header();
    const auto first = [&](int row) { return row < header.moe_layers; };
    const auto routers = frame_rows_.empty() ? shape_.layers : std::count_if(frame_rows_.begin(), frame_rows_.end(), first);
    const bool fits = routers == header.moe_layers;
    if (!fits || header.experts != shape_.experts || header.capture < capture_ || (taps_ & ~header.taps) != 0) {
      return fail(ErrorCode::kUsage, "a frame of " + std::to_string(header.moe_layers) + " rows, " + std::to_string(header.experts) +
                      " experts, capture level " + std::to_string(int(header.capture)) + " and taps " + std::to_string(int(header.taps)) + " does not fit the trace's " +
                      std::to_string(shape_.layers) + ", " + std::to_string(shape_.experts) + ", " + std::to_string(int(capture_)) + " and " + std::to_string(int(taps_)) + ".",
                  path_.string());
    }
    if (!has_sequence_) SY_CHECK(begin_sequence(header.sequence, 0, {}));
    if (options_.block_when_full) {
      if (!ring_.push(frame)) return stopped();
    } else if (!ring_.try_push(frame)) {
      if (ring_.closed()) return stopped();
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return {};
    }
    ++accepted_;
    return {};
  }

  Result<void> close() override {
    ring_.close();
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  Result<void> still_open() const { return ring_.closed() ? stopped() : Result<void>{}; }

  Result<void> stopped() const {
    const std::scoped_lock lock(mutex_);
    if (failed_) return result_;
    return fail(ErrorCode::kUsage, "the recording is closed.", path_.string());
  }

  // The writer thread.
  void run() {
    Result<void> result = record();
    if (result && !discarded_) result = writer_->finish(dropped());
    if (result) committed_.store(writer_->committed(), std::memory_order_release);
    writer_.reset();
    {
      const std::scoped_lock lock(mutex_);
      failed_ = !result;
      result_ = std::move(result);
    }
    ring_.close();  // after a failure: nobody waits for room any more
  }

  Result<void> record() {
    h5::quiet();
    const auto period = std::chrono::duration_cast<steady_clock::duration>(
        std::chrono::duration<double>(options_.flush_seconds > 0 ? options_.flush_seconds : 3600.0));
    auto next_commit = steady_clock::now() + period, next_sync = steady_clock::now() + kSyncEvery;
    for (;;) {
      const bool last = ring_.closed();  // asked first: what is accepted before the close is seen below
      const size_t waiting = ring_.wait(next_commit);
      SY_CHECK(drain(waiting));
      const auto now = steady_clock::now();
      if (now >= next_commit) {
        SY_CHECK(writer_->commit());
        next_commit = now + period;
      }
      committed_.store(writer_->committed(), std::memory_order_release);
      if (now >= next_sync) {
        SY_CHECK(writer_->sync());
        next_sync = now + kSyncEvery;
      }
      if (last && waiting == 0) return apply_events();
    }
  }

  Result<void> drain(size_t waiting) {
    while (waiting > 0) {
      SY_CHECK(apply_events());
      SY_CHECK(writer_->need_slots(slots_used(ring_.at(0))));
      const size_t limit = std::min<uint64_t>({waiting, writer_->block_room(), next_event() - writer_->tokens()});
      size_t count = 1;
      while (count < limit && slots_used(ring_.at(count)) <= writer_->shape().slots) ++count;
      gather(count);
      SY_CHECK(writer_->write(columns_));
      ring_.pop(count);
      waiting -= count;
    }
    return {};
  }

  // Sequences and epochs that begin at the next row.
  Result<void> apply_events() {
    for (;;) {
      Event event;
      {
        const std::scoped_lock lock(mutex_);
        if (events_.empty() || first_token(events_.front()) > writer_->tokens()) return {};
        event = std::move(events_.front());
        events_.erase(events_.begin());
      }
      if (const auto* sequence = std::get_if<SequenceStart>(&event)) SY_CHECK(writer_->begin_sequence(sequence->prompt_tokens, sequence->origin));
      if (const auto* epoch = std::get_if<EpochStart>(&event)) SY_CHECK(writer_->begin_epoch(epoch->json));
    }
  }

  static uint64_t first_token(const Event& event) {
    return std::visit([](const auto& start) { return start.first_token; }, event);
  }

  uint64_t next_event() const {
    const std::scoped_lock lock(mutex_);
    return events_.empty() ? UINT64_MAX : first_token(events_.front());
  }

  // The first `count` waiting frames, field by field.
  void gather(size_t count) {
    const schema::Shape& shape = writer_->shape();
    columns_.tokens = count;
    columns_.fields.resize(writer_->fields().size());
    for (size_t f = 0; f < columns_.fields.size(); ++f) {
      const Field& field = *writer_->fields()[f];
      const size_t bytes = shape.width(field.axes) * schema::bytes_of(field.stored, shape.experts);
      auto& column = columns_.fields[f];
      column.resize(shape.rows(field.axes) * count * bytes);
      for (size_t t = 0; t < count; ++t) {
        const RoutingFrame& frame = ring_.at(t);
        if (field.axes == Axes::kToken) {
          put_token(field, frame.header(), column.data() + t * bytes);
          continue;
        }
        const int skipped = field.axes == Axes::kNextSlot;  // the first row has no router before it
        for (int row = 0; row < int(shape.rows(field.axes)); ++row)
          put_layer(field, frame, frame_rows_.empty() ? row + skipped : frame_rows_[size_t(row + skipped)], shape, column.data() + (size_t(row) * count + t) * bytes);
      }
    }
  }

  const std::filesystem::path path_;
  const RecorderOptions options_;
  const schema::Shape shape_;
  const std::vector<int> frame_rows_;
  const CaptureLevel capture_;
  const uint8_t taps_;
  std::atomic<bool> discarded_{false};

  std::unique_ptr<TraceWriter> writer_;  // writer thread
  const std::filesystem::path part_;
  TraceColumns columns_;                 // writer thread
  Ring<RoutingFrame> ring_;

  uint64_t accepted_ = 0;      // engine thread: frames in the ring or the file
  bool has_sequence_ = false;  // engine thread
  std::string parent_;         // engine thread: sha256 of the last epoch's JSON

  mutable std::mutex mutex_;   // events_, failed_, result_
  std::vector<Event> events_;
  bool failed_ = false;
  Result<void> result_;

  std::atomic<uint64_t> committed_{0}, dropped_{0};
  std::thread thread_;  // last: starts when everything else is there
};

// Engine thread, but for what the header says.
class Recording final : public TraceRecorder {
 public:
  Recording(std::filesystem::path path, TraceHeader header, const RecorderOptions& options, std::unique_ptr<FileRecorder> file)
      : header_(std::move(header)), options_(options), first_(path),
        paths_{std::move(path)}, file_(std::move(file)) {
    for (size_t row = 0; row < header_.moe_layers.size(); ++row)
      rows_.push_back({int(row), header_.moe_layers[row], row < header_.router_names.size() ? header_.router_names[row] : std::string()});
  }

  std::vector<std::filesystem::path> paths() const override {
    const std::scoped_lock lock(mutex_);
    return paths_;
  }
  uint64_t committed_tokens() const override {
    const std::scoped_lock lock(mutex_);
    return committed_before_ + file_->committed_tokens();
  }
  uint64_t dropped() const override {
    const std::scoped_lock lock(mutex_);
    return dropped_before_ + file_->dropped();
  }

  using TraceSink::begin_sequence;
  Result<void> begin_sequence(uint32_t sequence, uint32_t prompt_tokens, SequenceOrigin origin) override {
    origin.parent = origin.parent >= sequences_before_ ? origin.parent - sequences_before_ : -1;
    if (origin.parent < 0) origin.offset = 0;
    sequence_ = {sequence, prompt_tokens, file_->accepted(), origin};
    ++sequences_;
    return file_->begin_sequence(sequence, prompt_tokens, origin);
  }

  // The rows in hand and those that are new, in the order of execution. A row that now is of another decision is new.
  Result<void> need_rows(std::vector<DecisionRow> rows) override {
    if (header_.router_names.empty()) return {};  // a header without names of rows: nobody asks for more
    const auto known = [&](const DecisionRow& row) { return std::find(rows_.begin(), rows_.end(), row) != rows_.end(); };
    if (std::all_of(rows.begin(), rows.end(), known)) return {};
    for (const DecisionRow& row : rows_)
      if (std::none_of(rows.begin(), rows.end(), [&](const DecisionRow& r) { return r.row == row.row; })) rows.push_back(row);
    std::sort(rows.begin(), rows.end(), [](const DecisionRow& a, const DecisionRow& b) { return std::pair(a.layer, a.row) < std::pair(b.layer, b.row); });
    wanted_ = std::move(rows);
    return {};
  }

  Result<void> begin_epoch(uint32_t epoch, uint64_t first_token, const std::string& edits_json) override {
    if (!wanted_.empty()) SY_CHECK(go_on(edits_json));
    return file_->begin_epoch(epoch, first_token, edits_json);
  }

  Result<void> append(const RoutingFrame& frame) override { return file_->append(frame); }
  Result<void> close() override { return file_->close(); }

 private:
  // In a file with the rows that are wanted.
  Result<void> go_on(const std::string& edits_json) {
    rows_ = std::exchange(wanted_, {});
    if (header_.router_weight) {
      const size_t row = size_t(header_.experts) * size_t(header_.router_width);
      const auto from = std::exchange(header_.router_weight, nullptr);
      auto to = std::make_shared<std::vector<float>>(rows_.size() * row);
      for (size_t r = 0; r < rows_.size(); ++r) {
        const auto& known = header_.frame_rows;
        const size_t before = known.empty() ? size_t(rows_[r].row) : size_t(std::find(known.begin(), known.end(), rows_[r].row) - known.begin());
        if (before < header_.moe_layers.size()) std::copy_n(from->begin() + ptrdiff_t(before * row), row, to->begin() + ptrdiff_t(r * row));
      }
      header_.router_weight = std::move(to);
    }
    header_.moe_layers.clear();
    header_.router_names.clear();
    header_.frame_rows.clear();
    for (const DecisionRow& row : rows_) {
      header_.moe_layers.push_back(row.layer);
      header_.router_names.push_back(row.name);
      header_.frame_rows.push_back(row.row);
    }
    header_.edits_json = edits_json;
    const bool empty = file_->accepted() == 0;
    if (empty) file_->discard();
    else SY_CHECK(file_->close());
    const std::filesystem::path next = empty ? paths_.back() : numbered(paths_.size() + 1);
    SY_TRY(auto file, FileRecorder::create(next, header_, options_));
    // What of the running sequence is still to come.
    const uint64_t written = file_->accepted() - sequence_.first;
    {
      const std::scoped_lock lock(mutex_);
      committed_before_ += file_->committed_tokens();
      dropped_before_ += file_->dropped();
      if (!empty) paths_.push_back(next);
      file_ = std::move(file);
    }
    if (sequences_ == 0) return {};
    sequences_before_ = sequences_ - 1;
    const uint32_t prompt = sequence_.prompt_tokens - uint32_t(std::min<uint64_t>(written, sequence_.prompt_tokens));
    sequence_.prompt_tokens = prompt;
    sequence_.first = 0;
    sequence_.origin.parent = -1;
    sequence_.origin.offset = 0;
    return file_->begin_sequence(sequence_.number, prompt, sequence_.origin);
  }

  std::filesystem::path numbered(size_t number) const {
    std::string name = first_.filename().string();
    name.insert(name.size() - std::string_view(schema::kSuffix).size(), "-" + std::to_string(number));
    return first_.parent_path() / name;
  }

  struct Sequence {
    uint32_t number = 0, prompt_tokens = 0;
    uint64_t first = 0;  // frame of the file
    SequenceOrigin origin;
  };

  TraceHeader header_;
  const RecorderOptions options_;
  const std::filesystem::path first_;
  std::vector<DecisionRow> rows_, wanted_;
  Sequence sequence_;
  int64_t sequences_ = 0, sequences_before_ = 0;  // before: in earlier files

  mutable std::mutex mutex_;  // the rest
  std::vector<std::filesystem::path> paths_;
  uint64_t committed_before_ = 0, dropped_before_ = 0;
  std::unique_ptr<FileRecorder> file_;
};

}  // namespace

Result<std::shared_ptr<TraceRecorder>> TraceRecorder::create(const std::filesystem::path& path, const TraceHeader& header,
                                                             const RecorderOptions& options) {
  SY_TRY(auto file, FileRecorder::create(path, header, options));
  return std::make_shared<Recording>(path, header, options, std::move(file));
}

}  // namespace switchyard
