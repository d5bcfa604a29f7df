// Rotary position embedding of a chunk: cosines and sines of every rope of a model, and the rotation.
// Prepared on the engine thread, then read by the pool.
#pragma once

#include <vector>

#include "engine/model/plan.h"
#include "engine/model/rope.h"

namespace switchyard::cpu {

class Rotations {
 public:
  explicit Rotations(const std::vector<RopeSpec>& ropes) : ropes_(ropes), angles_(ropes.size()) {}

  // position: of the first token; length: of the sequence, for ropes that grow with it.
  void prepare(int position, int count, int length);
  // Turns the first dimensions of `count` heads, `apart` floats from one to the next. rope < 0: nothing.
  void rotate(int rope, int token, float* heads, int count, int64_t apart) const;

 private:
  struct Angles {
    RopeFrequencies in_force;           // kept from token to token where the rope does not grow
    std::vector<float> cosines, sines;  // [tokens, dims / 2]
  };
  const std::vector<RopeSpec>& ropes_;
  std::vector<Angles> angles_;
};

}  // namespace switchyard::cpu
