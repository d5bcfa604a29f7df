// HDF5 identifiers as values that close themselves, and the library's errors as text.
// Used inside engine/trace only; the library serialises calls from several threads itself.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <hdf5.h>

namespace switchyard::h5 {

// Silences the library's own error printing on this thread and forbids filter plugins in the process.
// Called at every public entry of the room.
void quiet();

// What the last failed call said, in one line: the system's reason ("No space left on device") where there
// is one, else the innermost message. Valid only right after the failing call.
std::string last_error();

// Owns one reference to any HDF5 identifier. Negative: the call that made it failed.
class Id {
 public:
  Id() = default;
  explicit Id(hid_t id) : id_(id) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Id& operator=(Id&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, H5I_INVALID_HID);
    }
    return *this;
  }
  ~Id() { reset(); }

  explicit operator bool() const { return id_ >= 0; }
  operator hid_t() const { return id_; }
  void reset() {
    if (id_ >= 0) H5Idec_ref(id_);
    id_ = H5I_INVALID_HID;
  }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

// Variable-length UTF-8 string, the type of every text in our files.
Id text_type();

// Access to a file: latest format, locking where the file system has it. Without a chunk cache rows go
// straight to their place in the file; with one HDF5 rewrites the whole chunk at each flush.
enum class ChunkCache : bool { kNone, kDefault };
Id file_access(ChunkCache cache);

// Extents of a dataset or attribute space; empty: scalar, or the space could not be read.
std::vector<hsize_t> dims_of(hid_t space);

}  // namespace switchyard::h5
