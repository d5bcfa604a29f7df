// Writes a trace file: rows by columns, commits, and the clean close. Synchronous; one thread at a time.
// The recorder runs it on its own thread, recover_trace() on the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/result.h"
#include "engine/base/task.h"
#include "engine/trace/h5.h"
#include "engine/trace/schema.h"
#include "engine/trace/trace.h"

namespace switchyard {

struct TraceScan;

// Some consecutive tokens: one buffer per recorded field, [layers, tokens, width] as stored.
struct TraceColumns {
  uint64_t tokens = 0;
  std::vector<std::vector<std::byte>> fields;
};

struct TraceWriterOptions {
  int chunk_rows = 1024;
  Overwrite overwrite = Overwrite::kRefuse;
  std::string part_suffix = ".part";  // of the file until finish() gives it its name
  bool packed = false, half = false;  // see schema::Options; rows are then safe after finish() only
  std::vector<double> prob_sum;       // for /agg/prob_sum where the rows are reduced and cannot give it
  bool any_name = false;              // path need not end in .moetrace.h5
};

class TraceWriter {
 public:
  // path must end in .moetrace.h5. Creates path + part_suffix in SWMR mode with nothing in it yet.
  static Result<std::unique_ptr<TraceWriter>> create(const std::filesystem::path& path, const TraceHeader& header,
                                                     const TraceWriterOptions& options);
  ~TraceWriter();  // unfinished: the .part is left as a kill would leave it, all that was committed in it

  const schema::Shape& shape() const { return shape_; }  // slots: the width of the next columns
  const std::vector<const schema::Field*>& fields() const { return fields_; }
  uint64_t tokens() const { return tokens_; }        // written
  uint64_t committed() const { return committed_; }  // of these, safe against a kill
  uint64_t block_room() const { return schema::tokens_per_block(fields_, shape_) - (tokens_ - block_); }  // 1 or more
  const std::filesystem::path& part_path() const { return part_; }

  // Both begin at the next token.
  Result<void> begin_sequence(uint32_t prompt_tokens, const SequenceOrigin& origin = {});
  Result<void> begin_epoch(std::string_view json);
  // Widens the slot axis; the tokens before it keep their width and form a block of their own.
  Result<void> need_slots(int slots);
  // columns.tokens <= block_room(). A full block is committed.
  Result<void> write(const TraceColumns& columns);
  // After this the rows survive a kill of the process.
  Result<void> commit();
  // After this the committed rows are on the disk.
  Result<void> sync();

  // Commits, leaves SWMR, reads everything back against the checksums, fills /agg, marks the file complete
  // and gives it its name. Nothing may be written afterwards.
  Result<void> finish(uint64_t dropped, Task* task = nullptr);

 private:
  TraceWriter(std::filesystem::path path, const TraceHeader& header, const TraceWriterOptions& options);
  Result<void> open_datasets();
  // Puts `count` values behind the `at` that a column has.
  Result<void> extend(const char* path, uint64_t at, uint64_t count, hid_t type, const void* values);
  Result<void> resize_scale(const char* path, uint64_t size);
  Result<TraceScan> read_back(Task* task) const;
  Result<void> complete(uint64_t dropped, Task* task);
  Result<void> close_file();
  // Lets go of the file without another byte written to it: a close after a failed write would mark it as
  // sound. HDF5 must close its handle, so its descriptor is pointed at /dev/null first.
  void abandon();
  int descriptor() const;
  h5::Id& dataset(const char* path);
  tl::unexpected<Error> failed(const char* what) const;

  std::filesystem::path path_, part_;
  Overwrite overwrite_;
  schema::Shape shape_;
  std::vector<const schema::Field*> fields_;
  h5::Id file_;
  std::vector<std::pair<std::string, h5::Id>> datasets_;  // everything that grows
  std::vector<uint32_t> crc_;  // of the current block, per field
  bool labelled_;  // sequences have a domain and a source id
  bool packed_, half_;
  std::vector<double> prob_sum_;
  uint64_t tokens_ = 0, committed_ = 0, block_ = 0;
  uint64_t sequences_ = 0, epochs_ = 0, epoch_bytes_ = 0, commits_ = 0;
};

}  // namespace switchyard
