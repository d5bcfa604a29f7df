// PCRE2 behind the regular expressions of tokenizer.json, see regex.h. Any thread.
#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>

#include "engine/tokenizer/unicode_tables.h"

namespace switchyard {
namespace {

constexpr size_t kMaxPattern = 64 * 1024;
constexpr uint32_t kMatchLimit = 1'000'000;  // and kMatchStepsPerByte: runs of a million spaces are honest text
constexpr uint32_t kMatchStepsPerByte = 64;
constexpr uint32_t kDepthLimit = 10'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024, kJitStackMax = 8 * 1024 * 1024;

struct Free {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

using MatchContext = std::unique_ptr<pcre2_match_context, Free>;

pcre2_jit_stack* jit_stack_of_thread(void*) {
  thread_local std::unique_ptr<pcre2_jit_stack, Free> stack(
      pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr));
  return stack.get();
}

MatchContext limits_for(size_t text_bytes) {
  MatchContext context(pcre2_match_context_create(nullptr));
  const uint64_t steps = kMatchLimit + uint64_t{kMatchStepsPerByte} * text_bytes;
  pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(context.get(), jit_stack_of_thread, nullptr);
  return context;
}

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct Name {
  std::string_view theirs, ours;
};
// Oniguruma's long names of general categories.
constexpr Name kCategories[] = {{"letter", "L"}, {"mark", "M"}, {"number", "N"}, {"punctuation", "P"}, {"symbol", "S"},
    {"separator", "Z"}, {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"}, {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"}, {"otherletter", "Lo"}, {"nonspacingmark", "Mn"}, {"spacingmark", "Mc"},
    {"enclosingmark", "Me"}, {"decimalnumber", "Nd"}, {"letternumber", "Nl"}, {"othernumber", "No"},
    {"digit", "Nd"}, {"control", "Cc"}};
// Properties that PCRE2 knows by the same name; any other name is a script.
constexpr std::string_view kProperties[] = {"any", "alphabetic", "uppercase", "lowercase", "whitespace", "emoji",
    "extendedpictographic", "ideographic", "math", "hexdigit", "asciihexdigit", "diacritic"};

// \x{61}-\x{7a} for what Unicode has got since version 14, PCRE2's, in categories that start so.
std::string since_14(std::string_view category) {
  std::string out;
  char text[40];
  for (const CategoryRange& range : ranges_since_unicode_14()) {
    if (!std::string_view(range.category).starts_with(category)) continue;
    std::snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", static_cast<unsigned>(range.first), static_cast<unsigned>(range.last));
    out += text;
  }
  return out;
}

// As members of a class.
std::string category_members(std::string_view category) {
  return "\\p{" + std::string(category) + "}" + since_14(category);
}
std::string alphabetic_members() { return R"(\p{Alphabetic})" + since_14("L"); }
// The members of \w in Oniguruma; PCRE2's \w lacks marks and connectors, Oniguruma has a few Latin-1 numbers.
std::string word_members() {
  return alphabetic_members() + category_members("M") + category_members("Nd") + R"(\p{Pc}\xB2\xB3\xB9\xBC-\xBE)";
}

// Walks a pattern once and copies it, replacing what means something else in PCRE2.
class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : pattern_(pattern), where_(where) {}

