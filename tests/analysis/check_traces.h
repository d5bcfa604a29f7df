// The two shared test traces of specs/analyses.md: MT1 (in tests/data/analyses/checks.json) and SYN
// (made by arithmetic, about.SYN there), and the expected results that go with them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/analysis/slab.h"
#include "engine/base/ids.h"

namespace switchyard::testing {

struct CheckTrace {
  int layers = 0, experts = 0, k = 0;
  int tokens = 0;
  std::vector<std::vector<ExpertId>> ids;   // [layers][tokens * k]
  std::vector<std::vector<float>> logits;   // [layers][tokens * experts]
  std::vector<uint32_t> token_ids;          // [tokens]
  std::vector<uint32_t> sequence, position; // [tokens]
  std::vector<uint16_t> domain;             // [tokens]
  int sequences = 0, domains = 0;
  std::vector<float> out_norm;              // [layers, tokens, k]; SYN only
  std::vector<float> block_cos;             // [layers, tokens]; SYN only

  std::span<const ExpertId> token(int layer, int t) const { return std::span(ids[layer]).subspan(size_t(t) * k, k); }
};

// A trace as one slab, or cut into slabs of at most `tokens`; weights are the softmax over the chosen logits.
class SlabTrace {
 public:
  // weights: false leaves them out; they are float32, as in a file, and less exact than the logits.
  explicit SlabTrace(const CheckTrace& trace, bool weights = true);
  const RoutingSlab& whole() const { return whole_; }
  // Calls feed(slab, row) for every piece, rows of a piece in turn.
  template <class Feed>
  void walk(int tokens, Feed&& feed) const {
    for (int first = 0; first < whole_.tokens; first += tokens) {
      const SlabTrace piece(*this, first, std::min(tokens, whole_.tokens - first));
      for (int row = 0; row < whole_.rows; ++row) feed(piece.whole(), row);
    }
  }

 private:
  SlabTrace(const SlabTrace& of, int first, int tokens);
  void point();
  RoutingSlab whole_;
  std::vector<ExpertId> ids_;
  std::vector<float> weights_, logits_, out_norm_, block_cos_;
  std::vector<TokenId> token_ids_;
  std::vector<uint32_t> sequence_, position_;
  std::vector<uint16_t> domain_;
};

const nlohmann::json& checks_document();
const CheckTrace& mt1();
const CheckTrace& syn();
const CheckTrace& trace_named(const std::string& name);

// The checks of one analysis, those with MT1 or SYN as input.
std::vector<nlohmann::json> checks_of(const std::string& analysis);

// about.comparison: |got - want| <= tolerance * max(1, |want|). A message when not.
std::string difference(double got, double want, double tolerance);

// about.hash: FNV-1a over the elements, each as `bytes` little-endian bytes; 16 hex digits.
template <class T>
std::string fnv1a64(std::span<const T> values, int bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const T value : values) {
    for (int byte = 0; byte < bytes; ++byte) {
      hash = (hash ^ ((static_cast<uint64_t>(value) >> (8 * byte)) & 0xff)) * 0x100000001b3u;
    }
  }
  std::string text(16, '0');
  for (int digit = 15; digit >= 0; --digit, hash >>= 4) text[digit] = "0123456789abcdef"[hash & 15];
  return text;
}

}  // namespace switchyard::testing
