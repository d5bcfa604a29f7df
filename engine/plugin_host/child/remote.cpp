#include "engine/plugin_host/child/remote.h"

#include <algorithm>
#include <cstring>

#include "engine/plugin_host/code.h"

namespace switchyard::plugin_child {

RemoteSource source_over(Wire& wire, const nlohmann::json& files) {
  RemoteSource out{};
  out.wire = &wire;
  for (const auto& file : files) out.files.emplace_back(file["name"].get<std::string>(), file["size"].get<uint64_t>());
  out.table.struct_size = sizeof(sy_source);
  out.table.files = uint32_t(out.files.size());
  out.table.name = [](const sy_source* s, uint32_t file) {
    return file < RemoteSource::of(s).files.size() ? RemoteSource::of(s).files[file].first.c_str() : "";
  };
  out.table.size = [](const sy_source* s, uint32_t file) {
    return file < RemoteSource::of(s).files.size() ? RemoteSource::of(s).files[file].second : uint64_t(0);
  };
  out.table.read = [](const sy_source* s, uint32_t file, uint64_t offset, void* buffer, uint64_t count) -> int64_t {
    const RemoteSource& source = RemoteSource::of(s);
    if (file >= source.files.size()) return -1;
    Message ask;
    ask.head = {{"bytes_of", file}, {"offset", offset}, {"count", std::min<uint64_t>(count, 16 << 20)}};
    if (!source.wire->send(ask)) return -1;
    const auto answer = source.wire->receive();
    if (!answer || answer->body.size() > count) return -1;
    std::memcpy(buffer, answer->body.data(), answer->body.size());
    return int64_t(answer->body.size());
  };
  return out;
}

RemoteSink sink_over(Wire& wire) {
  RemoteSink out{};
  out.wire = &wire;
  out.table.struct_size = sizeof(sy_sink);
  out.table.begin_sequence = [](const sy_sink* sink, uint32_t prompt, const char* domain) {
    Message message;
    message.head = {{"sequence", true}, {"prompt", prompt}, {"domain", domain ? domain : ""}};
    return RemoteSink::give(sink, message);
  };
  out.table.tokens = [](const sy_sink* sink, const sy_tokens* given) {
    const sy_tokens piece = known_part(given);
    const size_t cells = size_t(piece.layers) * piece.tokens * piece.slots;
    if (!piece.layer || !piece.id || cells > (64 << 20)) return 1;
    Message message;
    message.head = {{"layers", piece.layers},
                    {"tokens", piece.tokens},
                    {"slots", piece.slots},
                    {"where", piece.where ? piece.where : ""}};
    message.put(std::span(piece.layer, piece.layers));
    message.put(std::span(piece.id, cells));
    if (piece.weight) message.head["weights"] = true, message.put(std::span(piece.weight, cells));
    if (piece.logits)
      message.head["logit_experts"] = piece.logit_experts,
      message.put(std::span(piece.logits, size_t(piece.layers) * piece.tokens * piece.logit_experts));
    if (piece.token_ids) message.head["token_ids"] = true, message.put(std::span(piece.token_ids, piece.tokens));
    return RemoteSink::give(sink, message);
  };
  out.table.experts = [](const sy_sink* sink, uint32_t experts) {
    Message message;
    message.head = {{"experts", experts}};
    return RemoteSink::give(sink, message);
  };
  out.table.model = [](const sy_sink* sink, const char* text) {
    Message message;
    message.head = {{"model", text ? text : ""}};
    return RemoteSink::give(sink, message);
  };
  out.table.ranked = [](const sy_sink* sink) {
    Message message;
    message.head = {{"ranked", true}};
    return RemoteSink::give(sink, message);
  };
  out.table.note = [](const sy_sink* sink, const char* text) {
    Message message;
    message.head = {{"note", text ? text : ""}};
    return RemoteSink::give(sink, message);
  };
  return out;
}

RemoteTrace trace_over(Wire& wire, const nlohmann::json& told) {
  RemoteTrace out{};
  out.wire = &wire;
  out.layers = told.at("layers").get<std::vector<uint32_t>>();
  out.holds = told.at("holds").get<std::vector<int>>();
  out.table.struct_size = sizeof(sy_trace);
  out.table.rows = told.at("rows"), out.table.experts = told.at("experts"), out.table.k = told.at("k");
  out.table.tokens = told.at("tokens"), out.table.sequences = told.at("sequences");
  out.table.layers = out.layers.data();
  out.table.read = [](const sy_trace* asked, uint32_t field, uint32_t row, uint64_t first, uint64_t count, void* buffer,
                      uint64_t bytes) -> int64_t {
    const auto& trace = *reinterpret_cast<const RemoteTrace*>(asked);
    if (!trace.table.holds(asked, field)) return -1;
    Message ask;
    ask.head = {{"field", field}, {"row", row}, {"first", first}, {"count", count}};
    if (!trace.wire->send(ask)) return -1;
    const auto answer = trace.wire->receive();
    if (!answer || answer->has("none") || answer->body.size() > bytes) return -1;
    std::memcpy(buffer, answer->body.data(), answer->body.size());
    return int64_t(answer->body.size());
  };
  out.table.holds = [](const sy_trace* asked, uint32_t field) {
    const auto& holds = reinterpret_cast<const RemoteTrace*>(asked)->holds;
    return field < holds.size() ? holds[field] : 0;
  };
  return out;
}

RemoteOutput output_over(Wire& wire) {
  RemoteOutput output{};
  output.wire = &wire;
  output.table.struct_size = sizeof(sy_output);
  output.table.write = [](const sy_output* asked, const void* bytes, uint64_t count) {
    Wire& wire = *reinterpret_cast<const RemoteOutput*>(asked)->wire;
    for (uint64_t at = 0; at < count;) {
      Message part;
      const uint64_t size = std::min<uint64_t>(count - at, 16 << 20);
      part.head["write"] = true;
      part.body.assign(static_cast<const char*>(bytes) + at, size);
      if (!wire.send(part) || !wire.receive()) return 1;
      at += size;
    }
    return 0;
  };
  return output;
}

}  // namespace switchyard::plugin_child
