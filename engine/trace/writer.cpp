// The file side of recording. Order is everything: rows, then their flush, then the commit row.
#include "engine/trace/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <numeric>
#include <system_error>

#include "engine/base/text.h"
#include "engine/trace/file.h"
#include "engine/trace/scan.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using h5::Id;
using schema::Axes;
using schema::Field;

constexpr uint64_t kPackedChunkRows = 32'768;

constexpr const char* kGrowing[] = {
    "/token", "/slot", "/sequence", "/sequence_offset", "/epoch", "/epoch_offset", "/epoch_byte", "/commit_row",
    "/sequences/offset", "/sequences/parent", "/sequences/fork_offset", "/sequences/prompt_len",
    "/epochs/first_token", "/epochs/json", "/epochs/offset",
    "/commit/tokens", "/commit/block", "/commit/slots", "/commit/crc32c"};

Result<void> check_header(const TraceHeader& header) {
  if (header.moe_layers.empty() || header.moe_layers.size() > 2048)
    return fail(ErrorCode::kUsage, "a trace needs 1 to 2,048 routing rows, the model has " + std::to_string(header.moe_layers.size()) + ".");
  if (header.experts < 1 || header.experts > 65'535 || header.experts_per_token < 1 || header.experts_per_token > header.experts)
    return fail(ErrorCode::kUsage, "a trace cannot hold " + std::to_string(header.experts_per_token) + " of " + std::to_string(header.experts) + " experts per token.");
  if (header.capture == CaptureLevel::kOff)
    return fail(ErrorCode::kUsage, "a trace needs capture level ids, weights or logits; capture is off.");
  return {};
}

Result<void> check_name(const fs::path& path, Overwrite overwrite, bool any_name) {
  const std::string shown = printable(path.string(), 400);
  if (!any_name && (!path.filename().string().ends_with(schema::kSuffix) || path.filename() == schema::kSuffix))
    return fail(ErrorCode::kUsage, "a trace is named NAME.moetrace.h5.", shown);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(path, ignored))) {
    if (overwrite == Overwrite::kRefuse)
      return fail(ErrorCode::kOutput, "exists already.", shown, "Choose another name, or overwrite it with --force.");
    if (!fs::is_regular_file(path, ignored)) return fail(ErrorCode::kOutput, "exists and is not a regular file.", shown);
  }
  return {};
}

}  // namespace

TraceWriter::TraceWriter(fs::path path, const TraceHeader& header, const TraceWriterOptions& options)
    : path_(std::move(path)),
      part_(path_.string() + options.part_suffix),
      overwrite_(options.overwrite),
      shape_{int(header.moe_layers.size()), header.experts, header.experts_per_token},
      fields_(schema::fields_of(header)),
      crc_(fields_.size()),
      labelled_(!header.domains.empty()),
      packed_(options.packed),
      half_(options.half),
      prob_sum_(options.prob_sum) {}

TraceWriter::~TraceWriter() { abandon(); }

int TraceWriter::descriptor() const {
  void* handle = nullptr;
  return file_ && H5Fget_vfd_handle(file_, H5P_DEFAULT, &handle) >= 0 ? *static_cast<int*>(handle) : -1;
}

void TraceWriter::abandon() {
  if (!file_) return;
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere >= 0) {
    dup3(nowhere, descriptor(), O_CLOEXEC);
    ::close(nowhere);
  }
  datasets_.clear();
  H5Fclose(file_.release());
  H5Eclear2(H5E_DEFAULT);  // it may have failed, and what a thread does not take of its error stack is lost when it ends
}

Result<void> TraceWriter::close_file() {
  datasets_.clear();
  hsize_t size = 0;
  if (H5Fflush(file_, H5F_SCOPE_GLOBAL) < 0 || H5Fget_filesize(file_, &size) < 0) return failed("the end of the file");
  // The close extends the file to its full size; find out here whether that is possible.
  if (ftruncate(descriptor(), off_t(size)) != 0)
    return fail(ErrorCode::kOutput, "could not be closed: " + std::system_category().message(errno) + ".", printable(part_.string(), 400));
  if (H5Fclose(file_.release()) < 0) return failed("the end of the file");
  return {};
}

