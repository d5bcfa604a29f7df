// Any check of tests/data/analyses/checks.json, whatever its input.
#pragma once

#include <string>
#include <vector>

#include "tests/analysis/expect_fields.h"

namespace switchyard::testing {

inline std::vector<nlohmann::json> all_checks_of(const std::string& analysis) {
  std::vector<nlohmann::json> found;
  for (const auto& check : checks_document()["checks"])
    if (check["analysis"] == analysis) found.push_back(check);
  return found;
}

// All but the examples, which are one optimum of several.
inline void expect_expected(nlohmann::json check, const nlohmann::json& got) {
  for (const char* example : {"example_placement", "example_placement_least_coherent"})
    check["expected"].erase(example);
  expect_fields(check, got, {});
}

}  // namespace switchyard::testing
