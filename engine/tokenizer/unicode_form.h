// The four Unicode normalization forms. Pure function; any thread.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

struct UnicodeForm {
  bool compatibility = false;  // NFKC, NFKD
  bool compose = false;        // NFC, NFKC
};

std::string to_unicode_form(std::string_view valid_text, UnicodeForm form);

}  // namespace switchyard