tl::unexpected<Error> TraceWriter::failed(const char* what) const {
  std::string text = std::string(what) + " could not be written: " + h5::last_error() + ".";
  std::error_code ignored;
  if (const auto space = fs::space(part_.has_parent_path() ? part_.parent_path() : ".", ignored); !ignored)
    text += " " + std::to_string(space.available) + " bytes are free there.";
  return fail(ErrorCode::kOutput, text, printable(part_.string(), 400),
              committed_ == 0 ? "" : "The first " + std::to_string(committed_) + " tokens are safe in it: switchyard trace recover.");
}

Result<std::unique_ptr<TraceWriter>> TraceWriter::create(const fs::path& path, const TraceHeader& header,
                                                         const TraceWriterOptions& options) {
  h5::quiet();
  SY_CHECK(check_header(header));
  SY_CHECK(check_name(path, options.overwrite, options.any_name));
  if (options.chunk_rows < 1 || options.chunk_rows > 1 << 20)
    return fail(ErrorCode::kUsage, "chunks of " + std::to_string(options.chunk_rows) + " rows were asked for; 1 to 1,048,576 can be.");
  std::error_code ignored;
  const fs::path target = fs::is_symlink(path, ignored) ? fs::canonical(path, ignored) : path;
  std::unique_ptr<TraceWriter> writer(new TraceWriter(target, header, options));

  const std::string shown = printable(writer->part_.string(), 400);
  if (fs::exists(fs::symlink_status(writer->part_, ignored))) {
    if (options.overwrite == Overwrite::kRefuse) {
      return fail(ErrorCode::kOutput, "exists already: a recording that is running or was cut off.", shown,
                  "Save its tokens with switchyard trace recover, choose another name, or overwrite it with --force.");
    }
    fs::remove(writer->part_, ignored);
  }
  const Id creation(H5Pcreate(H5P_FILE_CREATE));
  // Attributes and links of the root stay in its object header: an attribute is then one write, and damage
  // to it is found by one checksum.
  H5Pset_attr_phase_change(creation, 64, 0);
  H5Pset_link_phase_change(creation, 64, 0);
  const Id access = h5::file_access(options.packed ? h5::ChunkCache::kDefault : h5::ChunkCache::kNone);
  writer->file_ = Id(H5Fcreate(writer->part_.c_str(), H5F_ACC_EXCL, creation, access));
  if (!writer->file_) return fail(ErrorCode::kOutput, "could not be created: " + h5::last_error() + ".", shown);

  auto started = schema::create(writer->file_, header, {options.chunk_rows, options.packed, options.half});
  if (started && (H5Fflush(writer->file_, H5F_SCOPE_GLOBAL) < 0 || (!options.packed && H5Fstart_swmr_write(writer->file_) < 0)))
    started = writer->failed("the schema");
  if (started) started = writer->open_datasets();
  if (!started) {
    if (started.error().where.empty()) started.error().where = shown;
    fs::remove(writer->part_, ignored);
    return tl::unexpected(std::move(started).error());
  }
  return writer;
}

Result<void> TraceWriter::open_datasets() {
  for (const char* path : {"/sequences/domain", "/sequences/source_id"})
    if (labelled_) datasets_.emplace_back(path, Id(H5Dopen2(file_, path, H5P_DEFAULT)));
  for (const char* path : kGrowing) datasets_.emplace_back(path, Id(H5Dopen2(file_, path, H5P_DEFAULT)));
  // A compressed chunk is written once it is whole: the cache holds the chunk of every row that is being filled.
  const Id cached(H5Pcreate(H5P_DATASET_ACCESS));
  for (const Field* field : fields_) {
    if (packed_) {
      const uint64_t rows = field->axes == Axes::kExpert ? schema::kPackedChunkBytes : kPackedChunkRows * shape_.width(field->axes) * 4;
      H5Pset_chunk_cache(cached, 12'289, size_t(shape_.rows(field->axes) + 1) * rows, 1.0);
    }
    datasets_.emplace_back(field->path, Id(H5Dopen2(file_, field->path, packed_ ? hid_t(cached) : H5P_DEFAULT)));
  }
  for (const auto& [path, id] : datasets_)
    if (!id) return failed(path.c_str());
  return {};
}

Id& TraceWriter::dataset(const char* path) {
  return std::find_if(datasets_.begin(), datasets_.end(), [&](const auto& entry) { return entry.first == path; })->second;
}

Result<void> TraceWriter::extend(const char* path, uint64_t at, uint64_t count, hid_t type, const void* values) {
  const hid_t target = dataset(path);
  const hsize_t size = at + count, start = at, rows = count;
  if (H5Dset_extent(target, &size) < 0) return failed(path);
  const Id space(H5Dget_space(target)), memory(H5Screate_simple(1, &rows, nullptr));
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &rows, nullptr) < 0 ||
      H5Dwrite(target, type, memory, space, H5P_DEFAULT, values) < 0)
    return failed(path);
  return {};
}

