// An opened and checked trace: shape, committed rows, and raw access to the recorded datasets. What the
// public reader, verify and recover share. One thread at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/trace/h5.h"
#include "engine/trace/schema.h"
#include "engine/trace/trace.h"

namespace switchyard {

// One row of /commit: everything below `tokens` is on record; the checksums cover [block, tokens).
struct Commit {
  uint64_t tokens = 0, block = 0;
  uint32_t slots = 0;           // width of the slot axis in the block
  std::vector<uint32_t> crc32c; // one per recorded dataset, in the order of TraceFile::fields()
};

struct SequenceRow {
  uint64_t first_token = 0;
  int64_t parent = -1;
  uint32_t fork_offset = 0;
  uint32_t prompt_len = 0;
  uint16_t domain = 0;      // where the header has domains
  uint64_t source_id = 0;   // likewise
};

class TraceFile {
 public:
  static Result<std::unique_ptr<TraceFile>> open(const std::filesystem::path& path);

  const TraceInfo& info() const { return info_; }
  const schema::Shape& shape() const { return shape_; }
  const std::vector<const schema::Field*>& fields() const { return fields_; }
  const std::vector<Commit>& commits() const { return commits_; }
  const TraceHeader& header() const { return header_; }
  bool has(const schema::Field& field) const;
  size_t stored_bytes(const schema::Field& field) const;  // of one value; 0: not recorded

  // Values of layers [layer, layer + layers) and tokens [first, first + tokens), `width` of each, as
  // `memory_type`, into out ([layers, tokens, width]). Token fields ignore the layers.
  Result<void> read(const schema::Field& field, int layer, int layers, uint64_t first, uint64_t tokens,
                    uint64_t width, hid_t memory_type, void* out) const;
  // All layers as stored, for checksums and copies.
  Result<void> read_stored(const schema::Field& field, uint64_t first, uint64_t tokens, uint64_t width,
                           std::vector<std::byte>& out) const;
  Result<std::vector<SequenceRow>> sequences() const;
  Result<std::vector<TraceReader::EpochRow>> epochs() const;
  Result<uint64_t> number(const char* attribute) const;
  bool exists(const std::string& path) const;
  // All values of a numeric dataset of /agg, `wanted` of them.
  template <class T>
  Result<std::vector<T>> aggregate(const char* path, size_t wanted) const;
  Result<std::vector<float>> router_weight(int row) const;  // [E, header().router_width]
  // What /agg holds of sums over all tokens.
  Result<TraceCounts> counts() const;

  tl::unexpected<Error> malformed(std::string what, std::string hint = {}) const;

 private:
  explicit TraceFile(const std::filesystem::path& path);
  Result<void> read_header();
  Result<void> find_router_weight();
  Result<void> open_fields();
  Result<void> read_commits();

  Result<std::string> text_attribute(const char* attribute) const;
  Result<std::string> text(const char* path) const;
  // A list of texts; empty when there is none, it is longer than `limit`, or it does not read.
  std::vector<std::string> texts(const char* path, uint64_t limit) const;
  Result<h5::Id> dataset(const char* path) const;
  // A whole one-dimensional integer column, at most `limit` rows of it.
  template <class T>
  Result<std::vector<T>> column(const char* path, uint64_t limit) const;

  std::string shown_;
  h5::Id file_;
  bool swmr_ = false;
  TraceInfo info_;
  TraceHeader header_;
  schema::Shape shape_;
  std::vector<const schema::Field*> fields_;
  std::vector<h5::Id> datasets_;  // as fields_
  std::vector<Commit> commits_;
};

}  // namespace switchyard
