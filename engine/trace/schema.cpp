// Creates an empty trace file: all that HDF5 cannot add once the file is in SWMR mode.
#include "engine/trace/schema.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <numeric>

#include <hdf5_hl.h>

namespace switchyard::schema {
namespace {

using h5::Id;

constexpr hsize_t kUnlimited = H5S_UNLIMITED;
constexpr uint64_t kChunkBytes = uint64_t(16) << 20;  // of one chunk of logits, at most

const char* score_name(ScoreFn score) {
  switch (score) {
    case ScoreFn::kSoftmaxAll:
    case ScoreFn::kSoftmaxTopK: return "softmax";
    case ScoreFn::kSigmoid:
    case ScoreFn::kSigmoidTopK: return "sigmoid";
    case ScoreFn::kSparseMixer: return "sparsemixer";
    case ScoreFn::kNone: return "none";
  }
  return "none";
}

// Of a sigmoid only "after top-k" is told: before it, the order makes no difference to a score.
const char* softmax_order(ScoreFn score) {
  if (score == ScoreFn::kSoftmaxAll) return "before top-k";
  return score == ScoreFn::kSoftmaxTopK || score == ScoreFn::kSigmoidTopK ? "after top-k" : "none";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Builds the file; the first failure is kept and everything after it is skipped.
class Builder {
 public:
  Builder(hid_t file, const TraceHeader& header, const Options& options)
      : file_(file), header_(header), options_(options), chunk_rows_(options.chunk_rows) {
    shape_ = {int(header.moe_layers.size()), header.experts, header.experts_per_token};
    link_ = Id(H5Pcreate(H5P_LINK_CREATE));
    H5Pset_create_intermediate_group(link_, 1);
  }

  Result<void> build() {
    attributes();
    scales();
    texts();
    recorded();
    bookkeeping();
    aggregates();
    return done();
  }

  // Values and all: nothing of such a file grows.
  Result<void> build_counts(const TraceCounts& counts) {
    attributes();
    flag("counts_only", true);
    fixed_scales();
    if (counts.passes > 0) growing("/pass", counts.passes);
    texts();
    for (const SumField& field : kSums) sums(field, counts);
    return done();
  }

 private:
  Result<void> done() const {
    if (!error_.empty()) return fail(ErrorCode::kOutput, error_);
    return {};
  }

  template <class T>
  T check(T status, const char* what) {
    if (status < 0 && error_.empty()) error_ = std::string("could not write ") + what + ": " + h5::last_error() + ".";
    return status;
  }

  void attribute(hid_t object, const char* name, hid_t type, const void* value, hsize_t count = 0) {
    const Id space(count == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, nullptr));
    const Id made(check(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), name));
    if (made) check(H5Awrite(made, type, value), name);
  }
  void attribute(hid_t object, const char* name, const std::string& text) {
    const char* value = text.c_str();
    attribute(object, name, h5::text_type(), &value);
  }
  void attribute(hid_t object, const char* name, uint32_t value) { attribute(object, name, H5T_STD_U32LE, &value); }
  void flag(const char* name, bool value) {
    const uint8_t byte = value;
    attribute(file_, name, H5T_STD_U8LE, &byte);
  }

  void attributes() {
    const RouterSpec& router = header_.router;
    const uint64_t zero = 0;
    const std::vector<int32_t> layers(header_.moe_layers.begin(), header_.moe_layers.end());
    attribute(file_, "schema", kName);
    attribute(file_, "schema_version", kVersion);
    flag("complete", false);
    attribute(file_, "created_utc", utc_now());
    attribute(file_, "tool_version", SWITCHYARD_VERSION);
    attribute(file_, "n_tokens", H5T_STD_U64LE, &zero);
    attribute(file_, "n_sequences", H5T_STD_U64LE, &zero);
    attribute(file_, "dropped_tokens", H5T_STD_U64LE, &zero);
    attribute(file_, "bookkeeping_crc32c", uint32_t(0));
    attribute(file_, "L", uint32_t(shape_.layers));
    attribute(file_, "E", uint32_t(shape_.experts));
    attribute(file_, "k", uint32_t(shape_.slots));
    attribute(file_, "moe_layer_to_model_layer", H5T_STD_I32LE, layers.data(), layers.size());
    attribute(file_, "score_fn", score_name(router.score));
    attribute(file_, "softmax_order", softmax_order(router.score));
    flag("bias_used", router.has_select_bias);
    flag("weights_renormalised", router.renorm != Renorm::kNone || router.score == ScoreFn::kSoftmaxTopK);
    attribute(file_, "weight_scale", H5T_IEEE_F32LE, &router.scale);
    attribute(file_, "n_group", uint32_t(router.groups));
    attribute(file_, "topk_group", uint32_t(router.groups_kept));
    attribute(file_, "tie_rule", "lower id");
    attribute(file_, "id_order", header_.ranked ? "weight_desc" : "unknown");
  }

