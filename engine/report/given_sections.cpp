#include "engine/report/given_sections.h"

namespace switchyard {
namespace {

std::vector<GivenSection>& all_given() {
  static std::vector<GivenSection> list;
  return list;
}

}  // namespace

void add_given_sections(std::vector<GivenSection> more) {
  for (GivenSection& one : more) all_given().push_back(std::move(one));
}

std::span<const GivenSection> given_sections() {
  return all_given();
}

const GivenSection* find_given_section(std::string_view name) {
  for (const GivenSection& one : given_sections())
    if (one.name == name) return &one;
  return nullptr;
}

}  // namespace switchyard
