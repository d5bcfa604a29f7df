// A small text format of routing decisions:
//   routes 1 8                      format, version, experts of a layer
//   # a remark
//   17 0=3:0.75,5:0.25 1=2:1        token id, then layer=expert:weight,... for each layer
// An empty line ends a sequence. Every token names the same layers.
#include <charconv>
#include <tuple>
#include <vector>

#include <switchyard/plugin.hpp>

struct Routes : sy::Reader {
  int probe(std::string_view, std::string_view head) override { return head.starts_with("routes 1 ") ? 100 : 0; }

  void read(const sy_source& source, const sy_sink& sink) override {
    for (uint32_t file = 0; file < source.files; ++file) {
      sy::Lines lines(source, file);
      std::string line;
      if (!lines.next(line) || !line.starts_with("routes 1 "))
        throw std::runtime_error("the first line is not: routes 1 EXPERTS");
      const char* at = line.data() + 9;
      if (sink.experts(&sink, number<uint32_t>(at, lines)) != 0) return;
      bool inside = false;
      while (lines.next(line)) {
        if (line.starts_with('#')) continue;
        if (line.empty()) {
          inside = false;
          continue;
        }
        if (!inside && sink.begin_sequence(&sink, 0, "") != 0) return;
        inside = true;
        if (!give_token(line, lines, sink)) return;
      }
    }
  }

 private:
  template <class T>
  static T number(const char*& at, const sy::Lines& lines) {
    T value{};
    const char* end = at + std::char_traits<char>::length(at);
    const auto [stop, problem] = std::from_chars(at, end, value);
    if (problem != std::errc())
      throw std::runtime_error(lines.where() + ": needs a number at \"" + std::string(at, end).substr(0, 20) + "\"");
    at = stop;
    return value;
  }
  static void expect(const char*& at, char c, const sy::Lines& lines) {
    if (*at++ != c) throw std::runtime_error(lines.where() + ": needs " + c);
  }

  static bool give_token(const std::string& line, const sy::Lines& lines, const sy_sink& sink) {
    const char* at = line.c_str();
    const auto token = number<uint32_t>(at, lines);
    std::vector<int32_t> layers;
    std::vector<std::vector<std::pair<int32_t, double>>> rows;
    size_t slots = 0;
    while (*at == ' ') {
      layers.push_back(number<int32_t>(++at, lines));
      rows.emplace_back();
      do {
        expect(at, rows.back().empty() ? '=' : ',', lines);
        const auto expert = number<int32_t>(at, lines);
        expect(at, ':', lines);
        rows.back().emplace_back(expert, number<double>(at, lines));
      } while (*at == ',');
      slots = std::max(slots, rows.back().size());
    }
    if (*at || layers.empty()) throw std::runtime_error(lines.where() + ": needs \" LAYER=EXPERT:WEIGHT,...\"");
    std::vector<int32_t> ids(layers.size() * slots, -1);
    std::vector<double> weights(ids.size());
    for (size_t row = 0; row < rows.size(); ++row)
      for (size_t slot = 0; slot < rows[row].size(); ++slot)
        std::tie(ids[row * slots + slot], weights[row * slots + slot]) = rows[row][slot];
    const std::string where = lines.where();
    const sy_tokens piece{sizeof piece,
                          uint32_t(layers.size()),
                          1,
                          uint32_t(slots),
                          layers.data(),
                          ids.data(),
                          weights.data(),
                          nullptr,
                          0,
                          &token,
                          where.c_str()};
    return sink.tokens(&sink, &piece) == 0;
  }
};

SWITCHYARD_PLUGIN(plugin) {
  plugin.reader<Routes>("routes-text.routes");
}
