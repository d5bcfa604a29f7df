// An exporter: reads a trace through the program and gives bytes back to it.
#include <algorithm>
#include <string>

#include <switchyard/plugin.hpp>

struct Writer : sy::Writer {
  void write(const sy_trace& trace, const std::function<void(std::string_view)>& out) override {
    constexpr uint64_t kAtOnce = 4096;
    for (uint64_t first = 0; first < trace.tokens; first += kAtOnce) {
      const uint64_t count = std::min(kAtOnce, trace.tokens - first);
      const auto ids = values<int32_t>(trace, SY_FIELD_ID, 0, first, count, trace.k);
      std::string text;
      for (size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] >= 0) text += (i % trace.k ? " " : "") + std::to_string(ids[i]);
        if (i % trace.k + 1 == trace.k) text += "\n";
      }
      out(text);
    }
  }
};

SWITCHYARD_PLUGIN(plugin) { plugin.writer<Writer>("@ID@.writer"); }
