// The cases of specs/gating-checks.json that carry a scheme's name, in the order of the file.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard::test {

inline std::vector<nlohmann::json> gating_checks(const std::string& scheme) {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/tests/data/gating-checks.json");
  std::vector<nlohmann::json> out;
  for (const auto& check : nlohmann::json::parse(file))
    if (check.value("scheme", "") == scheme) out.push_back(check);
  return out;
}

}  // namespace switchyard::test
