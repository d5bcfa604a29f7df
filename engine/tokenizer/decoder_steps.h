// The steps a decoder is made of. Each turns a list of pieces into another one, as the `tokenizers` package
// defines it, but takes the list as it grows: a piece may come in fragments (behind Fuse all text is one piece).
// Steps are immutable and serve any thread; a state belongs to one stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/tokenizer/metaspace.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {

struct Fragment {
  std::string text;
  bool ends = true;  // the piece ends here
};

class DecoderState {
 public:
  virtual ~DecoderState() = default;
  virtual void push(Fragment fragment, std::vector<Fragment>& out) = 0;
  virtual void finish(std::vector<Fragment>&) {}  // there are no more pieces
};

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual std::unique_ptr<DecoderState> start() const = 0;
  // What becomes of one piece that is neither the first nor the last.
  virtual std::string bytes(std::string piece) const = 0;
};

using DecoderStepPtr = std::unique_ptr<DecoderStep>;

DecoderStepPtr byte_level_step();                          // bytes of all pieces in a row, lossily as UTF-8
DecoderStepPtr byte_fallback_step();                       // runs of "<0x41>"
DecoderStepPtr metaspace_step(MetaspaceSettings settings);
DecoderStepPtr replace_step(Regex pattern, std::string content);
DecoderStepPtr fuse_step();
// content: one character; start, stop: how many of it are cut from either end of each piece.
DecoderStepPtr strip_step(std::string content, size_t start, size_t stop);
DecoderStepPtr word_piece_step(std::string prefix, bool cleanup);
DecoderStepPtr suffix_step(std::string suffix);            // ends of words become spaces
DecoderStepPtr spaces_step();                              // pieces joined by spaces

}  // namespace switchyard
