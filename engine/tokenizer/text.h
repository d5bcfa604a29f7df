// A piece of the text on its way through normalizers and pre-tokenizers. Value type; any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

namespace switchyard {

// text: valid UTF-8. origin: how many of its leading bytes stand for the first character of the whole text.
// Only Metaspace with prepend_scheme "first" asks: the piece is the first one if its first byte does.
struct Text {
  std::string text;
  size_t origin = 0;

  bool first() const { return origin > 0; }
  Text slice(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), std::min(origin > begin ? origin - begin : 0, end - begin)};
  }
  // Inserts at the front; what is inserted belongs to the first character.
  void prepend(std::string_view what) {
    text.insert(0, what);
    if (first()) origin += what.size();
  }
};

}  // namespace switchyard
