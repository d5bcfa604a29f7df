// Compares what an analysis gives with a check of checks.json, as its `about.comparison` says.
#pragma once

#include <initializer_list>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/analysis/check_traces.h"

namespace switchyard::testing {

// Reals within the tolerance, everything else equal; arrays element by element, to any depth.
inline void expect_equal(const nlohmann::json& have, const nlohmann::json& want, double tolerance, const std::string& where) {
  if (want.is_array()) {
    ASSERT_TRUE(have.is_array() && have.size() == want.size()) << where << ": " << have.dump().substr(0, 200);
    for (size_t i = 0; i < want.size(); ++i) expect_equal(have[i], want[i], tolerance, where + "/" + std::to_string(i));
  } else if (want.is_object()) {
    for (const auto& [key, value] : want.items()) {
      ASSERT_TRUE(have.contains(key)) << where << " lacks " << key;
      expect_equal(have[key], value, tolerance, where + "/" + key);
    }
  } else if (want.is_number_float()) {
    ASSERT_TRUE(have.is_number()) << where << ": " << have.dump();
    EXPECT_EQ(difference(have, want, tolerance), "") << where;
  } else {
    EXPECT_EQ(have, want) << where;
  }
}

// Every field that the check expects; those that are not computed are listed.
inline void expect_fields(const nlohmann::json& check, const nlohmann::json& got, std::initializer_list<const char*> not_computed) {
  for (const auto& [field, want] : check["expected"].items()) {
    if (std::find(not_computed.begin(), not_computed.end(), field) != not_computed.end()) continue;
    ASSERT_TRUE(got.contains(field)) << check["id"] << " " << field;
    expect_equal(got[field], want, check.value("tolerance", 1e-9), check["id"].get<std::string>() + " " + field);
  }
}

}  // namespace switchyard::testing
