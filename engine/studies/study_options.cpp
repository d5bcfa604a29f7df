// See study_options.h.
#include "engine/studies/study_options.h"

namespace switchyard {
namespace {

std::string flag_of(const StudyOption& option) {
  return "--" + std::string(option.name);
}

template <class T>
bool is_number(std::string_view text, double least, double most) {
  T value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  return problem == std::errc() && end == text.data() + text.size() && double(value) >= least && double(value) <= most;
}

// A whole number beyond 2^63 is a seed, and read as such.
bool is_whole(std::string_view text, const StudyOption& option) {
  return option.least < 0 ? is_number<int64_t>(text, option.least, option.most)
                          : is_number<uint64_t>(text, option.least, option.most);
}

std::string joined(std::span<const char* const> words) {
  std::string out;
  for (const char* word : words) out += (out.empty() ? "" : ", ") + std::string(word);
  return out;
}

Result<void> check_value(const StudyOption& option, std::string_view value) {
  const auto misfit = [&](const std::string& needs) {
    return fail(ErrorCode::kUsage, "is " + quote(value, 40) + ", needs " + needs + ".", flag_of(option));
  };
  if (option.check != nullptr) {
    auto checked = option.check(value);
    if (!checked && checked.error().where.empty()) checked.error().where = flag_of(option);
    return checked;
  }
  switch (option.kind) {
    case OptionKind::kWhole:
      if (!is_whole(value, option))
        return misfit(fmt::format("a whole number from {} to {}", option.least, option.most));
      break;
    case OptionKind::kReal:
      if (!is_number<double>(value, option.least, option.most))
        return misfit(fmt::format("a number from {} to {}", option.least, option.most));
      break;
    case OptionKind::kChoice:
      if (std::find(option.choices.begin(), option.choices.end(), value) == option.choices.end())
        return misfit("one of " + joined(option.choices));
      break;
    case OptionKind::kList:
      if (option.most > option.least) SY_CHECK(numbers_of<double>(value, flag_of(option), option.least, option.most));
      break;
    case OptionKind::kSwitch:
    case OptionKind::kFile:
      break;
  }
  return {};
}

}  // namespace

StudyOptions::StudyOptions(std::span<const StudyOption> table) : table_(table) {
  for (const StudyOption& option : table) values_.emplace_back(option.standard);
}

Result<void> StudyOptions::set(std::string_view name, std::string_view value) {
  const auto option =
      std::find_if(table_.begin(), table_.end(), [&](const StudyOption& one) { return name == one.name; });
  if (option == table_.end()) {
    std::string names;
    for (const StudyOption& one : table_) names += (names.empty() ? "" : ", ") + flag_of(one);
    return fail(ErrorCode::kUsage, "is no option of this study.", "--" + std::string(name), "It takes " + names + ".");
  }
  std::string& held = values_[size_t(option - table_.begin())];
  if (option->kind == OptionKind::kSwitch) {
    held = "on";
    return {};
  }
  const bool may_be_empty = !option->required && *option->standard == '\0';
  if (!value.empty() || !may_be_empty) SY_CHECK(check_value(*option, value));
  held = value;
  return {};
}

Result<void> StudyOptions::complete() const {
  for (size_t i = 0; i < table_.size(); ++i)
    if (table_[i].required && values_[i].empty())
      return fail(ErrorCode::kUsage, "is required.", flag_of(table_[i]), table_[i].help + std::string("."));
  return {};
}

const std::string& StudyOptions::text(std::string_view name) const {
  static const std::string kNone;
  for (size_t i = 0; i < table_.size(); ++i)
    if (name == table_[i].name) return values_[i];
  return kNone;
}

std::vector<double> StudyOptions::numbers(std::string_view name) const {
  std::vector<double> out;
  for (const std::string& word : words_of(text(name)))
    std::from_chars(word.data(), word.data() + word.size(), out.emplace_back());
  return out;
}

std::vector<std::string> words_of(std::string_view list) {
  std::vector<std::string> out;
  for (size_t from = 0; from <= list.size();) {
    const size_t comma = std::min(list.find(',', from), list.size());
    out.emplace_back(list.substr(from, comma - from));
    from = comma + 1;
  }
  return out;
}

}  // namespace switchyard
