// Samples of other programs' dumps under tests/data/foreign, and the one routing that those made by us encode.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/trace/import/import.h"
#include "tests/trace/synthetic.h"

namespace switchyard::testing {

inline std::filesystem::path foreign(const std::string& name) { return std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "tests/data/foreign" / name; }

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void put_bytes(const std::filesystem::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// made-by-us/routing.json: 48 tokens, 32 of them prompt, model layers 1 to 4, 8 experts, top-2 by falling weight.
struct Truth {
  int tokens = 0, prompt = 0, experts = 0, k = 0;
  std::vector<int> layers;
  std::map<int, std::vector<uint64_t>> counts;
  std::map<int, std::vector<std::vector<int>>> ids;
  std::map<int, std::vector<std::vector<double>>> weights;
  std::map<int, std::vector<double>> weight_sums;
};

inline const Truth& truth() {
  static const Truth value = [] {
    const auto json = nlohmann::json::parse(bytes_of(foreign("made-by-us/routing.json")));
    Truth out{json["tokens"], json["prompt_tokens"], json["num_experts"], json["top_k"], json["moe_layers"], {}, {}, {}, {}};
    for (const int layer : out.layers) {
      const std::string key = std::to_string(layer);
      out.counts[layer] = json["counts"][key].get<std::vector<uint64_t>>();
      out.ids[layer] = json["topk_ids"][key].get<std::vector<std::vector<int>>>();
      out.weights[layer] = json["topk_weights"][key].get<std::vector<std::vector<double>>>();
      out.weight_sums[layer] = json["weight_sums"][key].get<std::vector<double>>();
    }
    return out;
  }();
  return value;
}

}  // namespace switchyard::testing
