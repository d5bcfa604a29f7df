"""Writes engine/tokenizer/unicode_tables.cpp: character classes as the `tokenizers` package has them.

usage: make_unicode.py      (in a virtual environment with tokenizers==0.23.*)

The package mixes Unicode versions: Oniguruma (expressions) has 16, Rust's char 17, the crates behind Punctuation,
StripAccents and the normalization forms are years older. The package itself is asked about every code point.
What Unicode 14 had, and PCRE2 10.42 with it, is what Python 3.11 calls assigned.
"""
import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODES = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cf".split()
assert unicodedata.unidata_version == "14.0.0", "PCRE2 10.42 has Unicode 14, as Python 3.11 does"


def ranges(codes):
    out = []
    for code in sorted(codes):
        if out and out[-1][1] == code - 1:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def matches(expression):
    found = set()
    for _, (begin, end) in pre_tokenizers.Split(Regex(expression), "removed", invert=True).pre_tokenize_str("".join(map(chr, CODES))):
        found.update(CODES[begin:end])
    return found


def alone_behind_a_letter(cutter):
    """Code points that the cutter takes off a letter."""
    pieces = cutter.pre_tokenize_str("".join("a" + chr(c) for c in CODES))
    return {CODES[begin // 2] for _, (begin, end) in pieces if end - begin == 1 and begin % 2 == 1}


def joined_to_a_letter():
    pieces = pre_tokenizers.Whitespace().pre_tokenize_str("".join("a" + chr(c) + " " for c in CODES))
    return {CODES[begin // 3] for _, (begin, end) in pieces if end - begin == 2 and begin % 3 == 0}


def rewritten(normalizer):
    lines = normalizer.normalize_str("\0".join(map(chr, CODES[1:]))).split("\0")
    return {code: line for code, line in zip(CODES[1:], lines) if line != chr(code)}


def range_rows(name, codes, about):
    rows = [f"{{{first:#x}, {last:#x}}}" for first, last in ranges(codes)]
    lines, line = [], " "
    for row in rows:
        if len(line) + len(row) + 2 > 118:
            lines.append(line)
            line = " "
        line += " " + row + ","
    lines.append(line)
    return f"// {about}\nconstexpr CodeRange {name}[] = {{\n" + "\n".join(lines) + "\n};\n"


def main():
    forms = {form: rewritten(getattr(normalizers, form)()) for form in ("NFD", "NFKD")}
    marks = set(rewritten(normalizers.StripAccents()))
    assert all(text == "" for text in rewritten(normalizers.StripAccents()).values())
    lower = {code: text for code, text in rewritten(normalizers.Lowercase()).items() if len(text) == 1}
    plain_lower = {code: text for code, text in lower.items() if unicodedata.category(chr(code)) != "Cn" and chr(code).lower() == text}
    new_lower = {code: text for code, text in lower.items() if code not in plain_lower}
    # Characters that Unicode 14 (and later) decomposes, composes or orders and the package's crate does not know.
    ignored = {c for form in ("NFD", "NFKD") for c in CODES if unicodedata.normalize(form, chr(c)) != chr(c) and c not in forms[form]}
    ignored |= {c for c in CODES if unicodedata.combining(chr(c)) and c not in marks}
    since = [(first, last, name) for name in CATEGORIES for first, last in ranges({c for c in matches(rf"\p{{{name}}}") if unicodedata.category(chr(c)) == "Cn"})]
    since.sort()
    ignored |= {c for first, last, name in since if name[0] in "LM" and last < 0x20000 for c in range(first, last + 1)}
    out = ['// Character classes as the `tokenizers` package has them. Written by tests/tokenizer/make_unicode.py: do not edit.',
           '#include "engine/tokenizer/unicode_tables.h"', "", "namespace switchyard {", "namespace {", "",
           range_rows("kWord", joined_to_a_letter(), r"\w of Rust's regex crate."),
           range_rows("kNumeric", alone_behind_a_letter(pre_tokenizers.Digits(False)), "char::is_numeric of Rust."),
           range_rows("kPunctuation", alone_behind_a_letter(pre_tokenizers.Punctuation("contiguous")), "Of the unicode_categories crate, and ASCII punctuation."),
           range_rows("kMark", marks, "Combining marks of the normalization crate."),
           range_rows("kUnnormalized", ignored, "Left alone by the normalization crate, which is older than they are."),
           "// Lower case that Unicode 14 does not have.\nconstexpr CodePair kLower[] = {\n    " + ",\n    ".join(
               ", ".join(f"{{{c:#x}, {ord(t):#x}}}" for c, t in list(sorted(new_lower.items()))[i:i + 5]) for i in range(0, len(new_lower), 5)) + ",\n};\n",
           "// Assigned after Unicode 14 and known to Oniguruma.\nconstexpr CategoryRange kSince14[] = {\n    " + ",\n    ".join(
               ", ".join(f'{{{a:#x}, {b:#x}, "{n}"}}' for a, b, n in since[i:i + 4]) for i in range(0, len(since), 4)) + ",\n};\n",
           "}  // namespace", ""]
    for name, table in (("word_ranges", "kWord"), ("numeric_ranges", "kNumeric"), ("punctuation_ranges", "kPunctuation"), ("mark_ranges", "kMark"), ("unnormalized_ranges", "kUnnormalized")):
        out.append(f"std::span<const CodeRange> {name}() {{\n  return {table};\n}}")
    out.append("std::span<const CodePair> new_lower_case() {\n  return kLower;\n}")
    out.append("std::span<const CategoryRange> ranges_since_unicode_14() {\n  return kSince14;\n}")
    out += ["", "}  // namespace switchyard", ""]
    (ROOT / "engine/tokenizer/unicode_tables.cpp").write_text("\n".join(out))


main()
