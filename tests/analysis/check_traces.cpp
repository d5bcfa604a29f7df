// Reads MT1 and makes SYN as tests/data/analyses/checks.json describes it.
#include "tests/analysis/check_traces.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <numeric>

namespace switchyard::testing {
namespace {

uint64_t mix(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

uint64_t hash_of(uint64_t tag, uint64_t a, uint64_t b = 0, uint64_t c = 0) { return mix(mix(mix(mix(tag) + a) + b) + c); }

void place_tokens(CheckTrace& trace, const nlohmann::json& source) {
  const std::vector<int> offset = source["offset"];
  trace.sequences = int(offset.size()) - 1;
  for (int s = 0; s < trace.sequences; ++s) {
    for (int t = offset[s]; t < offset[s + 1]; ++t) {
      trace.sequence.push_back(s);
      trace.position.push_back(t - offset[s]);
      trace.domain.push_back(source["domain"][s]);
      trace.domains = std::max(trace.domains, trace.domain.back() + 1);
    }
  }
}

CheckTrace read_mt1() {
  const auto& source = checks_document()["traces"]["MT1"];
  CheckTrace trace{source["layers"], source["experts"], source["top_k"], int(source["token_id"].size()), {}, {}, source["token_id"]};
  place_tokens(trace, source);
  for (int layer = 0; layer < trace.layers; ++layer) {
    auto& ids = trace.ids.emplace_back();
    auto& logits = trace.logits.emplace_back();
    for (int t = 0; t < trace.tokens; ++t) {
      for (const auto& id : source["expert_id"][layer][t]) ids.push_back(id);
      for (const auto& logit : source["logits"][layer][t]) logits.push_back(logit);
    }
  }
  return trace;
}

// The k experts with the largest logits, falling; the logits of a token differ.
void choose(std::span<const float> logits, int k, std::vector<ExpertId>& out) {
  std::vector<ExpertId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](ExpertId a, ExpertId b) { return logits[a] > logits[b]; });
  out.insert(out.end(), order.begin(), order.begin() + k);
}

CheckTrace make_syn() {
  const auto& source = checks_document()["traces"]["SYN"];
  const std::vector<int> offset = source["offset"];
  CheckTrace trace{source["layers"], source["experts"], source["top_k"], offset.back(), {}, {}, {}};
  place_tokens(trace, source);
  trace.ids.resize(trace.layers);
  trace.logits.resize(trace.layers);
  for (size_t s = 0; s + 1 < offset.size(); ++s) {
    const uint64_t domain = s % 3;
    for (int t = offset[s]; t < offset[s + 1]; ++t) {
      const uint64_t r = hash_of(1, t);
      const uint64_t id = (std::min(r % 64, (r >> 32) % 64) + 8 * domain) % 64;
      trace.token_ids.push_back(static_cast<uint32_t>(id));
      const uint64_t i = t - offset[s];
      for (int l = 0; l < trace.layers; ++l) {
        std::array<float, 16> logits;
        for (int e = 0; e < 16; ++e) {
          const uint64_t c = hash_of(2, l, id, e) % 10 + hash_of(3, l, domain, e) % 6 + hash_of(4, l, 64 * s + i / 8, e) % 8 +
                             hash_of(5, t, (e + 3 * l) % 16) % 8 + hash_of(6, l, t, e) % 6;
          logits[e] = static_cast<float>(16 * c + (7 * e + t) % 16) / 64.0f;
        }
        trace.logits[l].insert(trace.logits[l].end(), logits.begin(), logits.end());
        choose(logits, trace.k, trace.ids[l]);
      }
    }
  }
  for (int l = 0; l < trace.layers; ++l) {
    for (int t = 0; t < trace.tokens; ++t) {
      trace.block_cos.push_back(float(hash_of(9, l, t) % 65) / 64.0f);
      for (const ExpertId e : trace.token(l, t))
        trace.out_norm.push_back(float(32 + hash_of(7, l, t, e) % 97 + 8 * (hash_of(8, l, e) % 16)) / 64.0f);
    }
  }
  return trace;
}

}  // namespace

