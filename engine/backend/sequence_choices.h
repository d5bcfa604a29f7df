// What a scheme decided once for a whole sequence, by routing row: kept with the sequence's keys and values, and
// forgotten with the tokens that it was decided on. Owned by a cache; engine thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/routing/scheme.h"

namespace switchyard {

class SequenceChoices {
 public:
  // What this scheme chose in this row for the sequence; nullptr: nothing yet.
  const std::vector<uint8_t>* find(int row, const SchemeChoice& scheme) const {
    const auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.row == row && k.scheme == scheme; });
    return kept == kept_.end() ? nullptr : &kept->choice;
  }
  // position: of the first token that the choice is made for.
  void keep(int row, const SchemeChoice& scheme, int position, std::vector<uint8_t> choice) {
    kept_.push_back({row, position, scheme, std::move(choice)});
  }
  // The sequence has `length` tokens left.
  void truncate(int length) {
    std::erase_if(kept_, [&](const Kept& k) { return k.position >= length; });
  }

 private:
  struct Kept {
    int row, position;
    SchemeChoice scheme;
    std::vector<uint8_t> choice;
  };
  std::vector<Kept> kept_;
};

}  // namespace switchyard
