// Importers and exporters of plugins in the registries of dump and export formats: bytes and arrays go through the
// program, the plugin runs in a process of its own that sees no file.
#include <fnmatch.h>

#include <algorithm>
#include <deque>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/plugin_host/host.h"
#include "engine/plugin_host/trace_fields.h"
#include "engine/trace/export/writers.h"
#include "engine/trace/import/dump.h"
#include "engine/trace/import/source.h"

namespace switchyard {
namespace {

constexpr uint64_t kMostPiece = 4 << 20;  // tokens, layers times slots: of one piece

const char* keep(std::string text) {
  static std::deque<std::string> kept;
  return kept.emplace_back(std::move(text)).c_str();
}

bool fits(const Contribution& contribution, const std::string& name) {
  return std::any_of(contribution.patterns.begin(), contribution.patterns.end(), [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0;
  });
}

// Files of the source that the plugin asks for.
std::vector<std::string> files_of(const Contribution& contribution, const dumps::DumpSource& source) {
  std::vector<std::string> out;
  for (const std::string& name : source.names())
    if (!source.is_folder() || fits(contribution, name)) out.push_back(name);
  return out;
}

bool recognises(const Plugin& plugin, const Contribution& contribution, const dumps::DumpSource& source) {
  if (!plugin.why_not().empty()) return false;
  for (const std::string& name : files_of(contribution, source)) {
    if (!fits(contribution, name)) continue;
    const auto child = plugin.child(PluginKind::kReader, contribution.id);
    if (!child) return false;
    Message probe;
    probe.head = {{"op", "probe"}, {"file", name}};
    probe.body = source.start_of(name);
    const auto sure = (*child)->ask(probe);
    if (sure && sure->number("sure") >= 50) return true;
  }
  return false;
}

// One message of a reader into the sink.
class ReaderCall {
 public:
  ReaderCall(const Plugin& plugin, const dumps::DumpSource& source, std::vector<std::string> names,
             dumps::DumpSink& sink)
      : plugin_(plugin), source_(source), names_(std::move(names)), sink_(sink) {}

  Result<void> run(PluginChild& child) {
    Message begin;
    begin.head = {{"op", "read"}, {"files", nlohmann::json::array()}};
    for (const std::string& name : names_) {
      SY_TRY(OpenFile file, source_.file(name));
      begin.head["files"].push_back({{"name", name}, {"size", file.size()}});
      files_.push_back(std::move(file));
    }
    SY_TRY(Message message, child.ask(begin));
    for (;;) {
      if (message.has("done")) return {};
      SY_TRY(const Message answer, answer_to(message));
      sink_.progress(fraction_);
      SY_TRY(message, child.ask(answer));
    }
  }

 private:
  Result<Message> answer_to(Message& message) {
    Message out;
    if (message.has("bytes_of")) {
      const uint64_t file = message.number("bytes_of"), offset = message.number("offset");
      if (file >= files_.size()) return wrong("asks for a file that is not there");
      const uint64_t size = files_[file].size(),
                     count = std::min({message.number("count"), size - std::min(offset, size), uint64_t(16) << 20});
      out.body.resize(count);
      if (count > 0) SY_CHECK(files_[file].read(offset, std::span(out.body)));
      if (size > 0) fraction_ = std::min(1.0, double(offset + count) / double(size));
      return out;
    }
    if (message.has("sequence")) {
      SY_CHECK(sink_.begin_sequence(uint32_t(std::min<uint64_t>(message.number("prompt"), UINT32_MAX)),
                                    printable(message.text("domain"), 200)));
      return out;
    }
    if (message.has("tokens")) {
      SY_CHECK(tokens(message));
      return out;
    }
    if (message.has("experts"))
      sink_.facts.experts = int(std::min<uint64_t>(message.number("experts"), 65'534));
    else if (message.has("model"))
      sink_.facts.model = printable(message.text("model"), 200);
    else if (message.has("ranked"))
      sink_.facts.ranked = true;
    else if (message.has("note"))
      sink_.facts.note(printable(message.text("note"), 400));
    else
      return wrong("sends what is no message");
    return out;
  }

  Result<void> tokens(Message& message) {
    dumps::DumpTokens piece;
    const uint64_t layers = message.number("layers"), tokens = message.number("tokens"),
                   slots = message.number("slots"), experts = message.number("logit_experts");
    if (layers == 0 || tokens == 0 || slots == 0 || layers > 2048 || slots > 4096 || experts > 65'534 ||
        tokens > kMostPiece || layers * tokens * std::max(slots, experts) > 16 * kMostPiece)
      return tl::unexpected(
          wrong(fmt::format("gives a piece of {} layers, {} tokens and {} slots", layers, tokens, slots)).value());
    const size_t cells = layers * tokens * slots;
    std::vector<int32_t> rows, ids;
    bool whole = message.take(layers, rows) && message.take(cells, ids);
    if (message.has("weights")) whole = whole && message.take(cells, piece.weights);
    if (experts > 0) whole = whole && message.take(layers * tokens * experts, piece.logits);
    if (message.has("token_ids")) whole = whole && message.take(tokens, piece.token_ids);
    if (!whole) return tl::unexpected(wrong("gives a piece with fewer values than its shape").value());
    piece.where = printable(message.text("where"), 200);
    piece.tokens = uint32_t(tokens);
    piece.slots = int(slots);
    piece.logit_experts = int(experts);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] < 0 || rows[i] > 65'535 ||
          std::find(rows.begin(), rows.begin() + ptrdiff_t(i), rows[i]) != rows.begin() + ptrdiff_t(i))
        return fail(ErrorCode::kMalformed, fmt::format("layer {} is named twice or cannot be.", rows[i]), piece.where);
      piece.layers.push_back(rows[i]);
    }
    piece.ids.reserve(cells);
    for (const int32_t id : ids) {
      if (id < -1 || id >= int32_t(kNoExpert))
        return fail(ErrorCode::kMalformed, fmt::format("there is no expert {}.", id), piece.where);
      piece.ids.push_back(id < 0 ? kNoExpert : ExpertId(id));
    }
    return sink_.tokens(piece);
  }