  Result<std::string> run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\')
        SY_CHECK(escape());
      else if (in_class_)
        SY_CHECK(class_member());
      else if (c == '[')
        open_class();
      else if (c == '(' && next_is("(?"))
        SY_CHECK(group());
      else
        copy(1);
    }
    return std::move(out_);
  }

 private:
  bool next_is(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }
  void copy(size_t n) {
    out_.append(pattern_.substr(at_, n));
    at_ += n;
  }
  void replace(size_t n, std::string_view text) {
    out_.append(text);
    at_ += n;
  }
  tl::unexpected<Error> refuse(std::string_view what) const {
    return fail(ErrorCode::kMalformed,
                "the regular expression uses " + std::string(what) + " at byte " + std::to_string(at_) +
                    ", which this reader does not support.",
                where_);
  }

  Result<void> escape() {
    if (at_ + 1 >= pattern_.size())
      return fail(ErrorCode::kMalformed, "the regular expression ends in a backslash.", where_);
    const char c = pattern_[at_ + 1];
    switch (c) {
      case 's':
        replace(2, R"(\p{White_Space})");
        return {};  // PCRE2's \s has U+180E as well
      case 'S':
        replace(2, R"(\P{White_Space})");
        return {};
      case 'v':
        replace(2, R"(\x0B)");
        return {};  // PCRE2's \v is a class
      case 'w':
      case 'W':
        return members(2, word_members(), c == 'W', "\\W");
      case 'd':
      case 'D':
        return members(2, category_members("Nd"), c == 'D', "\\D");
      case 'p':
      case 'P':
        return property();
      case 'u':
        return unicode_escape();
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
      case 'x':
      case 'A':
      case 'z':
        copy(2);
        return {};
      default:
        break;
    }
    if (std::isalnum(static_cast<unsigned char>(c))) return refuse("the escape \\" + std::string(1, c));
    copy(1 + 1);  // escaped punctuation; of a multi-byte character the lead, the rest is copied as text
    return {};
  }

  // Writes a set of characters; inside a class only what is not negated can be written out.
  Result<void> members(size_t length, const std::string& set, bool negated, const char* name) {
    if (in_class_ && negated) return refuse(std::string(name) + " inside a class");
    replace(length, in_class_ ? set : (negated ? "[^" : "[") + set + "]");
    return {};
  }

  Result<void> property() {  // \p{L}, \P{L}, \p{^L}
    const size_t end = pattern_.find('}', at_);
    if (pattern_.substr(at_ + 2, 1) != "{" || end == std::string_view::npos) return refuse("\\p without {name}");
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    bool negated = pattern_[at_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    std::string plain;  // Oniguruma passes over case, spaces, - and _
    for (const char c : name)
      if (c != ' ' && c != '-' && c != '_') plain += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const size_t length = end + 1 - at_;
    for (const Name& category : kCategories)
      if (plain == category.theirs) plain = category.ours;
    const bool known = std::find(std::begin(kProperties), std::end(kProperties), plain) != std::end(kProperties);
    if (plain.empty() || !std::all_of(plain.begin(), plain.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)); }))
      return refuse("the property " + std::string(name));
    if (plain.size() <= 2) {
      plain[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(plain[0])));
      // What is in no category any more cannot be taken out of \p{Cn}.
      if (in_class_ && negated) {
        replace(length, "\\P{" + plain + "}");
        return {};
      }
      return members(length, category_members(plain), negated, "\\P");
    }
    replace(length, (negated ? "\\P{" : "\\p{") + (known ? plain : "sc:" + plain) + "}");
    return {};
  }

  Result<void> unicode_escape() {  // \uHHHH
    const std::string_view digits = pattern_.substr(at_ + 2, 4);
    if (digits.size() < 4) return refuse("a short \\u escape");
    for (const char d : digits)
      if (!std::isxdigit(static_cast<unsigned char>(d))) return refuse("a short \\u escape");
    replace(6, "\\x{" + std::string(digits) + "}");
    return {};
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (next_is("^")) copy(1);
    if (next_is("]")) replace(1, "\\]");  // a first ] is a member in both
  }

  Result<void> class_member() {
    if (next_is("[:")) {
      const size_t end = pattern_.find(":]", at_);
      if (end == std::string_view::npos) return refuse("an open [: :] class");
      return posix_class(end);
    }
    if (next_is("[")) return refuse("a class inside a class");
    if (next_is("&&")) return refuse("an intersection of classes (&&)");
    if (next_is("]")) in_class_ = false;
    copy(1);
    return {};
  }

  Result<void> posix_class(size_t end) {  // [:alpha:]
    const std::string_view name = pattern_.substr(at_ + 2, end - at_ - 2);
    const size_t length = end + 2 - at_;
    if (name == "alpha")
      replace(length, alphabetic_members());
    else if (name == "alnum")
      replace(length, alphabetic_members() + category_members("Nd"));
    else if (name == "digit")
      replace(length, category_members("Nd"));
    else if (name == "word")
      replace(length, word_members());
    else if (name == "punct")
      replace(length, category_members("P") + category_members("S"));
    else if (name == "space")
      replace(length, R"(\p{White_Space})");
    else if (name == "upper")
      replace(length, R"(\p{Uppercase})" + since_14("Lu"));
    else if (name == "lower")
      replace(length, R"(\p{Lowercase})" + since_14("Ll"));
    else if (name == "xdigit" || name == "cntrl" || name == "ascii")
      copy(length);
    else
      return refuse("the class [:" + std::string(name) + ":]");
    return {};
  }

  // (?: (?= (?! (?<= (?<! (?> and (?i: read alike. A bare (?i) does so only at the very start.
  Result<void> group() {
    for (const std::string_view opener : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"})
      if (next_is(opener)) {
        copy(opener.size());
        return {};
      }
    if (at_ == 0 && next_is("(?i)")) {
      copy(4);
      return {};
    }
    const size_t end = pattern_.find_first_of(":)", at_);
    return refuse("the group " + std::string(pattern_.substr(at_, end == std::string_view::npos ? 8 : end + 1 - at_)));
  }

  std::string_view pattern_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

struct Regex::Program {
  std::unique_ptr<pcre2_code, Free> code;
  std::string where;
};

Result<std::string> translate_oniguruma(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern)
    return fail(ErrorCode::kMalformed,
                "the regular expression has " + std::to_string(pattern.size()) + " bytes; the limit is 65536.", where);
  return Translator(pattern, where).run();
}