Result<void> TraceWriter::resize_scale(const char* path, uint64_t size) {
  const hsize_t extent = size;
  if (H5Dset_extent(dataset(path), &extent) < 0) return failed(path);
  return {};
}

Result<void> TraceWriter::begin_sequence(uint32_t prompt_tokens, const SequenceOrigin& origin) {
  const int64_t first = int64_t(tokens_);
  const int64_t bounds[2] = {first, first};  // the second is moved at each commit
  SY_CHECK(extend("/sequences/offset", sequences_, 2, H5T_NATIVE_INT64, bounds));
  SY_CHECK(extend("/sequences/parent", sequences_, 1, H5T_NATIVE_INT64, &origin.parent));
  SY_CHECK(extend("/sequences/fork_offset", sequences_, 1, H5T_NATIVE_UINT32, &origin.offset));
  SY_CHECK(extend("/sequences/prompt_len", sequences_, 1, H5T_NATIVE_UINT32, &prompt_tokens));
  if (labelled_) {
    SY_CHECK(extend("/sequences/domain", sequences_, 1, H5T_NATIVE_UINT16, &origin.domain));
    SY_CHECK(extend("/sequences/source_id", sequences_, 1, H5T_NATIVE_UINT64, &origin.source_id));
  }
  ++sequences_;
  SY_CHECK(resize_scale("/sequence", sequences_));
  return resize_scale("/sequence_offset", sequences_ + 1);
}

Result<void> TraceWriter::begin_epoch(std::string_view json) {
  const uint64_t end = epoch_bytes_ + json.size();
  if (!json.empty()) SY_CHECK(extend("/epochs/json", epoch_bytes_, json.size(), H5T_NATIVE_UINT8, json.data()));
  SY_CHECK(extend("/epochs/offset", epochs_ + 1, 1, H5T_NATIVE_UINT64, &end));
  SY_CHECK(extend("/epochs/first_token", epochs_, 1, H5T_NATIVE_UINT64, &tokens_));
  ++epochs_;
  epoch_bytes_ = end;
  SY_CHECK(resize_scale("/epoch", epochs_));
  SY_CHECK(resize_scale("/epoch_offset", epochs_ + 1));
  return resize_scale("/epoch_byte", epoch_bytes_);
}

Result<void> TraceWriter::need_slots(int slots) {
  if (slots <= shape_.slots) return {};
  SY_CHECK(commit());
  block_ = tokens_;
  std::fill(crc_.begin(), crc_.end(), 0);
  const int before = shape_.slots;
  shape_.slots = std::min(slots, shape_.experts);
  std::vector<int32_t> ids(shape_.slots - before);
  std::iota(ids.begin(), ids.end(), before);
  SY_CHECK(extend("/slot", before, ids.size(), H5T_NATIVE_INT32, ids.data()));
  for (const Field* field : fields_) {
    if (!has_slots(field->axes)) continue;
    const hsize_t extent[3] = {hsize_t(shape_.rows(field->axes)), tokens_, hsize_t(shape_.slots)};
    if (H5Dset_extent(dataset(field->path), extent) < 0) return failed(field->path);
  }
  return {};
}

