// Tries of importers, exporters and views on small and broken input.
#include <random>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/plugin_host/child/session.h"
#include "engine/plugin_host/environment.h"

namespace switchyard::plugin_child {
namespace {

struct MemorySource {
  sy_source table;
  std::string bytes;
};
struct CountingSink {
  sy_sink table;
  uint64_t tokens;
  std::string wrong;
};

Result<void> unchanged(const ProcessEnvironment& before, const std::string& id) {
  const std::vector<std::string> changed = before.restore();
  if (changed.empty()) return {};
  return fail(ErrorCode::kPlugin, fmt::format("{}: it changed {}", id, changed.front()));
}

}  // namespace

Result<void> try_reader(PluginCode& code, const std::string& id) {
  SY_TRY(const sy_reader reader, code.reader(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  std::mt19937 random(5);
  std::string noise;
  for (int i = 0; i < 5000; ++i) noise += char(random());
  for (const std::string& bytes : {std::string(), std::string("\n\n\n"), std::string(300, 'a'), noise}) {
    MemorySource source{};
    source.bytes = bytes;
    source.table.struct_size = sizeof(sy_source);
    source.table.files = 1;
    source.table.name = [](const sy_source*, uint32_t) { return "try.txt"; };
    source.table.size = [](const sy_source* s, uint32_t) {
      return uint64_t(reinterpret_cast<const MemorySource*>(s)->bytes.size());
    };
    source.table.read = [](const sy_source* s, uint32_t file, uint64_t offset, void* buffer,
                           uint64_t count) -> int64_t {
      const std::string& all = reinterpret_cast<const MemorySource*>(s)->bytes;
      if (file != 0) return -1;
      if (offset >= all.size()) return 0;
      const size_t n = std::min<size_t>(count, all.size() - offset);
      std::memcpy(buffer, all.data() + offset, n);
      return int64_t(n);
    };
    CountingSink sink{};
    sink.table.struct_size = sizeof(sy_sink);
    sink.table.begin_sequence = [](const sy_sink*, uint32_t, const char*) { return 0; };
    sink.table.tokens = [](const sy_sink*, const sy_tokens* piece) { return piece->tokens > 0 && piece->id ? 0 : 1; };
    sink.table.experts = [](const sy_sink*, uint32_t) { return 0; };
    sink.table.model = [](const sy_sink*, const char*) { return 0; };
    sink.table.ranked = [](const sy_sink*) { return 0; };
    sink.table.note = [](const sy_sink*, const char*) { return 0; };
    CallContext ctx;
    int sure = 0;
    code.call(PluginCall::kReader, ctx, [&] {
      sure = reader.probe(code.self(), "try.txt", bytes.data(), std::min<size_t>(bytes.size(), 4096));
      return 0;
    });
    if (sure < 0 || sure > 100)
      return fail(ErrorCode::kPlugin, fmt::format("{}: probe() gives {}, needs 0 to 100", id, sure));
    if (&bytes == &noise && sure >= 50)
      return fail(ErrorCode::kPlugin, fmt::format("{}: probe() takes random bytes for its format ({})", id, sure));
    // It may refuse; it may not die.
    code.call(PluginCall::kReader, ctx, [&] { return reader.read(code.self(), &source.table, &sink.table, &ctx); });
  }
  return unchanged(before, id);
}

Result<void> try_writer(PluginCode& code, const std::string& id) {
  SY_TRY(const sy_writer writer, code.writer(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  static const uint32_t layers[] = {0, 1};
  sy_trace trace{};
  trace.struct_size = sizeof trace;
  trace.rows = 2, trace.experts = 4, trace.k = 2, trace.tokens = 6, trace.sequences = 2, trace.layers = layers;
  trace.holds = [](const sy_trace*, uint32_t field) { return int(field <= SY_FIELD_SEQUENCE); };
  trace.read = [](const sy_trace* asked, uint32_t field, uint32_t row, uint64_t first, uint64_t count, void* buffer,
                  uint64_t bytes) -> int64_t {
    if (row >= asked->rows || first + count > asked->tokens) return -1;
    const uint64_t per = field == SY_FIELD_ID || field == SY_FIELD_WEIGHT ? asked->k
                         : field == SY_FIELD_LOGITS                       ? asked->experts
                                                                          : 1;
    if (count * per * 4 > bytes || field > SY_FIELD_SEQUENCE) return -1;
    for (uint64_t i = 0; i < count * per; ++i) {
      if (field == SY_FIELD_WEIGHT || field == SY_FIELD_LOGITS)
        static_cast<float*>(buffer)[i] = 0.5f;
      else if (field == SY_FIELD_ID)
        static_cast<int32_t*>(buffer)[i] = int32_t((first + i) % asked->experts);
      else
        static_cast<uint32_t*>(buffer)[i] = uint32_t(first + i) / (field == SY_FIELD_SEQUENCE ? 3 : 1);
    }
    return int64_t(count * per * 4);
  };
  struct Sum {
    sy_output table;
    uint64_t bytes;
  };
  Sum sum{};
  sum.table.struct_size = sizeof(sy_output);
  sum.table.write = [](const sy_output* asked, const void*, uint64_t count) {
    const_cast<Sum*>(reinterpret_cast<const Sum*>(asked))->bytes += count;
    return 0;
  };
  CallContext ctx;
  if (!code.call(PluginCall::kWriter, ctx, [&] { return writer.write(code.self(), &trace, &sum.table, &ctx); }))
    return fail(ErrorCode::kPlugin,
                fmt::format("{}: {}", id, ctx.message[0] ? printable(ctx.message, 300) : "write() failed"));
  if (sum.bytes == 0) return fail(ErrorCode::kPlugin, id + ": it wrote nothing for a trace of 6 tokens");
  return unchanged(before, id);
}

Result<void> try_view(PluginCode& code, const std::string& id) {
  SY_TRY(const sy_view view, code.view(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  static const uint32_t layers[] = {0, 1};
  sy_draw draw{};
  draw.struct_size = sizeof draw;
  draw.text = [](const sy_draw*, float, float, int32_t, const char*) {};
  draw.text_width = [](const sy_draw*, const char* text) { return 7.0f * float(std::strlen(text)); };
  draw.line = [](const sy_draw*, float, float, float, float, int32_t, float) {};
  draw.polyline = [](const sy_draw*, const float*, uint32_t, int32_t, float) {};
  draw.rect = [](const sy_draw*, float, float, float, float, int32_t, int32_t) {};
  draw.cells = [](const sy_draw*, float, float, float, float, const float*, uint32_t, uint32_t, float, float) {};
  draw.bars = [](const sy_draw*, float, float, float, float, const float*, uint32_t, float, int32_t) {};
  draw.axis = [](const sy_draw*, float, float, float, float, int32_t, float, float, const char*) {};
  draw.button = [](const sy_draw*, float, float, const char*) { return 0; };
  draw.slider = [](const sy_draw*, float, float, float, const char*, float value, float, float) { return value; };
  draw.item = [](const sy_draw*, const char*, const char*, double, const char*, float, float, float, float) {
    return 0;
  };
  draw.clip = [](const sy_draw*, float, float, float, float) {};
  draw.unclip = [](const sy_draw*) {};
  draw.scroll = [](const sy_draw*, float, float) { return 0.0f; };
  draw.select = [](const sy_draw*, uint32_t, int32_t) {};
  draw.show_token = [](const sy_draw*, uint64_t) {};
  draw.edit = [](const sy_draw*, const char*) {};
  sy_rows rows{};
  rows.struct_size = sizeof rows;
  rows.column = [](const sy_rows*, const char*, const char*) {};
  rows.text = [](const sy_rows*, const char*) {};
  rows.number = [](const sy_rows*, double) {};
  rows.end = [](const sy_rows*) {};
  for (const uint64_t tokens : {0, 1, 50}) {
    for (const bool open : {false, true}) {
      if (!open && tokens > 0) continue;
      sy_view_in in{};
      in.struct_size = sizeof in;
      in.rows = open ? 2 : 0, in.experts = 4, in.k = 2, in.tokens = tokens, in.shown = tokens ? tokens - 1 : 0,
      in.expert = -1;
      in.width = tokens == 1 ? 20 : 640, in.height = tokens == 1 ? 10 : 400, in.line = 18, in.layers = layers;
      in.token = [](const sy_view_in* asked, uint64_t index, uint32_t row, sy_view_token* out) {
        static const int32_t ids[] = {1, 3};
        static const float weights[] = {0.7f, 0.3f}, logits[] = {0, 1, 2, 3};
        if (index >= asked->tokens || row >= asked->rows) return 1;
        sy_view_token full{};
        full.struct_size = out->struct_size;
        full.token_id = 5, full.position = uint32_t(index), full.used = 2, full.slots = 2, full.text = "try",
        full.id = ids, full.weight = weights, full.logits = logits;
        full.entropy = 1, full.margin = 0.5f, full.topk_mass = 0.9f, full.lse = 3;
        std::memcpy(out, &full, std::min<size_t>(out->struct_size, sizeof full));
        return 0;
      };
      CallContext ctx;
      if (!code.call(PluginCall::kDraw, ctx, [&] { return view.draw(code.self(), &in, &draw, &ctx); }))
        return fail(ErrorCode::kPlugin,
                    fmt::format("{}: draw() with {} tokens: {}", id, tokens, printable(ctx.message, 300)));
      if (!code.call(PluginCall::kTable, ctx, [&] { return view.table(code.self(), &in, &rows, &ctx); }))
        return fail(ErrorCode::kPlugin,
                    fmt::format("{}: table() with {} tokens: {}", id, tokens, printable(ctx.message, 300)));
    }
  }
  return unchanged(before, id);
}

}  // namespace switchyard::plugin_child
