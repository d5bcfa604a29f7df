// What a reader, writer or report section is handed in switchyard-plugin-host: bytes, sinks and arrays that the program
// has, over the wire. The C table stands first in each, so that its address is the object's. Main thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/plugin_host/wire.h"
#include "switchyard/plugin.h"

namespace switchyard::plugin_child {

// A source whose bytes the program has.
struct RemoteSource {
  sy_source table;
  Wire* wire;
  std::vector<std::pair<std::string, uint64_t>> files;
  bool broken;

  static const RemoteSource& of(const sy_source* source) { return *reinterpret_cast<const RemoteSource*>(source); }
};

struct RemoteSink {
  sy_sink table;
  Wire* wire;

  // 0: the program took it.
  static int give(const sy_sink* sink, const Message& message) {
    Wire& wire = *reinterpret_cast<const RemoteSink*>(sink)->wire;
    if (!wire.send(message)) return 1;
    const auto answer = wire.receive();
    return answer && !answer->has("refused") ? 0 : 1;
  }
};

struct RemoteTrace {
  sy_trace table;
  Wire* wire;
  std::vector<int> holds;
  std::vector<uint32_t> layers;
};
struct RemoteOutput {
  sy_output table;
  Wire* wire;
};

// Where the parts of a report section go.
struct RemoteReport {
  sy_report_out table;
  Wire* wire;
  std::string wrong;  // what of a part could not even be read
};

RemoteSource source_over(Wire& wire, const nlohmann::json& files);
RemoteSink sink_over(Wire& wire);
// told: rows, experts, k, tokens, sequences, layers and holds as the program says them.
RemoteTrace trace_over(Wire& wire, const nlohmann::json& told);
RemoteOutput output_over(Wire& wire);
RemoteReport report_over(Wire& wire);

}  // namespace switchyard::plugin_child
