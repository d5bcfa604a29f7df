// An importer: lines of a file become tokens of a trace. It runs twice over the same bytes, in a process with limits.
#include <sstream>
#include <vector>

#include <switchyard/plugin.hpp>

struct Reader : sy::Reader {
  int probe(std::string_view, std::string_view head) override {
    if (head.empty()) return 0;
    return head.find_first_not_of("0123456789 \n") == head.npos ? 80 : 0;
  }
  void read(const sy_source& source, const sy_sink& sink) override {
    for (uint32_t file = 0; file < source.files; ++file) {
      if (sink.begin_sequence(&sink, 0, "") != 0) return;
      sy::Lines lines(source, file);
      std::string line;
      while (lines.next(line)) {
        std::istringstream words(line);
        std::vector<int32_t> ids;
        for (int32_t id; words >> id;) ids.push_back(id);
        if (ids.empty()) throw std::runtime_error(lines.where() + " names no expert");
        const int32_t layer = 0;
        const std::string where = lines.where();
        const sy_tokens piece{sizeof piece, 1, 1, uint32_t(ids.size()), &layer, ids.data(), nullptr, nullptr, 0, nullptr, where.c_str()};
        if (sink.tokens(&sink, &piece) != 0) return;
      }
    }
  }
};

SWITCHYARD_PLUGIN(plugin) { plugin.reader<Reader>("@ID@.reader"); }
