// Normalizers of tokenizer.json, see normalizer.h. Any thread.
#include "engine/tokenizer/normalizer.h"

#include <algorithm>
#include <array>
#include <vector>

#include <utf8proc.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

// The four Unicode normalization forms. Decomposition, then a stable sort of each run of combining marks by
// class (utf8proc's own reordering is quadratic in the run), then composition.
class UnicodeForm final : public Normalizer {
 public:
  UnicodeForm(bool compatibility, bool compose) : compatibility_(compatibility), compose_(compose) {}

  Result<std::string> normalize(std::string text) const override {
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return text;
    std::vector<utf8proc_int32_t> codes = decompose(text);
    order_marks(codes);
    if (compose_) {
      const auto length = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                                   static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
      codes.resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 0)));
    }
    return encode(codes);
  }

 private:
  std::vector<utf8proc_int32_t> decompose(const std::string& text) const {
    const auto options =
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility_ ? UTF8PROC_COMPAT : 0));
    std::vector<utf8proc_int32_t> codes;
    codes.reserve(text.size());
    std::array<utf8proc_int32_t, 64> parts;  // the longest decomposition, U+FDFA, has 18
    for (size_t at = 0; at < text.size();) {
      utf8proc_int32_t code = 0;
      const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                           static_cast<utf8proc_ssize_t>(text.size() - at), &code);
      int boundary = 0;
      const auto count = utf8proc_decompose_char(code, parts.data(), parts.size(), options, &boundary);
      codes.insert(codes.end(), parts.begin(), parts.begin() + std::clamp<utf8proc_ssize_t>(count, 0, parts.size()));
      at += static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 1));
    }
    return codes;
  }

  static void order_marks(std::vector<utf8proc_int32_t>& codes) {
    const auto combining_class = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
    for (auto run = codes.begin(); run != codes.end();) {
      if (combining_class(*run) == 0) {
        ++run;
        continue;
      }
      const auto end = std::find_if(run, codes.end(), [&](auto code) { return combining_class(code) == 0; });
      std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
      run = end;
    }
  }

  static std::string encode(const std::vector<utf8proc_int32_t>& codes) {
    std::string out;
    out.reserve(codes.size() * 2);
    utf8proc_uint8_t bytes[4];
    for (const auto code : codes)
      out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(utf8proc_encode_char(code, bytes)));
    return out;
  }

  bool compatibility_, compose_;
};

class NormalizerSequence final : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  Result<std::string> normalize(std::string text) const override {
    for (const auto& step : steps_) {
      SY_TRY(text, step->normalize(std::move(text)));
    }
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

}  // namespace

Result<std::unique_ptr<Normalizer>> make_normalizer(const JsonView& spec) {
  SY_TRY(const std::string type, spec.text("type"));
  if (type == "NFC") return std::make_unique<UnicodeForm>(false, true);
  if (type == "NFD") return std::make_unique<UnicodeForm>(false, false);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(true, true);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(true, false);
  if (type == "Sequence") {
    SY_TRY(const auto specs, spec.array("normalizers"));
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const JsonView& step : specs) {
      SY_TRY(auto made, make_normalizer(step));
      steps.push_back(std::move(made));
    }
    return std::make_unique<NormalizerSequence>(std::move(steps));
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (NFC, NFD, NFKC, NFKD, Sequence).");
}

}  // namespace switchyard
