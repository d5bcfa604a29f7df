// Which format, which rows, which fields; then the two passes.
#include "engine/trace/import/import.h"

#include <algorithm>
#include <cmath>
#include <system_error>

#include "engine/base/text.h"
#include "engine/trace/counts.h"
#include "engine/trace/import/sink.h"
#include "engine/trace/import/source.h"
#include "engine/trace/rehearsal.h"
#include "engine/trace/writer.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using dumps::DumpFacts;
using dumps::DumpFormat;
using dumps::DumpSource;
using dumps::ImportOptions;
using dumps::Measured;
using Json = nlohmann::ordered_json;

constexpr uint64_t kChunkRows = 32'768;

Result<void> check_request(const ImportRequest& request) {
  const std::string name = request.target.filename().string(), shown = printable(request.target.string(), 400);
  if (!name.ends_with(".h5") || name == ".h5") return fail(ErrorCode::kUsage, "needs to end in .h5, best in .moetrace.h5.", shown);
  std::error_code ignored;
  if (!request.overwrite && fs::exists(fs::symlink_status(request.target, ignored)))
    return fail(ErrorCode::kOutput, "exists already.", shown, "Choose another name, or overwrite it with --force.");
  const ImportOptions& options = request.options;
  if (options.experts > 0 && options.top_k > options.experts) {
    return fail(ErrorCode::kUsage, "--top-k " + std::to_string(options.top_k) + " of --experts " + std::to_string(options.experts) + " cannot be chosen.");
  }
  return {};
}

Result<const DumpFormat*> choose_format(const ImportRequest& request, const DumpSource& source) {
  std::string names;
  for (const DumpFormat& format : dumps::formats()) names += (names.empty() ? "" : ", ") + std::string(format.name);
  if (request.format != "auto") {
    if (const DumpFormat* format = dumps::find_format(request.format)) return format;
    return fail(ErrorCode::kUsage, quote(request.format) + " is no known format.", "--from", "Known are: " + names + ".");
  }
  for (const DumpFormat& format : dumps::formats())
    if (format.recognises(source)) return &format;
  return fail(ErrorCode::kMalformed, "is no dump that is known by its look.", source.shown(), "Name its format with --from: " + names + ".");
}

// What is in the trace decides what is missing from it.
std::vector<Lack> lacks_of(const Measured& measured, bool ranked) {
  std::vector<Lack> out;
  if (measured.counts) {
    out.push_back({"/routing, /tokens, /sequences", "all but load (A1) and placement by load (A12): there are no tokens"});
    if (measured.counts->top_k == 0) out.push_back({"k and n_tokens", "shares of tokens; shares of choices are there"});
    if (measured.counts->sums.reap_sum.empty()) out.push_back({"/agg/reap_sum", "pruning by REAP (A15)"});
    return out;
  }
  if (!measured.token_ids) out.push_back({"/tokens/token_id", "vocabulary (A5), joining two traces (A6, A19)"});
  if (!measured.phases) out.push_back({"/tokens/phase", "prompt and generation apart"});
  if (!ranked) out.push_back({"id_order", "first choices: load of rank 0 (A1), repetition (A7), SCH (A8), affinity of first choices (A10, A11), drops by rank (A14)"});
  if (!measured.weights) out.push_back({"/routing/weight", "ESFT gate scores, pruning by weight (A15)"});
  if (!measured.logits) {
    out.push_back({"/routing/entropy, topk_mass, margin, lse", "router entropy and margins (A2)"});
    out.push_back({"/routing/router_logits", "balance losses (A1), similarity by logits (A17), replay under other schemes"});
  }
  out.push_back({"/routing/out_norm", "pruning by REAP and EAN (A15), super experts (A16)"});
  out.push_back({"/tokens/nll", "loss (A19)"});
  if (measured.domains.empty()) out.push_back({"/sequences/domain", "domains (A4)"});
  return out;
}

Json run_json(const ImportRequest& request, const DumpFormat& format, const DumpSource& source, const DumpFacts& facts,
              const std::vector<Lack>& lacks, const Json& files) {
  Json lack = Json::array();
  for (const Lack& one : lacks) lack.push_back({{"field", one.field}, {"disables", one.analyses}});
  return {{"tool", "switchyard"},
          {"tool_version", SWITCHYARD_VERSION},
          {"command", "trace import"},
          {"source", {{"format", format.name}, {"title", format.title}, {"path", source.shown()}, {"files", files}}},
          {"layers", !request.options.moe_layers.empty() ? "given with --moe-layers" : facts.ordinal_layers ? "ordinal among the MoE layers" : "as the model numbers them"},
          {"missing", lack},
          {"notes", facts.notes},
          {"kept", facts.kept}};
}

