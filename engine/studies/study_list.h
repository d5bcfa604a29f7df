// The room's own pieces: one function a study gives its row of the list.
#pragma once

#include <cstdint>
#include <span>

#include "engine/studies/study.h"

namespace switchyard {

StudyInfo compare_study();
StudyInfo cache_study();
StudyInfo capacity_study();
StudyInfo traffic_study();
StudyInfo schedule_study();
std::vector<StudyInfo> placement_studies();

// Options that several take, or that read better so.
StudyOption whole_option(const char* name, const char* standard, const char* help, double least, double most);
StudyOption real_option(const char* name, const char* standard, const char* help, double least, double most);
StudyOption choice_option(const char* name, std::vector<const char*> choices,
                          const char* help);  // the first is the standard
StudyOption list_option(const char* name, const char* standard, const char* help, double least = 0, double most = 0);
StudyOption switch_option(const char* name, const char* help);
StudyOption file_option(const char* name, const char* help);
StudyOption seed_option(const char* help);
StudyOption gpus_option(double most);

inline double share(uint64_t part, uint64_t of) {
  return of ? double(part) / double(of) : 0.0;
}
inline Document list_of(std::span<const uint64_t> values) {
  return std::vector<uint64_t>(values.begin(), values.end());
}

}  // namespace switchyard