SlabTrace::SlabTrace(const CheckTrace& trace, bool weights) : out_norm_(trace.out_norm), block_cos_(trace.block_cos),
      token_ids_(trace.token_ids.begin(), trace.token_ids.end()), sequence_(trace.sequence), position_(trace.position), domain_(trace.domain) {
  whole_.tokens = trace.tokens, whole_.rows = trace.layers, whole_.experts = trace.experts, whole_.k = trace.k;
  for (int l = 0; l < trace.layers; ++l) {
    ids_.insert(ids_.end(), trace.ids[l].begin(), trace.ids[l].end());
    logits_.insert(logits_.end(), trace.logits[l].begin(), trace.logits[l].end());
    for (int t = 0; t < trace.tokens; ++t) {
      const auto chosen = trace.token(l, t);
      const float* z = trace.logits[l].data() + size_t(t) * trace.experts;
      double total = 0;
      for (const ExpertId e : chosen) total += std::exp(double(z[e]) - z[chosen[0]]);
      for (const ExpertId e : chosen)
        if (weights) weights_.push_back(float(std::exp(double(z[e]) - z[chosen[0]]) / total));
    }
  }
  point();
}

SlabTrace::SlabTrace(const SlabTrace& of, int first, int tokens) {
  whole_ = of.whole_;
  whole_.tokens = tokens;
  whole_.first_token = first;
  const auto cut = [&](auto& to, const auto& from, size_t rows, size_t width) {
    const size_t per_row = from.size() / rows;
    for (size_t row = 0; row < rows && !from.empty(); ++row)
      to.insert(to.end(), from.begin() + row * per_row + first * width, from.begin() + row * per_row + (first + tokens) * width);
  };
  const size_t rows = whole_.rows, k = whole_.k, experts = whole_.experts;
  cut(ids_, of.ids_, rows, k);
  cut(weights_, of.weights_, rows, k);
  cut(logits_, of.logits_, rows, experts);
  cut(out_norm_, of.out_norm_, rows, k);
  cut(block_cos_, of.block_cos_, rows, 1);
  cut(token_ids_, of.token_ids_, 1, 1);
  cut(sequence_, of.sequence_, 1, 1);
  cut(position_, of.position_, 1, 1);
  cut(domain_, of.domain_, 1, 1);
  point();
}

void SlabTrace::point() {
  whole_.ids = ids_, whole_.weights = weights_, whole_.router_logits = logits_, whole_.out_norm = out_norm_, whole_.block_cos = block_cos_;
  whole_.token_ids = token_ids_, whole_.sequence = sequence_, whole_.position = position_, whole_.domain = domain_;
}

const nlohmann::json& checks_document() {
  static const auto document =
      nlohmann::json::parse(std::ifstream(SWITCHYARD_SOURCE_DIR "/tests/data/analyses/checks.json"));
  return document;
}

const CheckTrace& mt1() {
  static const CheckTrace trace = read_mt1();
  return trace;
}

const CheckTrace& syn() {
  static const CheckTrace trace = make_syn();
  return trace;
}

const CheckTrace& trace_named(const std::string& name) { return name == "MT1" ? mt1() : syn(); }

std::vector<nlohmann::json> checks_of(const std::string& analysis) {
  std::vector<nlohmann::json> found;
  for (const auto& check : checks_document()["checks"]) {
    if (check["analysis"] == analysis && check["input"].is_string()) found.push_back(check);
  }
  return found;
}

std::string difference(double got, double want, double tolerance) {
  if (std::abs(got - want) <= tolerance * std::max(1.0, std::abs(want))) return "";
  return "got " + std::to_string(got) + ", want " + std::to_string(want);
}

}  // namespace switchyard::testing
