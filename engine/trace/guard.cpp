// Opens a file and walks all of its objects before anything else looks at them.
#include "engine/trace/guard.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "engine/base/checked.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

using h5::Id;

std::string megabytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

class Guard {
 public:
  explicit Guard(std::string shown) : shown_(std::move(shown)) {}

  Result<void> file(hid_t root) {
    H5O_info_t info;
    if (H5Oget_info2(root, &info, H5O_INFO_BASIC) < 0) return damaged("");
    seen_.insert(info.addr);
    return group(root, "", 1);
  }

 private:
  Result<void> group(hid_t parent, const std::string& path, int depth) {
    if (depth > TraceCaps::kDepth) return refuse(path, "groups are nested deeper than " + std::to_string(TraceCaps::kDepth));
    std::vector<Link> links;
    // Native order: the ordered iterations of HDF5 1.10 build a table whose error path frees wild pointers
    // when the group is damaged.
    const herr_t listed = H5Literate(parent, H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &links);
    if (listed < 0) return damaged(path);
    objects_ += links.size();
    if (listed > 0 || objects_ > TraceCaps::kObjects)
      return refuse(path, "the file has more than " + std::to_string(TraceCaps::kObjects) + " objects");
    for (const Link& link : links) SY_CHECK(follow(parent, path + "/" + link.name, link, depth));
    return {};
  }

  struct Link {
    std::string name;
    H5L_type_t type;
  };
  static herr_t collect(hid_t, const char* name, const H5L_info_t* info, void* out) {
    auto& links = *static_cast<std::vector<Link>*>(out);
    links.push_back({name, info->type});
    return links.size() > TraceCaps::kObjects ? 1 : 0;
  }

  tl::unexpected<Error> refuse(const std::string& path, const std::string& why) const {
    return fail(ErrorCode::kMalformed, quote(path.empty() ? "/" : path) + " is refused: " + why + ".", shown_);
  }
  tl::unexpected<Error> damaged(const std::string& path) const { return refuse(path, "damaged, " + h5::last_error()); }

  Result<void> follow(hid_t parent, const std::string& here, const Link& link, int depth) {
    if (link.type == H5L_TYPE_EXTERNAL) return refuse(here, "it is a link to another file");
    if (link.type != H5L_TYPE_HARD) return refuse(here, "it is a soft or user-defined link");
    const Id object(H5Oopen(parent, link.name.c_str(), H5P_DEFAULT));
    H5O_info_t what;
    if (!object || H5Oget_info2(object, &what, H5O_INFO_BASIC) < 0) return damaged(here);
    if (!seen_.insert(what.addr).second) return refuse(here, "it is a second link to the same object");
    if (what.type == H5O_TYPE_GROUP) return group(object, here, depth + 1);
    if (what.type == H5O_TYPE_DATASET) return dataset(object, here);
    return refuse(here, "it is neither a group nor a dataset");
  }

  Result<void> dataset(hid_t dataset, const std::string& path) {
    const Id creation(H5Dget_create_plist(dataset));
    if (!creation) return damaged(path);
    const H5D_layout_t layout = H5Pget_layout(creation);
    // The layout first: asking a virtual dataset for its extent opens the files it is made of.
    if (layout == H5D_VIRTUAL) return refuse(path, "it is a virtual dataset, made of other files");
    if (H5Pget_external_count(creation) != 0) return refuse(path, "its data lie in another file (external storage)");

    const Id type(H5Dget_type(dataset)), space(H5Dget_space(dataset));
    if (!type || !space) return damaged(path);
    const size_t element = H5Tget_size(type);
    if (layout == H5D_CHUNKED) {
      hsize_t chunk[H5S_MAX_RANK];
      const int rank = H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
      if (rank < 0) return damaged(path);
      const auto bytes = product({chunk, chunk + rank}, element);
      if (!bytes || *bytes > TraceCaps::kChunkBytes)
        return refuse(path, "a chunk is larger than " + megabytes(TraceCaps::kChunkBytes));
      SY_CHECK(filters(creation, path));
    }
    const auto bytes = product(h5::dims_of(space), element);
    const auto total = bytes ? checked_add(declared_, *bytes) : std::nullopt;
    if (!total || *total > TraceCaps::kDeclaredBytes)
      return refuse(path, "the file declares more than " + megabytes(TraceCaps::kDeclaredBytes) + " of data");
    declared_ = *total;
    return {};
  }

  Result<void> filters(hid_t creation, const std::string& path) {
    const int count = H5Pget_nfilters(creation);
    for (int i = 0; i < count; ++i) {
      unsigned flags = 0, config = 0;
      size_t values = 0;
      const H5Z_filter_t filter = H5Pget_filter2(creation, unsigned(i), &flags, &values, nullptr, 0, nullptr, &config);
      if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
        return refuse(path, "it uses filter " + std::to_string(filter) + "; deflate, shuffle and fletcher32 are read");
    }
    return {};
  }

  static std::optional<uint64_t> product(const std::vector<hsize_t>& dims, uint64_t element) {
    std::optional<uint64_t> total = element;
    for (const hsize_t dim : dims) {
      if (total) total = checked_mul<uint64_t>(*total, dim);
    }
    return total;
  }

  std::string shown_;
  uint64_t objects_ = 0, declared_ = 0;
  std::set<haddr_t> seen_;
};

// A regular file that starts like HDF5, so that the library is never handed a pipe or a folder.
Result<void> check_is_hdf5(const std::filesystem::path& path, const std::string& shown) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) {
    const int reason = errno;
    return fail(ErrorCode::kNotFound, "could not be opened: " + std::system_category().message(reason) + ".", shown);
  }
  struct stat status {};
  char magic[8] = {};
  const bool regular = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  const bool signed_ = regular && pread(descriptor, magic, 8, 0) == 8 && std::string(magic, 8) == "\x89HDF\r\n\x1a\n";
  ::close(descriptor);
  if (!regular) return fail(ErrorCode::kNotFound, "is not a regular file.", shown);
  if (!signed_) {
    return fail(ErrorCode::kMalformed, "is not an HDF5 file (" + std::to_string(status.st_size) + " bytes).", shown,
                "Traces are named *.moetrace.h5.");
  }
  return {};
}

}  // namespace

Result<Id> open_guarded(const std::filesystem::path& path, bool& swmr) {
  h5::quiet();
  const std::string shown = printable(path.string(), 400);
  SY_CHECK(check_is_hdf5(path, shown));
  const Id access = h5::file_access(h5::ChunkCache::kDefault);
  Id file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access));
  swmr = !file;
  if (swmr) {
    const std::string plain_error = h5::last_error();
    file = Id(H5Fopen(path.c_str(), H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, access));
    if (!file) {
      return fail(ErrorCode::kMalformed, "is damaged: HDF5 says \"" + printable(plain_error) + "\".", shown,
                  "If it was cut short, only a copy of the original helps.");
    }
  }
  const Id root(H5Gopen2(file, "/", H5P_DEFAULT));
  if (!root) return fail(ErrorCode::kMalformed, "is damaged: it has no root group.", shown);
  SY_CHECK(Guard(shown).file(root));
  return file;
}

}  // namespace switchyard
