// Strict JSON with limits. Any thread.
#include "engine/base/json.h"

#include <string>
#include <utility>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

// Builds the DOM and refuses what nlohmann's own builder lets pass: depth, duplicates, counts, huge integers.
class DomBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit DomBuilder(const JsonLimits& limits) : limits_(limits) {}

  Json take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return place(Json()); }
  bool boolean(bool value) override { return place(Json(value)); }
  bool number_integer(int64_t value) override { return place(Json(value)); }
  bool number_unsigned(uint64_t value) override { return place(Json(value)); }
  bool number_float(double value, const std::string& spelling) override {
    if (spelling.find_first_of(".eE") == std::string::npos)
      return refuse(fmt::format("holds the integer {}, which is out of range", printable(spelling, 40)));
    return place(Json(value));
  }
  bool string(std::string& value) override { return place(Json(std::move(value))); }
  bool binary(Json::binary_t&) override { return refuse("holds binary data"); }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    auto& members = *open_.back().container->get_ptr<Json::object_t*>();
    const auto [member, is_new] = members.try_emplace(std::move(name));
    open_.back().key = &member->first;
    open_.back().slot = &member->second;
    return is_new || refuse("appears twice");
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // what() is "[json.exception.parse_error.101] parse error at line 1, column 5: <reason>".
    std::string_view reason = error.what();
    if (const size_t column = reason.find("column "); column != std::string_view::npos) {
      if (const size_t colon = reason.find(": ", column); colon != std::string_view::npos)
        reason.remove_prefix(colon + 2);
    } else if (const size_t bracket = reason.find("] "); bracket != std::string_view::npos) {
      reason.remove_prefix(bracket + 2);
    }
    problem_ = fmt::format("not valid JSON at byte {}: {}", position, printable(reason, 240));
    return false;
  }

 private:
  struct Open {
    Json* container;
    const std::string* key = nullptr;  // of the member being read, inside `container`
    Json* slot = nullptr;              // and its value
  };

  bool open(Json container) {
    if (open_.size() >= static_cast<size_t>(limits_.depth))
      return refuse(fmt::format("is nested deeper than {} levels", limits_.depth));
    if (!place(std::move(container))) return false;
    open_.push_back({placed_});
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  // Pointers stay good: only the innermost container grows.
  bool place(Json value) {
    if (++values_ > limits_.values) return refuse(fmt::format("has more than {} values", limits_.values));
    if (open_.empty()) {
      root_ = std::move(value);
      placed_ = &root_;
    } else if (open_.back().container->is_array()) {
      auto& elements = *open_.back().container->get_ptr<Json::array_t*>();
      elements.push_back(std::move(value));
      placed_ = &elements.back();
    } else {
      placed_ = open_.back().slot;
      *placed_ = std::move(value);
    }
    return true;
  }
  bool refuse(std::string reason) {
    std::string path;
    for (const Open& level : open_) {
      // Outer arrays already hold the element being read, the innermost one does not.
      const bool innermost = &level == &open_.back();
      if (level.container->is_array())
        path += fmt::format("/{}", level.container->size() - (innermost ? 0 : 1));
      else if (level.key)
        path += "/" + printable(*level.key);
    }
    problem_ = (path.empty() ? "the document" : path) + " " + std::move(reason);
    return false;
  }

  JsonLimits limits_;
  Json root_;
  Json* placed_ = nullptr;
  std::vector<Open> open_;
  size_t values_ = 0;
  std::string problem_;
};

std::string_view kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

// Scalars in full, containers by kind.
std::string shown(const Json& value) {
  if (value.is_structured()) return std::string(kind_of(value));
  if (value.is_string()) return quote(*value.get_ptr<const std::string*>());
  return value.dump();
}

// nlohmann holds what is not negative as unsigned.
std::optional<int64_t> integer_in(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return std::nullopt;
  const auto number = value.get<int64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view document, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    return fail(ErrorCode::kMalformed,
                fmt::format("has {} bytes, more than the limit of {}", text.size(), limits.bytes),
                std::string(document));
  // nlohmann takes a NUL for the end of the text and would not look at the rest.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)
    return fail(ErrorCode::kMalformed, fmt::format("not valid JSON at byte {}: a NUL", nul + 1), std::string(document));
  DomBuilder builder(limits);
  if (!Json::sax_parse(text.begin(), text.end(), &builder))
    return fail(ErrorCode::kMalformed, builder.problem(), std::string(document));
  return builder.take();
}