Result<Json> hashes_of(const DumpSource& source) {
  Json files = Json::array();
  for (const std::string& name : std::vector<std::string>(source.read_from())) {
    SY_TRY(const OpenFile file, source.file(name));
    SY_TRY(const std::string sha256, dumps::sha256_of(file));
    files.push_back({{"name", name}, {"bytes", file.size()}, {"sha256", sha256}});
  }
  return files;
}

// E and k: as given, as stated, or the least that fits what is there.
Result<void> settle_shape(const ImportOptions& options, const Measured& measured, DumpFacts& facts, TraceHeader& header) {
  const int stated = measured.counts ? measured.counts->experts : measured.logit_experts > 0 && measured.logits ? measured.logit_experts : facts.experts;
  if (options.experts > 0 && stated > 0 && (measured.counts || measured.logits) && options.experts != stated) {
    return fail(ErrorCode::kUsage, "--experts " + std::to_string(options.experts) + " was given, the dump has " + std::to_string(stated) + ".");
  }
  header.experts = options.experts > 0 ? options.experts : stated;
  if (header.experts == 0) {
    header.experts = measured.largest_id + 1;
    facts.note("the number of experts is not in the dump; " + std::to_string(header.experts) + " is one more than the largest id in it (--experts says it)");
  }
  if (measured.largest_id >= header.experts) {
    return fail(ErrorCode::kUsage, "--experts " + std::to_string(header.experts) + " was given, the dump names expert " + std::to_string(measured.largest_id) + ".");
  }
  header.experts_per_token = options.top_k;
  if (measured.counts) {
    if (options.top_k == 0) header.experts_per_token = measured.counts->top_k;
    return {};
  }
  if (options.top_k == 0) header.experts_per_token = measured.slots;
  if (options.top_k > 0 && options.top_k < measured.slots) {
    return fail(ErrorCode::kUsage, "--top-k " + std::to_string(options.top_k) + " was given, the dump has tokens with " + std::to_string(measured.slots) + " experts.");
  }
  return {};
}

// Rows of the trace: the model's layers, as given or as the dump numbers them.
Result<void> settle_layers(const ImportOptions& options, const Measured& measured, TraceHeader& header) {
  header.moe_layers = options.moe_layers.empty() ? measured.layers : options.moe_layers;
  if (header.moe_layers.size() != measured.layers.size()) {
    return fail(ErrorCode::kUsage, "--moe-layers names " + std::to_string(header.moe_layers.size()) + " layers, the dump has " + std::to_string(measured.layers.size()) + ".");
  }
  return {};
}

std::vector<std::string> fields_of(const Measured& measured) {
  std::vector<std::string> fields{"/tokens/position", "/routing/expert_id"};
  if (measured.token_ids) fields.emplace_back("/tokens/token_id");
  if (measured.phases) fields.emplace_back("/tokens/phase");
  if (measured.weights) fields.emplace_back("/routing/weight");
  if (measured.logits)
    for (const char* path : {"/routing/entropy", "/routing/topk_mass", "/routing/margin", "/routing/lse", "/routing/router_logits"}) fields.emplace_back(path);
  return fields;
}

// The tokens that counts are of, where every layer agrees on them.
uint64_t tokens_of(const Measured& measured, int top_k, DumpFacts& facts) {
  const auto& counts = *measured.counts;
  if (counts.tokens > 0 || top_k == 0) return top_k == 0 ? 0 : counts.tokens;
  uint64_t tokens = 0;
  for (size_t row = 0; row < counts.layers.size(); ++row) {
    uint64_t sum = 0;
    for (int e = 0; e < counts.experts; ++e) sum += counts.sums.count[row * size_t(counts.experts) + size_t(e)];
    if (sum == 0) continue;
    if (sum % uint64_t(top_k) != 0 || (tokens != 0 && sum / uint64_t(top_k) != tokens)) {
      facts.note("the layers do not agree on a number of tokens at " + std::to_string(top_k) + " experts each, so it is left open");
      return 0;
    }
    tokens = sum / uint64_t(top_k);
  }
  return tokens;
}

// The sums of the rows that the trace keeps, in its order.
TraceCounts kept_rows(const Measured& measured) {
  const auto& counts = *measured.counts;
  const size_t experts = size_t(counts.experts), all = counts.layers.size();
  std::vector<size_t> rows;
  for (const int layer : measured.layers) rows.push_back(size_t(std::find(counts.layers.begin(), counts.layers.end(), layer) - counts.layers.begin()));
  const auto pick = [&](const auto& values) {
    std::remove_cvref_t<decltype(values)> out;
    for (size_t block = 0; block < values.size(); block += all * experts)
      for (const size_t row : rows) out.insert(out.end(), values.begin() + ptrdiff_t(block + row * experts), values.begin() + ptrdiff_t(block + (row + 1) * experts));
    return out;
  };
  const TraceCounts& sums = counts.sums;
  return {pick(sums.count), sums.passes, pick(sums.pass_count), pick(sums.weight_sum), pick(sums.ean_sum), pick(sums.reap_sum), pick(sums.max_act)};
}