Result<void> TraceWriter::write(const TraceColumns& columns) {
  const hsize_t count = columns.tokens;
  if (count == 0) return {};
  for (size_t f = 0; f < fields_.size(); ++f) {
    const Field& field = *fields_[f];
    const hsize_t layers = shape_.rows(field.axes), width = shape_.width(field.axes), end = tokens_ + count;
    std::vector<hsize_t> extent{layers, end, width}, start{0, tokens_, 0}, size{layers, count, width};
    if (field.axes == Axes::kToken) extent = {end}, start = {tokens_}, size = {count};
    if (field.axes == Axes::kRow) extent.pop_back(), start.pop_back(), size.pop_back();
    const hid_t target = dataset(field.path);
    const Id type(half_ ? H5Dget_type(target) : H5Tcopy(schema::file_type(field.stored, shape_.experts)));
    std::vector<std::byte> reduced;
    std::span<const std::byte> bytes = columns.fields[f];
    if (field.stored == schema::Stored::kF32 && H5Tget_size(type) == 2) {
      reduced = columns.fields[f];
      for (size_t at = 0; at < reduced.size(); at += 4) {
        float value = 0;
        std::memcpy(&value, reduced.data() + at, 4);
        if (std::isfinite(value) && std::abs(value) > 65'504)
          return fail(ErrorCode::kUsage, std::string(field.path) + " holds " + std::to_string(value) + ", which a 16-bit float cannot.",
                      printable(part_.string(), 400), "Pack it without --half.");
      }
      if (H5Tconvert(H5T_IEEE_F32LE, type, reduced.size() / 4, reduced.data(), nullptr, H5P_DEFAULT) < 0) return failed(field.path);
      bytes = std::span(reduced).first(reduced.size() / 2);
    }
    if (H5Dset_extent(target, extent.data()) < 0) return failed(field.path);
    const Id space(H5Dget_space(target)), memory(H5Screate_simple(int(size.size()), size.data(), nullptr));
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr) < 0 ||
        H5Dwrite(target, type, memory, space, H5P_DEFAULT, bytes.data()) < 0)
      return failed(field.path);
    crc_[f] = frame_order_crc(bytes, shape_.rows(field.axes), count, crc_[f]);
  }
  tokens_ += count;
  if (tokens_ - block_ < schema::tokens_per_block(fields_, shape_)) return {};
  SY_CHECK(commit());
  block_ = tokens_;
  std::fill(crc_.begin(), crc_.end(), 0);
  return {};
}

Result<void> TraceWriter::commit() {
  if (tokens_ == committed_) return {};
  SY_CHECK(resize_scale("/token", tokens_));
  if (sequences_ > 0) {
    const int64_t end = int64_t(tokens_);
    SY_CHECK(extend("/sequences/offset", sequences_, 1, H5T_NATIVE_INT64, &end));
  }
  for (const auto& [path, id] : datasets_)
    if (!packed_ && !path.starts_with("/commit") && H5Dflush(id) < 0) return failed(path.c_str());

  const hsize_t extent[2] = {commits_ + 1, fields_.size()}, start[2] = {commits_, 0}, size[2] = {1, fields_.size()};
  const hid_t checksums = dataset("/commit/crc32c");
  const uint32_t slots = uint32_t(shape_.slots);
  if (H5Dset_extent(checksums, extent) < 0) return failed("/commit/crc32c");
  const Id space(H5Dget_space(checksums)), memory(H5Screate_simple(2, size, nullptr));
  if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, size, nullptr) < 0 ||
      H5Dwrite(checksums, H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT, crc_.data()) < 0)
    return failed("/commit/crc32c");
  SY_CHECK(extend("/commit/block", commits_, 1, H5T_NATIVE_UINT64, &block_));
  SY_CHECK(extend("/commit/slots", commits_, 1, H5T_NATIVE_UINT32, &slots));
  SY_CHECK(resize_scale("/commit_row", commits_ + 1));
  for (const char* path : {"/commit/crc32c", "/commit/block", "/commit/slots", "/commit_row"})
    if (!packed_ && H5Dflush(dataset(path)) < 0) return failed(path);
  SY_CHECK(extend("/commit/tokens", commits_, 1, H5T_NATIVE_UINT64, &tokens_));
  if (!packed_ && H5Dflush(dataset("/commit/tokens")) < 0) return failed("/commit/tokens");
  ++commits_;
  committed_ = tokens_;
  return {};
}

