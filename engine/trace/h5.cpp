// Error text and a few property lists.
#include "engine/trace/h5.h"

#include <mutex>
#include <string_view>

namespace switchyard::h5 {
namespace {

// Upward: the innermost message comes first.
herr_t take_first(unsigned, const H5E_error2_t* error, void* out) {
  auto& text = *static_cast<std::string*>(out);
  if (text.empty() && error->desc != nullptr) text = error->desc;
  return 0;
}

}  // namespace

void quiet() {
  static std::once_flag once;
  std::call_once(once, [] {
    // The library's exit handler crashes over a dataset whose close once failed (a full disk); ours are all
    // closed by their owners, so it has nothing to do.
    H5dont_atexit();
    H5PLset_loading_state(0);
  });
  thread_local const bool silent = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  static_cast<void>(silent);
}

std::string last_error() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
  constexpr std::string_view kReason = "error message = '";
  if (const size_t at = text.find(kReason); at != std::string::npos) {
    const size_t begin = at + kReason.size();
    text = text.substr(begin, text.find('\'', begin) - begin);
  }
  return text.empty() ? "HDF5 gave no reason" : text;
}

Id text_type() {
  Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

Id file_access(ChunkCache cache) {
  Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  H5Pset_file_locking(access, true, true);
  // While another process writes, a reader may meet a half-written piece and tries again; the wait doubles
  // from 1 ns, so 24 tries take 17 ms. HDF5's own 100 would never end on a damaged file.
  H5Pset_metadata_read_attempts(access, 24);
  if (cache == ChunkCache::kNone) H5Pset_cache(access, 0, 1, 0, 0);
  return access;
}

std::vector<hsize_t> dims_of(hid_t space) {
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank <= 0) return {};
  std::vector<hsize_t> dims(rank);
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  return dims;
}

}  // namespace switchyard::h5