  tl::unexpected<Error> wrong(const std::string& what) const {
    return fail(ErrorCode::kPlugin, fmt::format("the plugin {} {}.", plugin_.id(), what));
  }

  const Plugin& plugin_;
  const dumps::DumpSource& source_;
  std::vector<std::string> names_;
  std::vector<OpenFile> files_;
  dumps::DumpSink& sink_;
  double fraction_ = 0;
};

Result<void> read_dump(const Plugin& plugin, const Contribution& contribution, const dumps::DumpSource& source,
                       dumps::DumpSink& sink) {
  std::vector<std::string> names = files_of(contribution, source);
  if (names.empty())
    return fail(ErrorCode::kMalformed, "has no file that the plugin " + plugin.id() + " reads.", source.shown());
  SY_TRY(const auto child, plugin.child(PluginKind::kReader, contribution.id));
  sink.facts.note(
      fmt::format("read by the plugin {} {} (sha256:{})", plugin.id(), plugin.manifest().version, plugin.sha256()));
  return ReaderCall(plugin, source, std::move(names), sink).run(*child);
}

Result<void> write_dump(const Plugin& plugin, const Contribution& contribution, exports::Job& job) {
  SY_CHECK(job.need("/routing/expert_id"));
  for (const std::string& field : contribution.needs) SY_CHECK(job.need(field));
  SY_TRY(const auto child, plugin.child(PluginKind::kWriter, contribution.id, job.task));
  Message begin;
  begin.head["op"] = "write";
  describe_trace(job.info(), begin.head);
  SY_CHECK(job.files.begin());
  SY_TRY(Message message, child->ask(begin));
  while (!message.has("done")) {
    Message answer;
    if (message.has("field")) {
      SY_TRY(answer, trace_values(*job.trace, message));
    } else if (message.has("write")) {
      SY_CHECK(job.files.write(message.body));
    } else {
      return fail(ErrorCode::kPlugin, fmt::format("the plugin {} sends what is no message.", plugin.id()));
    }
    if (job.task && job.task->cancelled()) return fail(ErrorCode::kCancelled, "stopped.");
    SY_TRY(message, child->ask(answer));
  }
  job.notes.push_back(
      fmt::format("Written by the plugin {} {} (sha256:{}).", plugin.id(), plugin.manifest().version, plugin.sha256()));
  return {};
}

}  // namespace

void register_plugin_readers(PluginHost& host) {
  std::vector<dumps::DumpFormat> added;
  for (const auto& [plugin, contribution] : host.contributions(PluginKind::kReader)) {
    std::string patterns;
    for (const std::string& pattern : contribution->patterns) patterns += (patterns.empty() ? "" : ", ") + pattern;
    added.push_back({contribution->id.c_str(), keep(contribution->title + " (plugin " + plugin->id() + ")"),
                     keep(patterns), contribution->lacks.c_str(),
                     [plugin = plugin, contribution = contribution](const dumps::DumpSource& source) {
                       return recognises(*plugin, *contribution, source);
                     },
                     [plugin = plugin, contribution = contribution](
                         const dumps::DumpSource& source, const dumps::ImportOptions&, dumps::DumpSink& sink) {
                       return read_dump(*plugin, *contribution, source, sink);
                     }});
  }
  dumps::add_formats(std::move(added));
}

void register_plugin_writers(PluginHost& host) {
  std::vector<ExportFormat> added;
  for (const auto& [plugin, contribution] : host.contributions(PluginKind::kWriter))
    added.push_back({contribution->id.c_str(), keep(contribution->title + " (plugin " + plugin->id() + ")"), false,
                     [plugin = plugin, contribution = contribution](exports::Job& job) {
                       return write_dump(*plugin, *contribution, job);
                     }});
  add_export_formats(std::move(added));
}

}  // namespace switchyard