Result<void> ask_about_logits(const ImportOptions& options, const Measured& measured, const DumpSource& source) {
  if (!measured.logits || !measured.probabilities || options.router_output != ImportOptions::RouterOutput::kAsk) return {};
  return fail(ErrorCode::kUsage, "what stands for router logits are probabilities by their look: none is negative and every row sums to 1.", source.shown(),
              "Say which: --router-output probabilities takes their logarithm, --router-output logits takes them as they are.");
}

// All of it, in the child.
Result<void> import_here(const ImportRequest& request, const DumpFormat& format, const DumpSource& source) {
  dumps::Survey survey(request.options);
  SY_CHECK(format.read(source, request.options, survey));
  SY_TRY(const Measured measured, survey.finish(source.shown()));
  SY_CHECK(ask_about_logits(request.options, measured, source));
  DumpFacts& facts = survey.facts;
  TraceHeader header;
  SY_CHECK(settle_shape(request.options, measured, facts, header));
  SY_CHECK(settle_layers(request.options, measured, header));
  if (measured.empty_layers > 0) facts.note(std::to_string(measured.empty_layers) + " layers of the dump have no chosen expert (dense ones) and are left out");
  header.ranked = measured.counts || measured.weights || measured.logits || facts.ranked;
  header.router.score = ScoreFn::kNone;  // no dump tells
  const bool sums_to_one = measured.weights && !measured.counts && facts.renormalised.value_or(measured.sums_to_one);
  header.router.renorm = sums_to_one ? Renorm::kSum : Renorm::kNone;
  header.model_config_json = Json{{"name", facts.model}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  header.edits_json = R"({"schema":1,"edits":[]})";
  const uint64_t count_tokens = measured.counts ? tokens_of(measured, header.experts_per_token, facts) : 0;
  SY_TRY(const Json files, hashes_of(source));
  header.run_json = run_json(request, format, source, facts, lacks_of(measured, header.ranked), files).dump(-1, ' ', false, Json::error_handler_t::replace);
  const Overwrite overwrite = request.overwrite ? Overwrite::kAllow : Overwrite::kRefuse;
  if (measured.counts) {
    header.capture = CaptureLevel::kOff;
    return write_counts_trace(request.target, header, kept_rows(measured), count_tokens, overwrite);
  }
  header.capture = measured.logits ? CaptureLevel::kLogits : measured.weights ? CaptureLevel::kWeights : CaptureLevel::kIds;
  header.fields = fields_of(measured);
  header.domains = measured.domains;
  TraceWriterOptions options;
  options.chunk_rows = int(std::clamp<uint64_t>(measured.tokens, 1, kChunkRows));
  options.overwrite = overwrite;
  options.any_name = true;
  SY_TRY(const auto writer, TraceWriter::create(request.target, header, options));
  dumps::DumpWriter sink(*writer, measured, request.options);
  SY_CHECK(format.read(source, request.options, sink));
  SY_CHECK(sink.flush());
  if (writer->tokens() != measured.tokens) return fail(ErrorCode::kMalformed, "changed while it was read.", source.shown());
  return writer->finish(0);
}

}  // namespace

Result<ImportReport> import_trace(const ImportRequest& request, Task* task) {
  SY_CHECK(check_request(request));
  SY_TRY(const DumpSource source, DumpSource::open(request.source));
  SY_TRY(const DumpFormat* const format, choose_format(request, source));
  const fs::path part = request.target.string() + ".part";
  const std::string shown = printable(part.string(), 400);
  std::error_code ignored;
  if (fs::exists(fs::symlink_status(part, ignored)) && !request.overwrite)
    return fail(ErrorCode::kOutput, "exists already.", shown, "Choose another name, or overwrite it with --force.");
  const auto done = run_in_child(request.source, "the reader of " + std::string(format->title), [&] { return import_here(request, *format, source); }, task);
  if (!done) {
    fs::remove(part, ignored);
    return tl::unexpected(done.error());
  }
  ImportReport report;
  SY_TRY(report.trace, read_trace_info(request.target));
  report.format = format->name;
  const Json run = Json::parse(report.trace.run_json, nullptr, false);
  for (const Json& lack : run.value("missing", Json::array())) report.lacks.push_back({lack.value("field", ""), lack.value("disables", "")});
  for (const Json& note : run.value("notes", Json::array())) report.notes.push_back(note.get<std::string>());
  return report;
}

}  // namespace switchyard