Result<Regex> Regex::compile(std::string_view pattern, const std::string& where) {
  SY_TRY(const std::string translated, translate_oniguruma(pattern, where));
  return build(translated, PCRE2_MULTILINE, where);
}

Result<Regex> Regex::literal(std::string_view text, const std::string& where) {
  if (text.size() > kMaxPattern)
    return fail(ErrorCode::kMalformed, "the pattern has " + std::to_string(text.size()) + " bytes; the limit is 65536.",
                where);
  return build(text, PCRE2_LITERAL, where);
}

Result<Regex> Regex::build(std::string_view pattern, uint32_t options, const std::string& where) {
  if (!(options & PCRE2_LITERAL)) options |= PCRE2_UCP;
  const std::unique_ptr<pcre2_compile_context, Free> compiling(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(compiling.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto program = std::make_shared<Program>();
  program->where = where;
  program->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options | PCRE2_UTF,
                                    &error, &offset, compiling.get()));
  if (!program->code)
    return fail(ErrorCode::kMalformed,
                "the regular expression cannot be compiled: " + message_of(error) + " near byte " +
                    std::to_string(offset) + ".",
                where);
  pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE);  // without it: the interpreter, same matches
  return Regex(std::move(program));
}

Result<std::vector<Span>> Regex::find_all(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, Free> match(pcre2_match_data_create(1, nullptr));
  const MatchContext limits = limits_for(text.size());
  std::vector<Span> found;
  size_t from = 0, last_end = SIZE_MAX;
  while (from <= text.size()) {
    const int rc = pcre2_match(program_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                               PCRE2_NO_UTF_CHECK, match.get(), limits.get());
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0)
      return fail(
          ErrorCode::kMalformed,
          "the regular expression gave up on the text at byte " + std::to_string(from) + ": " + message_of(rc) + ".",
          program_->where, "A limit keeps hostile patterns from hanging the program.");
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    if (ends[0] == ends[1] && ends[1] == last_end) {  // no second match where the last one ended
      from = last_end + 1;
      while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;
      continue;
    }
    found.push_back({ends[0], ends[1]});
    from = last_end = ends[1];
  }
  return found;
}

}  // namespace switchyard