  Id dataset(const char* path, hid_t type, const std::vector<hsize_t>& dims, const std::vector<hsize_t>& max,
             const std::vector<hsize_t>& chunk, const void* fill = nullptr, bool packed = false) {
    const Id space(H5Screate_simple(int(dims.size()), dims.data(), max.empty() ? nullptr : max.data()));
    const Id creation(H5Pcreate(H5P_DATASET_CREATE));
    if (!chunk.empty()) {
      H5Pset_chunk(creation, int(chunk.size()), chunk.data());
      // Rows are written before anybody may read them, so only slots that a narrower token lacks need a fill.
      H5Pset_fill_time(creation, fill != nullptr ? H5D_FILL_TIME_IFSET : H5D_FILL_TIME_NEVER);
      if (packed) H5Pset_shuffle(creation), H5Pset_deflate(creation, 1);
    }
    if (fill != nullptr) H5Pset_fill_value(creation, type, fill);
    return Id(check(H5Dcreate2(file_, path, type, space, link_, creation, H5P_DEFAULT), path));
  }

  // A dimension scale with values 0, 1, … or those given.
  void scale(const char* path, std::vector<int32_t> values, hsize_t max) {
    const hsize_t size = values.size();
    const Id made = max > size ? dataset(path, H5T_STD_I32LE, {size}, {max}, {std::min<hsize_t>(max, 1024)})
                               : dataset(path, H5T_STD_I32LE, {size}, {}, {});
    if (!made) return;
    if (size > 0) check(H5Dwrite(made, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path);
    check(H5DSset_scale(made, path + 1), path);
  }

  // A dimension that has a size and no values, as netCDF writes it.
  void growing(const char* path, hsize_t size = 0) {
    const Id made = dataset(path, H5T_IEEE_F32LE, {size}, {kUnlimited}, {1024});
    char name[80];
    std::snprintf(name, sizeof name, "This is a netCDF dimension but not a netCDF variable.%10d", int(size));
    if (made) check(H5DSset_scale(made, name), path);
  }

  static std::vector<int32_t> counting(size_t count) {
    std::vector<int32_t> values(count);
    std::iota(values.begin(), values.end(), 0);
    return values;
  }

  void fixed_scales() {
    const std::vector<int32_t> experts = counting(shape_.experts);
    const std::vector<int32_t> layers(header_.moe_layers.begin(), header_.moe_layers.end());
    scale("/layer", layers, layers.size());
    scale("/expert", experts, experts.size());
    scale("/expert_to", experts, experts.size());
  }

  void scales() {
    const std::vector<int32_t> slots = counting(shape_.slots);
    std::vector<int32_t> layers(header_.moe_layers.begin(), header_.moe_layers.end());
    growing("/token");
    fixed_scales();
    scale("/slot", slots, shape_.experts);
    if (layers.size() > 1) {
      layers.pop_back();
      scale("/transition", layers, layers.size());
    }
    growing("/sequence");
    growing("/sequence_offset", 1);
    if (!header_.domains.empty()) scale("/domain", counting(header_.domains.size()), header_.domains.size());
    growing("/epoch");
    growing("/epoch_offset", 1);
    growing("/epoch_byte");
    growing("/commit_row");
    const std::vector<int32_t> fields = counting(fields_of(header_).size());
    scale("/commit_field", fields, fields.size());
  }

  void attach(const Id& dataset, const char* path, std::initializer_list<const char*> axes) {
    if (!dataset) return;
    unsigned axis = 0;
    for (const char* name : axes) {
      const Id scale(check(H5Dopen2(file_, name, H5P_DEFAULT), name));
      if (scale) check(H5DSattach_scale(dataset, scale, axis++), path);
    }
  }

  void text(const char* path, const std::string& value) {
    const Id type = h5::text_type(), space(H5Screate(H5S_SCALAR));
    const Id made(check(H5Dcreate2(file_, path, type, space, link_, H5P_DEFAULT, H5P_DEFAULT), path));
    const char* bytes = value.empty() ? "{}" : value.c_str();
    if (made) check(H5Dwrite(made, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &bytes), path);
  }

  void text_list(const char* path, const std::vector<std::string>& values, const char* axis) {
    std::vector<const char*> bytes;
    for (const auto& value : values) bytes.push_back(value.c_str());
    const Id made = dataset(path, h5::text_type(), {bytes.size()}, {}, {});
    if (!made) return;
    check(H5Dwrite(made, h5::text_type(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), path);
    attach(made, path, {axis});
  }

  void texts() {
    text("/meta/model_config", header_.model_config_json);
    text("/meta/edits", header_.edits_json);
    text("/meta/run", header_.run_json);
    std::vector<std::string> names = header_.router_names;
    for (size_t row = names.size(); row < header_.moe_layers.size(); ++row)
      names.push_back("layer " + std::to_string(header_.moe_layers[row]));
    text_list("/model/router_names", names, "/layer");
    if (!header_.domains.empty()) text_list("/domains/name", header_.domains, "/domain");
    const std::vector<int32_t> layers(header_.moe_layers.begin(), header_.moe_layers.end());
    const Id made = dataset("/model/moe_layers", H5T_STD_I32LE, {layers.size()}, {}, {});
    if (made) check(H5Dwrite(made, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, layers.data()), "/model/moe_layers");
    attach(made, "/model/moe_layers", {"/layer"});
    if (header_.router_width > 0) router_weight();
  }

  void router_weight() {
    growing("/router_input", hsize_t(header_.router_width));
    const Id made = dataset("/model/router_weight", H5T_IEEE_F32LE, {hsize_t(shape_.layers), hsize_t(shape_.experts), hsize_t(header_.router_width)}, {}, {});
    if (!made) return;
    check(H5Dwrite(made, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, header_.router_weight->data()), "/model/router_weight");
    attach(made, "/model/router_weight", {"/layer", "/expert", "/router_input"});
  }

  void recorded() {
    const hsize_t layers = shape_.layers, experts = shape_.experts, slots = shape_.slots, rows = chunk_rows_;
    for (const Field* field : fields_of(header_)) {
      const bool reduced = options_.half && field->stored == Stored::kF32 && field->quantity != Quantity::kLse;
      const Id half = half_type();
      const hid_t type = reduced ? hid_t(half) : file_type(field->stored, shape_.experts);
      const uint64_t fill = fill_of(field->stored);
      Id made;
      switch (field->axes) {
        case Axes::kToken:
          made = dataset(field->path, type, {0}, {kUnlimited}, {rows}, nullptr, options_.packed);
          attach(made, field->path, {"/token"});
          break;
        case Axes::kRow:
          made = dataset(field->path, type, {layers, 0}, {layers, kUnlimited}, {1, rows}, nullptr, options_.packed);
          attach(made, field->path, {"/layer", "/token"});
          break;
        case Axes::kSlot:
          made = dataset(field->path, type, {layers, 0, slots}, {layers, kUnlimited, experts}, {1, rows, slots}, &fill, options_.packed);
          attach(made, field->path, {"/layer", "/token", "/slot"});
          break;
        case Axes::kNextSlot:
          made = dataset(field->path, type, {layers - 1, 0, slots}, {layers - 1, kUnlimited, experts}, {1, rows, slots}, &fill, options_.packed);
          attach(made, field->path, {"/transition", "/token", "/slot"});
          break;
        case Axes::kExpert: {
          const hsize_t fit = std::clamp<hsize_t>((options_.packed ? kPackedChunkBytes : kChunkBytes) / (4 * experts), 1, rows);
          made = dataset(field->path, type, {layers, 0, experts}, {layers, kUnlimited, experts}, {1, fit, experts}, nullptr, options_.packed);
          attach(made, field->path, {"/layer", "/token", "/expert"});
          break;
        }
      }
      if (!made) return;
      attribute(made, "long_name", field->long_name);
      attribute(made, "units", field->units);
      if (reduced) attribute(made, "reduced_from", std::string("float32"));
    }
  }

  // One growing column; `first` is the value of its only row, or it starts empty.
  void column(const char* path, hid_t type, const char* axis, bool starts_at_zero = false) {
    const hsize_t size = starts_at_zero ? 1 : 0;
    const Id made = dataset(path, type, {size}, {kUnlimited}, {1024});
    if (!made) return;
    const uint64_t zero = 0;
    if (starts_at_zero) check(H5Dwrite(made, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &zero), path);
    attach(made, path, {axis});
  }

  void bookkeeping() {
    column("/sequences/offset", H5T_STD_I64LE, "/sequence_offset", true);
    column("/sequences/parent", H5T_STD_I64LE, "/sequence");
    column("/sequences/fork_offset", H5T_STD_U32LE, "/sequence");
    column("/sequences/prompt_len", H5T_STD_U32LE, "/sequence");
    if (!header_.domains.empty()) {
      column("/sequences/domain", H5T_STD_U16LE, "/sequence");
      column("/sequences/source_id", H5T_STD_U64LE, "/sequence");
    }
    column("/epochs/first_token", H5T_STD_U64LE, "/epoch");
    column("/epochs/json", H5T_STD_U8LE, "/epoch_byte");
    column("/epochs/offset", H5T_STD_U64LE, "/epoch_offset", true);
    column("/commit/tokens", H5T_STD_U64LE, "/commit_row");
    column("/commit/block", H5T_STD_U64LE, "/commit_row");
    column("/commit/slots", H5T_STD_U32LE, "/commit_row");
    std::vector<std::string> names;
    for (const Field* field : fields_of(header_)) names.push_back(field->path);
    const hsize_t count = names.size();
    attach(dataset("/commit/crc32c", H5T_STD_U32LE, {0, count}, {kUnlimited, count}, {1024, count}), "/commit/crc32c",
           {"/commit_row", "/commit_field"});
    text_list("/commit/fields", names, "/commit_field");
  }

  void aggregates() {
    const hsize_t layers = shape_.layers, experts = shape_.experts;
    attach(dataset("/agg/count", H5T_STD_U64LE, {layers, experts}, {}, {}), "/agg/count", {"/layer", "/expert"});
    // Of slots in no known order none is the first choice.
    if (header_.ranked)
      attach(dataset("/agg/count_top1", H5T_STD_U64LE, {layers, experts}, {}, {}), "/agg/count_top1", {"/layer", "/expert"});
    if (header_.capture >= CaptureLevel::kLogits)
      attach(dataset("/agg/prob_sum", H5T_IEEE_F64LE, {layers, experts}, {}, {}), "/agg/prob_sum", {"/layer", "/expert"});
    by_sequence();
    if (!has_pair_matrices(shape_.layers, shape_.experts)) return;
    attach(dataset("/agg/coact", H5T_STD_U64LE, {layers, experts, experts}, {}, {}), "/agg/coact",
           {"/layer", "/expert", "/expert_to"});
    if (layers < 2) return;
    for (const char* path : {"/agg/trans_top1", "/agg/trans_topk"}) {
      if (!header_.ranked && std::string_view(path) == "/agg/trans_top1") continue;
      attach(dataset(path, H5T_STD_U64LE, {layers - 1, experts, experts}, {}, {}), path,
             {"/transition", "/expert", "/expert_to"});
    }
  }

  // Sums that go by sequence. The vocabulary's size is known at the close.
  void by_sequence() {
    const hsize_t layers = shape_.layers, experts = shape_.experts, domains = std::max<size_t>(header_.domains.size(), 1);
    if (!header_.domains.empty() && domains * layers * experts * 8 <= kSumBytes)
      attach(dataset("/agg/domain_count", H5T_STD_U64LE, {domains, layers, experts}, {}, {}), "/agg/domain_count", {"/domain", "/layer", "/expert"});
    const char* const axis = header_.domains.empty() ? "/all_domains" : "/domain";
    if (header_.domains.empty()) scale(axis, {0}, 1);
    for (const int m : kSrpWindows) {
      if (!has_srp(shape_, header_.domains.size(), m)) continue;
      const std::string path = "/agg/srp_hist_m" + std::to_string(m), uses = "/uses_of_" + std::to_string(m);
      scale(uses.c_str(), counting(size_t(m) + 1), hsize_t(m) + 1);
      attach(dataset(path.c_str(), H5T_STD_U64LE, {domains, layers, experts, hsize_t(m) + 1}, {}, {}), path.c_str(), {axis, "/layer", "/expert", uses.c_str()});
    }
    for (const char* path : {"/vocab_id", "/vocab_row_offset", "/vocab_entry"}) growing(path);
    const auto list = [&](const char* path, hid_t type, const char* along) {
      attach(dataset(path, type, {0}, {kUnlimited}, {4096}), path, {along});
    };
    list("/agg/vocab/id", H5T_STD_U32LE, "/vocab_id");
    list("/agg/vocab/indptr", H5T_STD_U64LE, "/vocab_row_offset");
    list("/agg/vocab/expert", H5T_STD_U16LE, "/vocab_entry");
    list("/agg/vocab/count", H5T_STD_U32LE, "/vocab_entry");
  }

  template <class T>
  void sum(const SumField& field, hid_t file_type, hid_t memory_type, const std::vector<T>& values) {
    if (values.empty()) return;
    const hsize_t layers = shape_.layers, experts = shape_.experts;
    const std::vector<hsize_t> dims = field.per_pass ? std::vector<hsize_t>{values.size() / (layers * experts), layers, experts}
                                                     : std::vector<hsize_t>{layers, experts};
    const Id made = dataset(field.path, file_type, dims, {}, {});
    if (!made) return;
    check(H5Dwrite(made, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), field.path);
    if (field.per_pass)
      attach(made, field.path, {"/pass", "/layer", "/expert"});
    else
      attach(made, field.path, {"/layer", "/expert"});
  }

  void sums(const SumField& field, const TraceCounts& counts) {
    switch (field.sum) {
      case Sum::kCount: return sum(field, H5T_STD_U64LE, H5T_NATIVE_UINT64, counts.count);
      case Sum::kPassCount: return sum(field, H5T_STD_U32LE, H5T_NATIVE_UINT32, counts.pass_count);
      case Sum::kWeightSum: return sum(field, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, counts.weight_sum);
      case Sum::kEanSum: return sum(field, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, counts.ean_sum);
      case Sum::kReapSum: return sum(field, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, counts.reap_sum);
      case Sum::kMaxAct: return sum(field, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, counts.max_act);
    }
  }

  hid_t file_;
  const TraceHeader& header_;
  const Options options_;
  hsize_t chunk_rows_;
  Shape shape_;
  Id link_;
  std::string error_;
};

}  // namespace

std::vector<const Field*> fields_of(CaptureLevel capture) {
  std::vector<const Field*> fields;
  for (const Field& field : kFields)
    if (capture >= field.from && field.tap == 0) fields.push_back(&field);
  return fields;
}

std::vector<const Field*> fields_of(const TraceHeader& header) {
  std::vector<const Field*> fields;
  if (header.fields.empty()) {
    fields = fields_of(header.capture);
    for (const Field& field : kFields)
      if ((field.tap & header.taps) && (field.axes != Axes::kNextSlot || header.moe_layers.size() > 1)) fields.push_back(&field);
    return fields;
  }
  for (const Field& field : kFields)
    if (std::find(header.fields.begin(), header.fields.end(), field.path) != header.fields.end()) fields.push_back(&field);
  return fields;
}

const Field* find_field(std::string_view path) {
  const auto found = std::find_if(std::begin(kFields), std::end(kFields), [&](const Field& f) { return f.path == path; });
  return found == std::end(kFields) ? nullptr : found;
}

hid_t file_type(Stored stored, int experts) {
  switch (stored) {
    case Stored::kU8: return H5T_STD_U8LE;
    case Stored::kU32: return H5T_STD_U32LE;
    case Stored::kExpertId: return experts <= 255 ? H5T_STD_U8LE : H5T_STD_U16LE;
    case Stored::kF32: return H5T_IEEE_F32LE;
  }
  return H5I_INVALID_HID;
}

Id half_type() {
  Id type(H5Tcopy(H5T_IEEE_F32LE));
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 15);
  return type;
}

size_t bytes_of(Stored stored, int experts) {
  if (stored == Stored::kU8) return 1;
  if (stored == Stored::kExpertId) return experts <= 255 ? 1 : 2;
  return 4;
}

uint64_t fill_of(Stored stored) { return stored == Stored::kExpertId ? ~uint64_t(0) : 0; }

size_t bytes_per_token(const std::vector<const Field*>& fields, const Shape& shape) {
  size_t total = 0;
  for (const Field* field : fields)
    total += shape.rows(field->axes) * shape.width(field->axes) * bytes_of(field->stored, shape.experts);
  return total;
}

uint64_t tokens_per_block(const std::vector<const Field*>& fields, const Shape& shape) {
  return std::clamp<uint64_t>(kBlockBytes / bytes_per_token(fields, shape), 1, kBlockTokens);
}

Result<void> create_counts(hid_t file, const TraceHeader& header, const TraceCounts& counts) {
  return Builder(file, header, {}).build_counts(counts);
}

Result<void> create(hid_t file, const TraceHeader& header, const Options& options) {
  return Builder(file, header, options).build();
}

}  // namespace switchyard::schema