tl::unexpected<Error> JsonView::fail(std::string_view what, std::string hint) const {
  return switchyard::fail(ErrorCode::kMalformed, path_.empty() ? std::string(what) : fmt::format("{} {}", path_, what),
                          *document_, std::move(hint));
}

tl::unexpected<Error> JsonView::wrong_type(std::string_view needed) const {
  return fail(fmt::format("is {}, needs {}", shown(*value_), needed));
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  if (!value_->is_object()) return std::nullopt;
  const auto member = value_->find(key);
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonView(*member, document_, path_ + "/" + printable(key));
}

Result<JsonView> JsonView::at(std::string_view key) const {
  if (!value_->is_object()) return wrong_type("an object");
  if (auto member = find(key)) return *member;
  return switchyard::fail(ErrorCode::kMalformed, fmt::format("{}/{} is missing", path_, printable(key)), *document_);
}

Result<int64_t> JsonView::as_integer(int64_t min, int64_t max) const {
  if (!value_->is_number_integer()) return wrong_type("an integer");
  if (const auto number = integer_in(*value_, min, max)) return *number;
  return fail(fmt::format("is {}, needs {} to {}", shown(*value_), min, max));
}

Result<double> JsonView::as_number(double min, double max) const {
  if (!value_->is_number()) return wrong_type("a number");
  const double number = value_->get<double>();
  if (number < min || number > max) return fail(fmt::format("is {}, needs {} to {}", shown(*value_), min, max));
  return number;
}

Result<bool> JsonView::as_boolean() const {
  if (!value_->is_boolean()) return wrong_type("true or false");
  return value_->get<bool>();
}

Result<std::string> JsonView::as_text() const {
  if (!value_->is_string()) return wrong_type("a string");
  return value_->get<std::string>();
}

Result<std::vector<JsonView>> JsonView::as_array() const {
  if (!value_->is_array()) return wrong_type("an array");
  std::vector<JsonView> elements;
  elements.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) elements.push_back(element(i));
  return elements;
}

JsonView JsonView::element(size_t index) const {
  return JsonView((*value_)[index], document_, fmt::format("{}/{}", path_, index));
}

Result<std::vector<std::pair<std::string, JsonView>>> JsonView::as_object() const {
  if (!value_->is_object()) return wrong_type("an object");
  std::vector<std::pair<std::string, JsonView>> members;
  members.reserve(value_->size());
  for (const auto& [key, value] : value_->items())
    members.emplace_back(key, JsonView(value, document_, path_ + "/" + printable(key)));
  return members;
}

Result<int64_t> JsonView::integer(std::string_view key, int64_t min, int64_t max) const {
  return at(key).and_then([&](const JsonView& member) { return member.as_integer(min, max); });
}
Result<int64_t> JsonView::integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  if (const auto member = find(key)) return member->as_integer(min, max);
  return fallback;
}
Result<double> JsonView::number(std::string_view key) const {
  return at(key).and_then([](const JsonView& member) { return member.as_number(); });
}
Result<double> JsonView::number_or(std::string_view key, double fallback) const {
  if (const auto member = find(key)) return member->as_number();
  return fallback;
}
Result<bool> JsonView::boolean(std::string_view key) const {
  return at(key).and_then([](const JsonView& member) { return member.as_boolean(); });
}
Result<bool> JsonView::boolean_or(std::string_view key, bool fallback) const {
  if (const auto member = find(key)) return member->as_boolean();
  return fallback;
}
Result<std::string> JsonView::text(std::string_view key) const {
  return at(key).and_then([](const JsonView& member) { return member.as_text(); });
}
Result<std::string> JsonView::text_or(std::string_view key, std::string_view fallback) const {
  if (const auto member = find(key)) return member->as_text();
  return std::string(fallback);
}
Result<std::vector<JsonView>> JsonView::array(std::string_view key) const {
  return at(key).and_then([](const JsonView& member) { return member.as_array(); });
}

Result<std::vector<int64_t>> JsonView::integers(std::string_view key, int64_t min, int64_t max) const {
  SY_TRY(const JsonView list, at(key));
  if (!list.json().is_array()) return list.wrong_type("an array");
  std::vector<int64_t> numbers;
  numbers.reserve(list.json().size());
  for (const Json& value : list.json()) {
    const auto number = integer_in(value, min, max);
    if (!number) return tl::unexpected<Error>(list.element(numbers.size()).as_integer(min, max).error());
    numbers.push_back(*number);
  }
  return numbers;
}

}  // namespace switchyard
