// What the routers of one sequence leave for its later tokens: probabilities, and where a scheme compares tokens the
// router's inputs. It belongs to the cache of keys and values and follows it: cut back with it, cloned with it, and a
// token that is routed again is written again. Only tokens that were routed under a scheme with mixes_tokens() are in
// it. Blocks of 64 tokens are shared by clones until one writes to them.
// Owned by the engine thread; distinct tokens may be written by several threads after prepare().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace switchyard {

class TokenMemory {
 public:
  // Before tokens [first, first + count) of a routing row are written. width: of the router's input; 0: it is not kept.
  // Throws std::bad_alloc.
  void prepare(int row, uint64_t first, size_t count, size_t experts, size_t width);
  std::span<float> write_probabilities(int row, uint64_t token);  // [E]
  std::span<float> write_input(int row, uint64_t token);          // [width]

  // Empty where it is not in the memory.
  std::span<const float> probabilities(int row, uint64_t token) const;
  std::span<const float> input(int row, uint64_t token) const;

  // Forgets tokens from `length` on.
  void truncate(uint64_t length);
  uint64_t bytes() const;

 private:
  struct Block {
    std::vector<float> probabilities, inputs;  // [64, E], [64, width] or empty
  };
  struct Row {
    size_t experts = 0, width = 0;
    std::vector<uint8_t> holds;  // by token: 0 nothing, 1 probabilities, 2 the input too
    std::vector<std::shared_ptr<Block>> blocks;
  };
  const Row* row_with(int row, uint64_t token, uint8_t least) const;

  std::vector<Row> rows_;
};

}  // namespace switchyard
