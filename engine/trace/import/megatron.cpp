// Megatron-LM router trace: JSONL, one record a step, block and layer; logits in a binary file beside it (formats.md F4).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "engine/base/text.h"
#include "engine/model/dtype.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {
namespace {

// The records of one step, which come layer by layer.
struct Step {
  int64_t number = -1;
  DumpTokens piece;
  bool logits = true;
};

class Trace {
 public:
  Trace(const DumpSource& source, const ImportOptions& options, DumpSink& sink) : source_(source), options_(options), sink_(sink) {}

  Result<void> read(const std::string& name) {
    SY_TRY(const OpenFile file, source_.file(name));
    name_ = name;
    logits_.reset();
    looked_ = false;
    SY_CHECK(sink_.begin_sequence(0));
    SY_CHECK(for_each_line(file, options_.line_bytes > 0 ? options_.line_bytes : kLineCap,
                           [&](const Json& record, const std::string& place, double fraction, uint64_t) -> Result<void> {
                             SY_CHECK(add(JsonView(record, place)));
                             sink_.progress(fraction);
                             return {};
                           }));
    return give();
  }

 private:
  Result<void> add(const JsonView& record) {
    SY_TRY(const std::string block, record.text("block"));
    if (block == "mtp") {
      sink_.facts.note("records of the multi-token prediction block are left out: they share layer numbers with the decoder");
      return {};
    }
    if (block != "decoder") return record.fail("is of block " + quote(block) + "; \"decoder\" and \"mtp\" are known.");
    SY_TRY(const int64_t number, record.integer("step", 0, INT64_MAX));
    SY_TRY(const int64_t layer, record.integer("layer", 0, 65'535));
    SY_TRY(const int64_t tokens, record.integer("num_tokens", 0, INT32_MAX));
    SY_TRY(const int64_t slots, record.integer("topk", 1, 4096));
    SY_TRY(const JsonView indices, record.at("top_indices"));
    SY_TRY(const Numbers ids, numbers(indices.json(), record.document() + ": top_indices"));
    if (ids.values.size() != size_t(tokens) * size_t(slots))
      return record.fail("has " + std::to_string(ids.values.size()) + " top_indices for " + std::to_string(tokens) + " tokens of topk " + std::to_string(slots) + "");
    DumpTokens& piece = step_.piece;
    const bool again = std::find(piece.layers.begin(), piece.layers.end(), int(layer)) != piece.layers.end();
    if (number != step_.number || again) SY_CHECK(give());
    if (piece.layers.empty()) {
      step_.number = number;
      piece.where = record.document();
      piece.tokens = uint32_t(tokens);
      piece.slots = int(slots);
    }
    if (piece.tokens != uint32_t(tokens) || piece.slots != int(slots))
      return record.fail("has " + std::to_string(tokens) + " tokens of topk " + std::to_string(slots) + ", the layers before have " + std::to_string(piece.tokens) + " and " + std::to_string(piece.slots) + "");
    SY_TRY(const std::vector<ExpertId> row, ids_of(ids.values, record.document() + ": top_indices"));
    piece.layers.push_back(int(layer));
    piece.ids.insert(piece.ids.end(), row.begin(), row.end());
    return add_logits(record);
  }

  Result<void> add_logits(const JsonView& record) {
    if (!step_.logits || !record.has("logit_offset")) {
      step_.logits = false;
      return {};
    }
    SY_TRY(const int64_t offset, record.integer("logit_offset", 0, INT64_MAX));
    SY_TRY(const int64_t bytes, record.integer("logit_bytes", 0, INT64_MAX));
    SY_TRY(const std::vector<int64_t> shape, record.integers("logit_shape", 0, INT32_MAX));
    SY_TRY(const int64_t rank, record.integer("rank", 0, 1'000'000));
    DumpTokens& piece = step_.piece;
    if (shape.size() != 2 || shape[0] != int64_t(piece.tokens) || shape[1] < 1 || shape[1] > 65'535 || bytes != 2 * shape[0] * shape[1])
      return record.fail("has logit_shape and logit_bytes that do not fit its " + std::to_string(piece.tokens) + " tokens");
    SY_CHECK(open_logits(rank));
    if (!logits_) {
      step_.logits = false;
      return {};
    }
    if (uint64_t(offset) > logits_->size() || uint64_t(bytes) > logits_->size() - uint64_t(offset))
      return record.fail("points to bytes " + std::to_string(offset) + " to " + std::to_string(uint64_t(offset) + uint64_t(bytes)) + " of " + logits_->name() + ", which has " + std::to_string(logits_->size()) + "");
    if (piece.logit_experts != 0 && piece.logit_experts != int(shape[1])) return record.fail("has logits of " + std::to_string(shape[1]) + " experts, the layers before of " + std::to_string(piece.logit_experts) + "");
    piece.logit_experts = int(shape[1]);
    std::string raw(size_t(bytes), '\0');
    SY_CHECK(logits_->read(uint64_t(offset), raw));
    for (size_t at = 0; at < raw.size(); at += 2) {
      uint16_t stored = 0;
      std::memcpy(&stored, raw.data() + at, 2);
      const float value = float_of_bf16(stored);
      piece.logits.push_back(options_.router_output == ImportOptions::RouterOutput::kProbabilities ? std::log(std::max(value, 1e-30f)) : value);
    }
    return {};
  }

  Result<void> open_logits(int64_t rank) {
    if (looked_) return {};
    looked_ = true;
    const std::string name = "logits_rank" + std::to_string(rank) + ".bin";
    if (!source_.has(name)) {
      sink_.facts.note("the records name logits, but " + name + " is not beside them");
      return {};
    }
    SY_TRY(OpenFile opened, source_.file(name));
    logits_ = std::make_unique<OpenFile>(std::move(opened));
    return {};
  }

  // More than one token in a step begins a sequence; single ones go on with it.
  Result<void> give() {
    DumpTokens& piece = step_.piece;
    if (piece.layers.empty()) return {};
    if (!step_.logits) {
      piece.logits.clear();
      piece.logit_experts = 0;
    } else {
      sink_.facts.note("slots are ranked by the router's logits");
    }
    sink_.facts.note("a step of more than one token begins a sequence, single tokens go on with it");
    const bool prompt = piece.tokens > 1;
    piece.phases.assign(piece.tokens, prompt ? 0 : 1);
    if (prompt) SY_CHECK(sink_.begin_sequence(piece.tokens));
    SY_CHECK(sink_.tokens(piece));
    step_ = {};
    return {};
  }

  const DumpSource& source_;
  const ImportOptions& options_;
  DumpSink& sink_;
  std::string name_;
  Step step_;
  std::unique_ptr<OpenFile> logits_;
  bool looked_ = false;
};

bool is_trace(const DumpSource& source, const std::string& name) {
  return name.find("router_trace_rank") != std::string::npos && name.ends_with(".jsonl") && source.start_of(name, 4096).find("\"top_indices\"") != std::string::npos;
}

}  // namespace

bool recognises_megatron(const DumpSource& source) {
  return std::any_of(source.names().begin(), source.names().end(), [&](const std::string& name) { return is_trace(source, name); });
}

Result<void> read_megatron(const DumpSource& source, const ImportOptions& options, DumpSink& sink) {
  Trace trace(source, options, sink);
  if (!source.is_folder()) return trace.read(source.names().front());
  bool any = false;
  for (const std::string& name : source.names()) {
    if (!is_trace(source, name)) continue;
    any = true;
    SY_CHECK(trace.read(name));
  }
  if (!any) return fail(ErrorCode::kNotFound, "holds no router_trace_rank{r}.jsonl.", source.shown());
  return {};
}

}  // namespace switchyard::dumps
