// Sorts records of single decisions into sequences.
#include "engine/trace/import/routes.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "engine/base/text.h"
#include "engine/trace/import/numbers.h"

namespace switchyard::dumps {
namespace {

constexpr size_t kMaxRecords = 50'000'000;

struct Route {
  uint32_t sequence = 0, line = 0;
  int64_t token = 0;
  int layer = 0;
  size_t first = 0;  // of its slots
  int slots = 0;
};

class Routes {
 public:
  Result<void> add(const Json& record, const RouteKeys& keys, const std::string& place, uint32_t line) {
    const auto refuse = [&](const std::string& what) { return fail(ErrorCode::kMalformed, what, place); };
    for (const char* key : {keys.token, keys.layer})
      if (!record.contains(key) || !record[key].is_number_integer()) return refuse("has no whole number " + quote(key) + ".");
    if (!record.contains(keys.sequence)) return refuse("has no " + quote(keys.sequence) + ".");
    if (routes_.size() == kMaxRecords) return refuse("is behind the " + std::to_string(kMaxRecords) + " records that are read.");
    Route route;
    route.line = line;
    route.sequence = sequence_of(record[keys.sequence].dump());
    route.token = record[keys.token].get<int64_t>();
    const auto layer = record[keys.layer].get<int64_t>();
    if (layer < 0 || layer > 65'535) return refuse("names layer " + std::to_string(layer) + ".");
    route.layer = int(layer);
    route.first = ids_.size();
    if (!record.contains(keys.ids)) return refuse("has no " + quote(keys.ids) + ".");
    SY_TRY(const Numbers ids, numbers(record[keys.ids], place + ": " + keys.ids));
    SY_TRY(const std::vector<ExpertId> found, ids_of(ids.values, place + ": " + keys.ids));
    if (found.size() > 4096) return refuse("has " + std::to_string(found.size()) + " experts.");
    route.slots = int(found.size());
    ids_.insert(ids_.end(), found.begin(), found.end());
    if (record.contains(keys.weights) && !record[keys.weights].is_null()) {
      SY_TRY(const Numbers weights, numbers(record[keys.weights], place + ": " + keys.weights));
      if (weights.values.size() != found.size()) return refuse("has " + std::to_string(found.size()) + " experts and " + std::to_string(weights.values.size()) + " weights.");
      weights_.insert(weights_.end(), weights.values.begin(), weights.values.end());
    } else {
      weighted_ = false;
    }
    routes_.push_back(route);
    return {};
  }

  Result<void> give(const std::string& file, DumpSink& sink) {
    weighted_ = weighted_ && weights_.size() == ids_.size();
    std::stable_sort(routes_.begin(), routes_.end(), [](const Route& a, const Route& b) {
      return std::tie(a.sequence, a.token, a.layer) < std::tie(b.sequence, b.token, b.layer);
    });
    for (size_t first = 0; first < routes_.size();) {
      size_t end = first;
      while (end < routes_.size() && routes_[end].sequence == routes_[first].sequence) ++end;
      SY_CHECK(give_sequence(std::span(routes_).subspan(first, end - first), file, sink));
      first = end;
    }
    return {};
  }

 private:
  uint32_t sequence_of(const std::string& name) { return names_.try_emplace(name, uint32_t(names_.size())).first->second; }

  Result<void> give_sequence(std::span<const Route> routes, const std::string& file, DumpSink& sink) const {
    SY_CHECK(sink.begin_sequence(0));
    constexpr size_t kPiece = 4096;  // tokens
    for (size_t first = 0; first < routes.size();) {
      size_t end = first, tokens = 0;
      for (; end < routes.size(); ++end) {
        const bool fresh = end == first || routes[end].token != routes[end - 1].token;
        if (fresh && tokens == kPiece) break;
        tokens += fresh;
      }
      SY_CHECK(give_piece(routes.subspan(first, end - first), uint32_t(tokens), file, sink));
      first = end;
    }
    return {};
  }

  Result<void> give_piece(std::span<const Route> routes, uint32_t tokens, const std::string& file, DumpSink& sink) const {
    DumpTokens piece;
    piece.where = place(file, routes.front().line);
    piece.tokens = tokens;
    for (const Route& route : routes) {
      piece.slots = std::max(piece.slots, route.slots);
      piece.layers.push_back(route.layer);
    }
    std::sort(piece.layers.begin(), piece.layers.end());
    piece.layers.erase(std::unique(piece.layers.begin(), piece.layers.end()), piece.layers.end());
    const size_t cells = piece.layers.size() * tokens * size_t(piece.slots);
    if (cells > kMaxValues) return fail(ErrorCode::kMalformed, "names more layers and tokens than fit into memory.", piece.where);
    piece.ids.assign(cells, kNoExpert);
    if (weighted_) piece.weights.assign(cells, 0);
    size_t token = 0;
    for (size_t i = 0; i < routes.size(); ++i) {
      const Route& route = routes[i];
      if (i > 0 && route.token != routes[i - 1].token) ++token;
      if (i > 0 && route.token == routes[i - 1].token && route.layer == routes[i - 1].layer)
        return fail(ErrorCode::kMalformed, "names token " + std::to_string(route.token) + " of layer " + std::to_string(route.layer) + " a second time.", place(file, route.line));
      const size_t row = size_t(std::lower_bound(piece.layers.begin(), piece.layers.end(), route.layer) - piece.layers.begin());
      for (int slot = 0; slot < route.slots; ++slot) {
        piece.ids[piece.at(row, token) + size_t(slot)] = ids_[route.first + size_t(slot)];
        if (weighted_) piece.weights[piece.at(row, token) + size_t(slot)] = weights_[route.first + size_t(slot)];
      }
    }
    return sink.tokens(piece);
  }

  std::vector<Route> routes_;
  std::vector<ExpertId> ids_;
  std::vector<double> weights_;
  std::map<std::string, uint32_t> names_;
  bool weighted_ = true;
};

}  // namespace

Result<void> read_routes(const OpenFile& file, const RouteKeys& keys, const ImportOptions& options, DumpSink& sink) {
  Routes routes;
  const auto take = [&](const Json& record, const std::string& place, double fraction, uint64_t number) -> Result<void> {
    if (!record.is_object()) return fail(ErrorCode::kMalformed, "is no object of JSON.", place);
    if (keys.model != nullptr && record.contains(keys.model) && record[keys.model].is_string()) sink.facts.model = printable(record[keys.model].get_ref<const std::string&>(), 200);
    if (!record.contains(keys.ids) && record.contains("type") && record["type"] == "meta") return {};
    SY_CHECK(routes.add(record, keys, place, uint32_t(number)));
    if (number % 1024 == 0) sink.progress(fraction);
    return {};
  };
  SY_CHECK(for_each_line(file, options.line_bytes > 0 ? options.line_bytes : kLineCap, take));
  return routes.give(file.name(), sink);
}

}  // namespace switchyard::dumps
