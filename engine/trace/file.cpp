// Opens a trace: attributes, shapes, committed rows. Every count is checked against what it indexes here,
// once, so that later reads cannot go astray.
#include "engine/trace/file.h"

#include <algorithm>
#include <type_traits>

#include "engine/base/checked.h"
#include "engine/base/text.h"
#include "engine/trace/guard.h"

namespace switchyard {
namespace {

using h5::Id;
using schema::Axes;
using schema::Field;

template <class T>
hid_t native();
template <>
hid_t native<uint32_t>() { return H5T_NATIVE_UINT32; }
template <>
hid_t native<uint64_t>() { return H5T_NATIVE_UINT64; }
template <>
hid_t native<int64_t>() { return H5T_NATIVE_INT64; }
template <>
hid_t native<double>() { return H5T_NATIVE_DOUBLE; }
template <>
hid_t native<int32_t>() { return H5T_NATIVE_INT32; }
template <>
hid_t native<float>() { return H5T_NATIVE_FLOAT; }

std::string shape_text(const std::vector<hsize_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

std::string type_text(hid_t type) {
  const std::string size = std::to_string(H5Tget_size(type) * 8) + "-bit";
  switch (H5Tget_class(type)) {
    case H5T_INTEGER: return size + (H5Tget_sign(type) == H5T_SGN_NONE ? " unsigned integer" : " signed integer");
    case H5T_FLOAT: return size + " float";
    case H5T_STRING: return "string";
    default: return "compound or other type";
  }
}

bool fits(const Field& field, int experts, hid_t type) {
  const size_t size = H5Tget_size(type);
  if (H5Tget_order(type) != H5T_ORDER_LE) return false;
  if (field.stored == schema::Stored::kF32) return H5Tget_class(type) == H5T_FLOAT && (size == 4 || size == 2);
  if (H5Tget_class(type) != H5T_INTEGER || H5Tget_sign(type) != H5T_SGN_NONE) return false;
  return size == schema::bytes_of(field.stored, experts);
}

ScoreFn score_of(const std::string& name, const std::string& order) {
  const bool after = order == "after top-k";
  if (name == "softmax") return after ? ScoreFn::kSoftmaxTopK : ScoreFn::kSoftmaxAll;
  if (name == "sigmoid") return after ? ScoreFn::kSigmoidTopK : ScoreFn::kSigmoid;
  return name == "sparsemixer" ? ScoreFn::kSparseMixer : ScoreFn::kNone;
}

}  // namespace

TraceFile::TraceFile(const std::filesystem::path& path) : shown_(printable(path.string(), 400)) { info_.path = path; }

tl::unexpected<Error> TraceFile::malformed(std::string what, std::string hint) const {
  return fail(ErrorCode::kMalformed, std::move(what), shown_, std::move(hint));
}

Result<std::unique_ptr<TraceFile>> TraceFile::open(const std::filesystem::path& path) {
  std::unique_ptr<TraceFile> file(new TraceFile(path));
  SY_TRY(file->file_, open_guarded(path, file->swmr_));
  SY_CHECK(file->read_header());
  if (file->info_.counts_only) return file;
  SY_CHECK(file->open_fields());
  SY_CHECK(file->read_commits());
  return file;
}

Result<uint64_t> TraceFile::number(const char* name) const {
  const Id attribute(H5Aopen(file_, name, H5P_DEFAULT));
  if (!attribute) return malformed("has no attribute \"" + std::string(name) + "\".");
  const Id type(H5Aget_type(attribute)), space(H5Aget_space(attribute));
  uint64_t value = 0;
  if (!type || H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(attribute, H5T_NATIVE_UINT64, &value) < 0) {
    return malformed("attribute \"" + std::string(name) + "\" is not one integer.");
  }
  return value;
}

Result<std::string> TraceFile::text_attribute(const char* name) const {
  const Id attribute(H5Aopen(file_, name, H5P_DEFAULT));
  if (!attribute) return malformed("has no attribute \"" + std::string(name) + "\".");
  const Id type(H5Aget_type(attribute)), space(H5Aget_space(attribute));
  char* value = nullptr;
  if (!type || H5Tis_variable_str(type) <= 0 || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Aread(attribute, h5::text_type(), &value) < 0 || value == nullptr) {
    return malformed("attribute \"" + std::string(name) + "\" is not a variable-length string.");
  }
  std::string text = value;
  H5free_memory(value);
  return text;
}

bool TraceFile::exists(const std::string& path) const {
  // One link at a time: HDF5 reports a missing parent as an error, not as absence.
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    if (H5Lexists(file_, path.substr(0, at).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Lexists(file_, path.c_str(), H5P_DEFAULT) > 0;
}

Result<Id> TraceFile::dataset(const char* path) const {
  if (!exists(path)) return malformed("has no " + std::string(path) + ".");
  Id opened(H5Dopen2(file_, path, H5P_DEFAULT));
  if (!opened) return malformed(std::string(path) + " could not be opened: " + h5::last_error() + ".");
  return opened;
}

Result<std::string> TraceFile::text(const char* path) const {
  SY_TRY(const Id opened, dataset(path));
  const Id type(H5Dget_type(opened)), space(H5Dget_space(opened));
  char* value = nullptr;
  if (H5Tis_variable_str(type) <= 0 || H5Sget_simple_extent_npoints(space) != 1 ||
      H5Dread(opened, h5::text_type(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) < 0 || value == nullptr) {
    return malformed(std::string(path) + " is not one variable-length string.");
  }
  std::string text = value;
  H5free_memory(value);
  return text;
}

template <class T>
Result<std::vector<T>> TraceFile::column(const char* path, uint64_t limit) const {
  SY_TRY(const Id opened, dataset(path));
  const Id type(H5Dget_type(opened)), space(H5Dget_space(opened));
  if (H5Sget_simple_extent_ndims(space) != 1 || H5Tget_class(type) != H5T_INTEGER)
    return malformed(std::string(path) + " is not a column of integers.");
  const hsize_t rows = std::min<uint64_t>(h5::dims_of(space)[0], limit);
  if (rows > TraceCaps::kReadBytes / sizeof(T)) return malformed(std::string(path) + " has " + std::to_string(rows) + " rows, too many to read.");
  std::vector<T> values(rows);
  if (rows == 0) return values;
  const hsize_t start = 0;
  const Id memory(H5Screate_simple(1, &rows, nullptr));
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &rows, nullptr);
  if (H5Dread(opened, native<T>(), memory, space, H5P_DEFAULT, values.data()) < 0)
    return malformed(std::string(path) + " could not be read: " + h5::last_error() + ".");
  return values;
}

Result<void> TraceFile::read_header() {
  const auto named = text_attribute("schema");
  if (!named || *named != schema::kName)
    return malformed("is an HDF5 file, but not a routing trace (attribute \"schema\" is not \"moe-trace\").");
  SY_TRY(const uint64_t version, number("schema_version"));
  if (version > schema::kVersion) {
    return malformed("has schema version " + std::to_string(version) + "; this program reads up to " +
                         std::to_string(schema::kVersion) + ".", "A newer Switchyard wrote it.");
  }
  SY_TRY(const uint64_t layers, number("L"));
  SY_TRY(const uint64_t experts, number("E"));
  SY_TRY(const uint64_t top_k, number("k"));
  SY_TRY(const uint64_t complete, number("complete"));
  if (layers < 1 || layers > 2048) return malformed("has L = " + std::to_string(layers) + " routing rows; 1 to 2,048 are read.");
  if (experts < 1 || experts > 65'535) return malformed("has E = " + std::to_string(experts) + " experts; 1 to 65,535 are read.");
  info_.counts_only = number("counts_only").value_or(0) == 1;
  if (top_k > experts || (top_k < 1 && !info_.counts_only))
    return malformed("has k = " + std::to_string(top_k) + " experts per token of E = " + std::to_string(experts) + ".");
  shape_ = {int(layers), int(experts), int(top_k)};
  info_.layers = shape_.layers;
  info_.experts = shape_.experts;
  info_.complete = complete == 1;
  info_.dropped = number("dropped_tokens").value_or(0);

  SY_TRY(const auto moe_layers, column<int32_t>("/model/moe_layers", TraceCaps::kObjects));
  if (moe_layers.size() != layers)
    return malformed("/model/moe_layers has " + std::to_string(moe_layers.size()) + " rows, L is " + std::to_string(layers) + ".");
  info_.moe_layers.assign(moe_layers.begin(), moe_layers.end());
  SY_TRY(info_.model_config_json, text("/meta/model_config"));
  SY_TRY(info_.edits_json, text("/meta/edits"));
  SY_TRY(info_.run_json, text("/meta/run"));

  header_.moe_layers = info_.moe_layers;
  header_.experts = shape_.experts;
  header_.experts_per_token = shape_.slots;
  header_.model_config_json = info_.model_config_json;
  header_.edits_json = info_.edits_json;
  header_.run_json = info_.run_json;
  header_.router.score = score_of(text_attribute("score_fn").value_or(""), text_attribute("softmax_order").value_or(""));
  header_.router.has_select_bias = number("bias_used").value_or(0) == 1;
  header_.router.renorm = number("weights_renormalised").value_or(0) == 1 ? Renorm::kSum : Renorm::kNone;
  header_.router.groups = int(number("n_group").value_or(1));
  header_.router.groups_kept = int(number("topk_group").value_or(1));
  if (const Id scale(H5Aopen(file_, "weight_scale", H5P_DEFAULT)); scale) H5Aread(scale, H5T_NATIVE_FLOAT, &header_.router.scale);
  SY_CHECK(find_router_weight());
  header_.router_names = texts("/model/router_names", layers);
  header_.domains = texts("/domains/name", 65'536);
  if (header_.router_names.size() != layers) header_.router_names.clear();
  if (!header_.domains.empty()) info_.fields.emplace_back("/sequences/domain");
  info_.router_names = header_.router_names;
  info_.score = header_.router.score;
  header_.ranked = info_.ranked = text_attribute("id_order").value_or("weight_desc") == "weight_desc";
  if (!info_.counts_only) return {};

  header_.capture = info_.capture = CaptureLevel::kOff;
  info_.top_k = shape_.slots;
  SY_TRY(info_.tokens, number("n_tokens"));
  if (!info_.complete) return malformed("holds counts only and was not closed.", "Import it again.");
  for (const schema::SumField& sum : schema::kSums)
    if (exists(sum.path)) info_.fields.emplace_back(sum.path);
  info_.notes.push_back("holds counts only: no token, no sequence, no weight of a single choice");
  if (top_k == 0) info_.notes.push_back("its source does not say how many experts a token has; the number of tokens is not known either");
  return {};
}

Result<void> TraceFile::find_router_weight() {
  constexpr const char* kPath = "/model/router_weight";
  if (!exists(kPath)) return {};
  SY_TRY(const Id opened, dataset(kPath));
  const auto dims = h5::dims_of(Id(H5Dget_space(opened)));
  const uint64_t layers = uint64_t(shape_.layers), experts = uint64_t(shape_.experts);
  if (dims.size() != 3 || dims[0] != layers || dims[1] != experts || dims[2] < 1 || dims[2] > TraceCaps::kReadBytes / sizeof(float) / experts ||
      H5Tget_class(Id(H5Dget_type(opened))) != H5T_FLOAT)
    return malformed(std::string(kPath) + " has shape " + shape_text(dims) + "; numbers of " + std::to_string(layers) + " rows and " + std::to_string(experts) +
                     " experts, 256 MiB a row at most, are read.");
  header_.router_width = int(dims[2]);
  info_.fields.emplace_back(kPath);
  return {};
}

Result<std::vector<float>> TraceFile::router_weight(int row) const {
  SY_TRY(const Id opened, dataset("/model/router_weight"));
  const hsize_t start[3] = {hsize_t(row), 0, 0}, count[3] = {1, hsize_t(shape_.experts), hsize_t(header_.router_width)};
  const Id space(H5Dget_space(opened)), memory(H5Screate_simple(3, count, nullptr));
  std::vector<float> values(count[1] * count[2]);
  if (row < 0 || row >= shape_.layers || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 ||
      H5Dread(opened, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, values.data()) < 0)
    return malformed("/model/router_weight could not be read at row " + std::to_string(row) + ": " + h5::last_error() + ".");
  return values;
}

std::vector<std::string> TraceFile::texts(const char* path, uint64_t limit) const {
  std::vector<std::string> out;
  const auto opened = dataset(path);
  if (!opened) return out;
  const Id space(H5Dget_space(*opened)), type(H5Dget_type(*opened));
  const auto dims = h5::dims_of(space);
  if (H5Tis_variable_str(type) <= 0 || dims.size() != 1 || dims[0] > limit) return out;
  std::vector<char*> values(dims[0]);
  if (H5Dread(*opened, h5::text_type(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) return out;
  for (char* value : values) {
    out.emplace_back(value == nullptr ? "" : value);
    H5free_memory(value);
  }
  return out;
}

// Which datasets are there, in the types and shapes that the attributes promise.
Result<void> TraceFile::open_fields() {
  for (const char* path : {"/commit/tokens", "/commit/fields"})
    if (!exists(path)) return malformed(std::string("has no ") + path + ".");
  header_.fields = texts("/commit/fields", std::size(schema::kFields));
  const auto recorded = [&](const char* path) {
    return std::find(header_.fields.begin(), header_.fields.end(), path) != header_.fields.end();
  };
  if (!recorded("/routing/expert_id")) return malformed("records no /routing/expert_id.");
  for (const Field& field : schema::kFields) {
    if (!recorded(field.path)) continue;
    SY_TRY(Id opened, dataset(field.path));
    const Id type(H5Dget_type(opened)), space(H5Dget_space(opened));
    if (!fits(field, shape_.experts, type))
      return malformed(std::string(field.path) + " holds " + type_text(type) + "s, not what the schema says.");
    const auto dims = h5::dims_of(space);
    if (std::string_view(field.path) == "/routing/expert_id" && dims.size() == 3) {
      if (dims[2] < uint64_t(shape_.slots) || dims[2] > uint64_t(shape_.experts)) {
        return malformed("/routing/expert_id has " + std::to_string(dims[2]) + " slots; k is " + std::to_string(shape_.slots) +
                         ", E is " + std::to_string(shape_.experts) + ".");
      }
      shape_.slots = int(dims[2]);
    }
    if (field.axes == Axes::kNextSlot && shape_.layers < 2) return malformed(std::string(field.path) + " needs two layers.");
    std::vector<hsize_t> wanted;
    if (field.axes != Axes::kToken) wanted.push_back(shape_.rows(field.axes));
    const size_t token_axis = wanted.size();
    wanted.push_back(token_axis < dims.size() ? dims[token_axis] : 0);
    if (has_slots(field.axes) || field.axes == Axes::kExpert) wanted.push_back(shape_.width(field.axes));
    if (dims != wanted) {
      return malformed(std::string(field.path) + " has shape " + shape_text(dims) + "; L " + std::to_string(shape_.layers) +
                       ", E " + std::to_string(shape_.experts) + ", k " + std::to_string(shape_.slots) + " need " +
                       shape_text(wanted) + ".");
    }
    if (field.from > info_.capture) info_.capture = field.from;
    info_.fields.emplace_back(field.path);
    fields_.push_back(&field);
    datasets_.push_back(std::move(opened));
  }
  info_.top_k = shape_.slots;
  header_.capture = info_.capture;
  if (fields_.size() != header_.fields.size())
    return malformed("/commit/fields names " + std::to_string(header_.fields.size()) + " datasets, of which " +
                     std::to_string(fields_.size()) + " are those of a trace.");
  return {};
}

Result<void> TraceFile::read_commits() {
  const uint64_t limit = TraceCaps::kReadBytes / 64;
  SY_TRY(const auto tokens, column<uint64_t>("/commit/tokens", limit));
  SY_TRY(const auto block, column<uint64_t>("/commit/block", limit));
  SY_TRY(const auto slots, column<uint32_t>("/commit/slots", limit));
  SY_TRY(const Id checksums, dataset("/commit/crc32c"));
  const Id space(H5Dget_space(checksums)), type(H5Dget_type(checksums));
  const auto dims = h5::dims_of(space);
  if (dims.size() != 2 || dims[1] != fields_.size() || H5Tget_class(type) != H5T_INTEGER)
    return malformed("/commit/crc32c has shape " + shape_text(dims) + "; " + std::to_string(fields_.size()) + " recorded datasets need a column each.");
  const hsize_t count = std::min({tokens.size(), block.size(), slots.size(), size_t(dims[0])});
  std::vector<uint32_t> sums(count * fields_.size());
  const hsize_t start[2] = {0, 0}, size[2] = {count, fields_.size()};
  if (count > 0) {
    const Id memory(H5Screate_simple(2, size, nullptr));
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, size, nullptr);
    if (H5Dread(checksums, H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT, sums.data()) < 0)
      return malformed("/commit/crc32c could not be read: " + h5::last_error() + ".");
  }

  uint64_t rows = UINT64_MAX;  // that every dataset holds
  for (size_t i = 0; i < fields_.size(); ++i) {
    const auto extent = h5::dims_of(Id(H5Dget_space(datasets_[i])));
    rows = std::min<uint64_t>(rows, extent[fields_[i]->axes == Axes::kToken ? 0 : 1]);
  }
  Commit last;
  for (size_t c = 0; c < count; ++c) {
    Commit row{tokens[c], block[c], slots[c], {sums.begin() + c * fields_.size(), sums.begin() + (c + 1) * fields_.size()}};
    const bool follows = row.tokens > last.tokens && (row.block == last.block || row.block == last.tokens);
    if (!follows || row.tokens - row.block > schema::kBlockTokens || row.slots < 1 || row.slots > uint32_t(shape_.slots))
      return malformed("/commit row " + std::to_string(c) + " does not follow the row before it.");
    if (row.tokens > rows) {
      info_.notes.push_back("only " + std::to_string(last.tokens) + " of " + std::to_string(tokens[count - 1]) +
                            " committed tokens are in the file");
      break;
    }
    last = row;
    commits_.push_back(std::move(row));
  }
  info_.tokens = last.tokens;
  if (!info_.complete) info_.notes.push_back("the recording was not closed; what was committed is here");
  if (info_.dropped > 0) info_.notes.push_back(std::to_string(info_.dropped) + " tokens were dropped while recording");
  SY_TRY(const auto all, sequences());
  info_.sequences = all.size();
  return {};
}

size_t TraceFile::stored_bytes(const Field& field) const {
  const auto found = std::find(fields_.begin(), fields_.end(), &field);
  return found == fields_.end() ? 0 : H5Tget_size(Id(H5Dget_type(datasets_[found - fields_.begin()])));
}

bool TraceFile::has(const Field& field) const { return std::find(fields_.begin(), fields_.end(), &field) != fields_.end(); }

Result<void> TraceFile::read(const Field& field, int layer, int layers, uint64_t first, uint64_t tokens, uint64_t width,
                             hid_t memory_type, void* out) const {
  const auto found = std::find(fields_.begin(), fields_.end(), &field);
  if (found == fields_.end()) return malformed("has no " + std::string(field.path) + ".");
  const hid_t source = datasets_[found - fields_.begin()];
  std::vector<hsize_t> start, count;
  if (field.axes != Axes::kToken) {
    start.push_back(layer);
    count.push_back(layers);
  }
  start.push_back(first);
  count.push_back(tokens);
  if (has_slots(field.axes) || field.axes == Axes::kExpert) {
    start.push_back(0);
    count.push_back(width);
  }
  const Id space(H5Dget_space(source)), memory(H5Screate_simple(int(count.size()), count.data(), nullptr));
  if (!space || !memory || H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dread(source, memory_type, memory, space, H5P_DEFAULT, out) < 0) {
    return malformed(std::string(field.path) + " could not be read at token " + std::to_string(first) + ": " + h5::last_error() + ".");
  }
  return {};
}

Result<void> TraceFile::read_stored(const Field& field, uint64_t first, uint64_t tokens, uint64_t width,
                                    std::vector<std::byte>& out) const {
  const auto found = std::find(fields_.begin(), fields_.end(), &field);
  if (found == fields_.end()) return malformed("has no " + std::string(field.path) + ".");
  const Id type(H5Dget_type(datasets_[found - fields_.begin()]));
  const auto values = checked_mul<uint64_t>(shape_.rows(field.axes) * width, tokens);
  if (!values || *values > TraceCaps::kReadBytes / H5Tget_size(type))
    return malformed(std::string(field.path) + " holds more than 256 MiB between two commit rows.");
  out.resize(*values * H5Tget_size(type));
  return read(field, 0, int(shape_.rows(field.axes)), first, tokens, width, type, out.data());
}

// Offsets are clipped to what is committed: the writer moves the last one before each commit.
Result<std::vector<SequenceRow>> TraceFile::sequences() const {
  if (info_.counts_only) return std::vector<SequenceRow>{};
  const uint64_t limit = TraceCaps::kReadBytes / 8;
  SY_TRY(const auto offset, column<int64_t>("/sequences/offset", limit));
  SY_TRY(const auto parent, column<int64_t>("/sequences/parent", limit));
  SY_TRY(const auto fork, column<uint32_t>("/sequences/fork_offset", limit));
  SY_TRY(const auto prompt, column<uint32_t>("/sequences/prompt_len", limit));
  size_t count = std::min({offset.empty() ? 0 : offset.size() - 1, parent.size(), fork.size(), prompt.size()});
  std::vector<uint32_t> domain;
  std::vector<uint64_t> source;
  if (!header_.domains.empty()) {
    SY_TRY(domain, column<uint32_t>("/sequences/domain", limit));
    SY_TRY(source, column<uint64_t>("/sequences/source_id", limit));
    count = std::min({count, domain.size(), source.size()});
    for (size_t s = 0; s < count; ++s)
      if (domain[s] >= header_.domains.size())
        return malformed("/sequences/domain row " + std::to_string(s) + " is " + std::to_string(domain[s]) + " of " + std::to_string(header_.domains.size()) + ".");
  }
  std::vector<SequenceRow> rows;
  for (size_t s = 0; s < count; ++s) {
    const uint64_t first = uint64_t(offset[s]);
    if (offset[s] < 0 || (s == 0 ? first != 0 : first < rows.back().first_token))
      return malformed("/sequences/offset row " + std::to_string(s) + " is " + std::to_string(offset[s]) + ".");
    if (!info_.complete && first >= info_.tokens) break;
    if (first > info_.tokens) return malformed("/sequences/offset row " + std::to_string(s) + " lies behind the last token.");
    rows.push_back({first, parent[s], fork[s], prompt[s]});
    if (!domain.empty()) rows.back().domain = uint16_t(domain[s]), rows.back().source_id = source[s];
  }
  if (rows.empty() && info_.tokens > 0) return malformed("/sequences/offset names no sequence.");
  return rows;
}

Result<std::vector<TraceReader::EpochRow>> TraceFile::epochs() const {
  if (info_.counts_only) return std::vector<TraceReader::EpochRow>{};
  const uint64_t limit = TraceCaps::kReadBytes / 8;
  SY_TRY(const auto first, column<uint64_t>("/epochs/first_token", limit));
  SY_TRY(const auto offset, column<uint64_t>("/epochs/offset", limit));
  SY_TRY(const Id json, dataset("/epochs/json"));
  const Id space(H5Dget_space(json)), type(H5Dget_type(json));
  const auto extent = h5::dims_of(space);
  if (extent.size() != 1 || H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) != 1)
    return malformed("/epochs/json is not a column of bytes.");
  std::vector<TraceReader::EpochRow> rows;
  for (size_t p = 0; p < first.size() && p + 1 < offset.size(); ++p) {
    if (!info_.complete && first[p] >= info_.tokens && info_.tokens > 0) break;
    if (offset[p + 1] < offset[p] || offset[p + 1] > extent[0] || offset[p + 1] - offset[p] > TraceCaps::kReadBytes)
      return malformed("/epochs/offset row " + std::to_string(p + 1) + " does not fit /epochs/json.");
    const hsize_t start = offset[p], size = offset[p + 1] - offset[p];
    std::string bytes(size, '\0');
    if (size > 0) {
      const Id memory(H5Screate_simple(1, &size, nullptr));
      H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &size, nullptr);
      if (H5Dread(json, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, bytes.data()) < 0)
        return malformed("/epochs/json could not be read: " + h5::last_error() + ".");
    }
    rows.push_back({first[p], std::move(bytes)});
  }
  return rows;
}

template <class T>
Result<std::vector<T>> TraceFile::aggregate(const char* path, size_t wanted) const {
  SY_TRY(const Id opened, dataset(path));
  const Id space(H5Dget_space(opened)), type(H5Dget_type(opened));
  const H5T_class_t needed = std::is_floating_point_v<T> ? H5T_FLOAT : H5T_INTEGER;
  if (H5Sget_simple_extent_npoints(space) != hssize_t(wanted) || H5Tget_class(type) != needed)
    return malformed(std::string(path) + " does not hold " + std::to_string(wanted) + " numbers.");
  std::vector<T> values(wanted);
  if (H5Dread(opened, native<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    return malformed(std::string(path) + " could not be read: " + h5::last_error() + ".");
  return values;
}
Result<TraceCounts> TraceFile::counts() const {
  const size_t values = size_t(shape_.layers) * size_t(shape_.experts);
  if (values > TraceCaps::kReadBytes / 8) return malformed("/agg/count holds more than 256 MiB.");
  if (!info_.complete) return malformed("was not closed, so its sums are not there yet.", "Count the rows, or recover it.");
  TraceCounts counts;
  for (const schema::SumField& field : schema::kSums) {
    if (!exists(field.path)) continue;
    switch (field.sum) {
      case schema::Sum::kCount: { SY_TRY(counts.count, aggregate<uint64_t>(field.path, values)); break; }
      case schema::Sum::kWeightSum: { SY_TRY(counts.weight_sum, aggregate<double>(field.path, values)); break; }
      case schema::Sum::kEanSum: { SY_TRY(counts.ean_sum, aggregate<double>(field.path, values)); break; }
      case schema::Sum::kReapSum: { SY_TRY(counts.reap_sum, aggregate<double>(field.path, values)); break; }
      case schema::Sum::kMaxAct: { SY_TRY(counts.max_act, aggregate<float>(field.path, values)); break; }
      case schema::Sum::kPassCount: {
        SY_TRY(const Id opened, dataset(field.path));
        const auto dims = h5::dims_of(Id(H5Dget_space(opened)));
        if (dims.size() != 3 || dims[0] > TraceCaps::kReadBytes / 4 / values)
          return malformed(std::string(field.path) + " has shape " + shape_text(dims) + ", too large or not [passes, layers, experts].");
        counts.passes = dims[0];
        SY_TRY(counts.pass_count, aggregate<uint32_t>(field.path, dims[0] * values));
        break;
      }
    }
  }
  if (counts.count.empty()) return malformed("has no /agg/count.");
  return counts;
}

template Result<std::vector<uint64_t>> TraceFile::aggregate(const char*, size_t) const;
template Result<std::vector<double>> TraceFile::aggregate(const char*, size_t) const;

}  // namespace switchyard