Result<void> TraceWriter::sync() {
  if (fsync(descriptor()) != 0)
    return fail(ErrorCode::kOutput, "could not be written to disk: " + std::system_category().message(errno) + ".", printable(part_.string(), 400));
  return {};
}

Result<void> TraceWriter::finish(uint64_t dropped, Task* task) {
  SY_CHECK(commit());
  SY_CHECK(close_file());
  SY_CHECK(complete(dropped, task));
  return move_into_place(part_, path_, overwrite_);
}

Result<TraceScan> TraceWriter::read_back(Task* task) const {
  SY_TRY(const auto file, TraceFile::open(part_));
  return scan_trace(*file, task);
}

// Written in SWMR mode too: a kill in between leaves a .part like any other.
Result<void> TraceWriter::complete(uint64_t dropped, Task* task) {
  SY_TRY(const TraceScan scan, read_back(task));
  if (!scan.problems.empty() || scan.tokens != tokens_) {
    return fail(ErrorCode::kOutput, "does not read back as it was written: " +
                    (scan.problems.empty() ? std::to_string(scan.tokens) + " of " + std::to_string(tokens_) + " tokens" : scan.problems[0]) + ".",
                printable(part_.string(), 400), "The disk may be failing. switchyard trace recover saves what is sound.");
  }
  const Id access = h5::file_access(h5::ChunkCache::kNone);
  file_ = Id(H5Fopen(part_.c_str(), H5F_ACC_RDWR | H5F_ACC_SWMR_WRITE, access));
  if (!file_) return failed("the end of the file");
  const auto aggregate = [&](const char* path, hid_t type, const auto& values) -> Result<void> {
    if (values.empty() || H5Lexists(file_, path, H5P_DEFAULT) <= 0) return {};  // rank sums of unranked slots
    const Id target(H5Dopen2(file_, path, H5P_DEFAULT));
    if (!target || H5Dwrite(target, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) return failed(path);
    return {};
  };
  const TraceAggregates& sums = scan.aggregates;
  const auto widen = [&](const char* path, hsize_t size) -> Result<void> {
    const Id target(H5Dopen2(file_, path, H5P_DEFAULT));
    if (!target || H5Dset_extent(target, &size) < 0) return failed(path);
    return {};
  };
  const hsize_t ids = sums.vocab_id.size(), entries = sums.vocab_expert.size();
  for (const auto& [path, size] : {std::pair("/vocab_id", ids), {"/agg/vocab/id", ids}, {"/vocab_row_offset", sums.vocab_indptr.size()},
                                   {"/agg/vocab/indptr", sums.vocab_indptr.size()}, {"/vocab_entry", entries}, {"/agg/vocab/expert", entries}, {"/agg/vocab/count", entries}})
    SY_CHECK(widen(path, size));
  for (const CountSum& sum : kCountSums) SY_CHECK(aggregate(sum.path, H5T_NATIVE_UINT64, sums.*sum.values));
  SY_CHECK(aggregate("/agg/prob_sum", H5T_NATIVE_DOUBLE, sums.prob_sum.empty() ? prob_sum_ : sums.prob_sum));
  const auto attribute = [&](const char* name, uint64_t value) -> Result<void> {
    const Id target(H5Aopen(file_, name, H5P_DEFAULT));
    if (!target || H5Awrite(target, H5T_NATIVE_UINT64, &value) < 0) return failed(name);
    return {};
  };
  SY_CHECK(attribute("n_tokens", tokens_));
  SY_CHECK(attribute("n_sequences", sequences_));
  SY_CHECK(attribute("dropped_tokens", dropped));
  SY_CHECK(attribute("bookkeeping_crc32c", scan.bookkeeping_crc));
  if (H5Fflush(file_, H5F_SCOPE_GLOBAL) < 0) return failed("the end of the file");
  SY_CHECK(attribute("complete", 1));
  return close_file();
}

}  // namespace switchyard
