// Strict JSON with limits: nlohmann's SAX interface into an nlohmann DOM, and typed getters that name
// document and path in every error. Used by every reader of foreign JSON; any thread.
// Rules: reliability.md, sections 4 and 5.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace switchyard {

using Json = nlohmann::json;

struct JsonLimits {
  size_t bytes = 16 << 20;
  int depth = 64;              // nested containers
  size_t values = 50'000'000;  // containers and scalars
};

// text: the whole document. Refused: more than the limits, duplicate keys, invalid UTF-8, integers outside
// [-2^63, 2^64) and reals that overflow, anything after the document. Errors name `document` and the byte or path.
Result<Json> parse_json(std::string_view text, std::string_view document, const JsonLimits& limits = {});

// A value of a parsed document and where it stands. Refers to the Json it was made from.
// Members that are null count as absent: configs write null for "not set".
class JsonView {
 public:
  explicit JsonView(const Json& value, std::string document, std::string path = {})
      : JsonView(value, std::make_shared<const std::string>(std::move(document)), std::move(path)) {}

  const Json& json() const { return *value_; }
  const std::string& document() const { return *document_; }
  const std::string& path() const { return path_; }  // "/rope_scaling/factor"; the document itself: ""

  std::optional<JsonView> find(std::string_view key) const;  // nullopt: absent, null, or this is no object
  bool has(std::string_view key) const { return find(key).has_value(); }
  Result<JsonView> at(std::string_view key) const;

  // This value as a type; the range is inclusive.
  Result<int64_t> as_integer(int64_t min, int64_t max) const;
  Result<double> as_number(double min = std::numeric_limits<double>::lowest(),
                           double max = std::numeric_limits<double>::max()) const;  // integers are numbers too
  Result<bool> as_boolean() const;
  Result<std::string> as_text() const;
  Result<std::vector<JsonView>> as_array() const;
  Result<std::vector<std::pair<std::string, JsonView>>> as_object() const;  // sorted by key

  // A member as a type: at(key), then as above. The _or forms give `fallback` for an absent member.
  Result<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;
  Result<int64_t> integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  Result<double> number(std::string_view key) const;
  Result<double> number_or(std::string_view key, double fallback) const;
  Result<bool> boolean(std::string_view key) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string> text(std::string_view key) const;
  Result<std::string> text_or(std::string_view key, std::string_view fallback) const;
  Result<std::vector<JsonView>> array(std::string_view key) const;
  Result<std::vector<int64_t>> integers(std::string_view key, int64_t min, int64_t max) const;

  // kMalformed at this place: fail("is 3, needs 4 to 8") gives "a.json: /top_k is 3, needs 4 to 8".
  tl::unexpected<Error> fail(std::string_view what, std::string hint = {}) const;

 private:
  JsonView(const Json& value, std::shared_ptr<const std::string> document, std::string path)
      : value_(&value), document_(std::move(document)), path_(std::move(path)) {}
  JsonView element(size_t index) const;
  tl::unexpected<Error> wrong_type(std::string_view needed) const;

  const Json* value_;
  std::shared_ptr<const std::string> document_;
  std::string path_;
};

}  // namespace switchyard
