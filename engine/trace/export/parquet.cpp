// One row a choice, through the Parquet module (parquet_module.h).
#include <memory>

#include "engine/base/module.h"
#include "engine/base/text.h"
#include "engine/trace/export/parquet.h"
#include "engine/trace/export/parquet_module.h"
#include "engine/trace/export/writers.h"

namespace switchyard::exports {
namespace {

constexpr ModuleName kModule{.file = "libswitchyard_parquet.so", .variable = "SWITCHYARD_PARQUET_LIB", .symbol = kParquetEntry, .what = "the Parquet module",
                             .hint = "Install the package switchyard-parquet (from source: ninja switchyard_parquet), or export with --to npy, csv or jsonl."};

// The columns of a piece of the trace, a row a choice: token by token, in a token layer by layer, in a layer slot by slot.
struct Choices {
  explicit Choices(const Job& job)
      : with_router(several_rows(job.info())), with_position(job.has("/tokens/position")), with_token_id(job.has("/tokens/token_id")),
        with_phase(job.has("/tokens/phase")), with_weight(job.has("/routing/weight")), with_norm(job.has("/routing/out_norm")) {}

  std::vector<int64_t> token;
  std::vector<int32_t> sequence, position, token_id, phase, layer, slot, expert;
  std::vector<const char*> router;
  std::vector<float> weight, norm;
  bool with_router, with_position, with_token_id, with_phase, with_weight, with_norm;

  std::vector<ParquetColumn> columns() const {
    std::vector<ParquetColumn> out{{"token", kParquetInt64, token.data()}, {"sequence", kParquetInt32, sequence.data()}, {"layer", kParquetInt32, layer.data()}};
    if (with_router) out.push_back({"router", kParquetText, router.data()});
    out.push_back({"slot", kParquetInt32, slot.data()});
    out.push_back({"expert", kParquetInt32, expert.data()});
    if (with_weight) out.push_back({"weight", kParquetFloat, weight.data()});
    if (with_norm) out.push_back({"out_norm", kParquetFloat, norm.data()});
    if (with_token_id) out.push_back({"token_id", kParquetInt32, token_id.data()});
    if (with_position) out.push_back({"position", kParquetInt32, position.data()});
    if (with_phase) out.push_back({"phase", kParquetInt32, phase.data()});
    return out;
  }
};

Result<void> fill(const Job& job, const std::vector<int64_t>& offsets, uint64_t first, uint64_t count, size_t& sequence, Choices& out) {
  const TraceInfo& info = job.info();
  const size_t k = size_t(info.top_k);
  std::vector<std::vector<ExpertId>> ids;
  std::vector<std::vector<float>> weights(size_t(info.layers)), norms(size_t(info.layers));
  for (int row = 0; row < info.layers; ++row) {
    SY_TRY(ids.emplace_back(), job.trace->expert_ids(row, first, count));
    if (out.with_weight) {
      SY_TRY(weights[size_t(row)], job.trace->weights(row, first, count));
    }
    if (out.with_norm) {
      SY_TRY(norms[size_t(row)], job.trace->out_norms(row, first, count));
    }
  }
  std::vector<uint32_t> positions, phases;
  std::vector<TokenId> token_ids;
  if (out.with_position) {
    SY_TRY(positions, job.trace->token_column("position", first, count));
  }
  if (out.with_phase) {
    SY_TRY(phases, job.trace->token_column("phase", first, count));
  }
  if (out.with_token_id) {
    SY_TRY(token_ids, job.trace->token_ids(first, count));
  }
  for (uint64_t t = 0; t < count; ++t) {
    while (sequence + 2 < offsets.size() && first + t >= uint64_t(offsets[sequence + 1])) ++sequence;
    for (size_t row = 0; row < ids.size(); ++row) {
      for (size_t slot = 0; slot < k; ++slot) {
        const ExpertId id = ids[row][t * k + slot];
        if (id == kNoExpert) continue;
        out.token.push_back(int64_t(first + t));
        out.sequence.push_back(int32_t(sequence));
        out.layer.push_back(info.moe_layers[row]);
        out.slot.push_back(int32_t(slot));
        out.expert.push_back(id);
        if (out.with_router) out.router.push_back(info.router_names[row].c_str());
        if (out.with_position) out.position.push_back(int32_t(positions[t]));
        if (out.with_token_id) out.token_id.push_back(token_ids[t]);
        if (out.with_phase) out.phase.push_back(int32_t(phases[t]));
        if (out.with_weight) out.weight.push_back(weights[row][t * k + slot]);
        if (out.with_norm) out.norm.push_back(norms[row][t * k + slot]);
      }
    }
  }
  return {};
}

// Hands the file's bytes on, and keeps the error that the module knows only as text.
struct Sink {
  ExportFiles& files;
  Result<void> written = {};

  static const char* write(void* context, const void* bytes, int64_t count) {
    auto& self = *static_cast<Sink*>(context);
    self.written = self.files.write({static_cast<const char*>(bytes), size_t(count)});
    return self.written ? nullptr : self.written.error().what.c_str();
  }
  Result<void> check(const char* problem, const Job& job) const {
    if (problem == nullptr) return {};
    SY_CHECK(written);
    return fail(ErrorCode::kOutput, std::string("could not be written: ") + problem + ".", printable(job.request.target.string(), 400));
  }
};

}  // namespace

Result<void> write_parquet(Job& job) {
  SY_CHECK(job.need("/routing/expert_id"));
  const TraceInfo& info = job.info();
  SY_TRY(void* const symbol, load_module(kModule));
  const ParquetModule& module = *reinterpret_cast<ParquetEntry>(symbol)();
  SY_TRY(const std::vector<int64_t> offsets, job.trace->sequence_offsets());
  SY_CHECK(job.files.begin());
  Sink sink{job.files};
  void* opened = nullptr;
  const auto schema = Choices(job).columns();
  SY_CHECK(sink.check(module.open({&sink, Sink::write}, schema.data(), int(schema.size()), &opened), job));
  std::unique_ptr<void, const char* (*)(void*)> writer(opened, module.close);
  const uint64_t piece = std::max<uint64_t>(1, kRows * 8 / uint64_t(info.layers * info.top_k));
  size_t sequence = 0;
  for (uint64_t first = 0; first < info.tokens; first += piece) {
    Choices rows(job);
    SY_CHECK(fill(job, offsets, first, std::min(piece, info.tokens - first), sequence, rows));
    const auto columns = rows.columns();
    SY_CHECK(sink.check(module.write(opened, columns.data(), int(columns.size()), int64_t(rows.token.size())), job));
    SY_CHECK(job.step(double(first) / double(info.tokens)));
  }
  return sink.check(module.close(writer.release()), job);
}

}  // namespace switchyard::exports

namespace switchyard {

Result<std::filesystem::path> find_parquet_module() {
  return find_module(exports::kModule);
}

}  // namespace switchyard
