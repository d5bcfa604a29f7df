"""Writes tests/data/hostile/tokenizer: one folder with a tokenizer.json per fault, and cases.json with the message
each must be refused with (a part of it).

usage: make_hostile.py SOURCE_ROOT
"""
import base64
import copy
import json
import pathlib
import sys

FOLDER = pathlib.Path(sys.argv[1]) / "tests/data/hostile/tokenizer"
GOOD = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": False},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]},
}
CASES = []


def case(name, contents, message, **extra):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
    (FOLDER / name / "tokenizer.json").write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    CASES.append({"name": name, "message": message} | extra)


def changed(name, message, *path, value, **extra):
    file = copy.deepcopy(GOOD)
    at = file
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    case(name, json.dumps(file), message, **extra)


case("empty_file", "", "not valid JSON")
case("cut_in_the_middle", json.dumps(GOOD)[:200], "not valid JSON")
case("not_utf8", json.dumps(GOOD).replace('"c"', '"\xff"').encode("latin-1"), "not valid JSON")
case("duplicate_piece", json.dumps(GOOD).replace('"b": 1', '"a": 1'), "/model/vocab/a appears twice")
case("deep_nesting", '{"version":"1.0","model":' + "[" * 5000 + "]" * 5000 + "}", "is nested deeper than 64 levels")
case("an_array", "[1, 2]", "needs an object")
changed("version_two", 'has version "2.0", needs "1.0"', "version", value="2.0")
changed("version_missing", "/version is missing", "version", value=...)
changed("model_missing", "/model is missing", "model", value=...)
changed("model_wordlevel", '/model is of type "WordLevel", which this reader does not support', "model", "type", value="WordLevel")
changed("normalizer_unknown", '/normalizer is of type "Bert", which this reader does not support', "normalizer", value={"type": "Bert"})
changed("pre_tokenizer_unknown", '/pre_tokenizer is of type "\\x1b[31mEvil"', "pre_tokenizer", value={"type": "\x1b[31mEvil"})
changed("decoder_unknown", '/decoder is of type "CTC"', "decoder", value={"type": "CTC"})
changed("post_processor_unknown", '/post_processor is of type "Later"', "post_processor", value={"type": "Later"})
changed("id_negative", "/model/vocab/a is -1, needs 0 to 16777215", "model", "vocab", "a", value=-1)
changed("id_too_large", "/model/vocab/a is 4294967296, needs 0 to 16777215", "model", "vocab", "a", value=2**32)
changed("id_real", "/model/vocab/a is 0.5, needs an integer", "model", "vocab", "a", value=0.5)
changed("id_text", '/model/vocab/a is "0", needs an integer', "model", "vocab", "a", value="0")
changed("id_twice", '/model/vocab gives id 1 to both', "model", "vocab", "a", value=1)
changed("vocab_empty", "/model/vocab has no pieces", "model", "vocab", value={})
changed("vocab_list", "/model/vocab needs to be an object", "model", "vocab", value=[["a", 0]])
changed("merge_of_unknown_piece", '/model/merges/0 needs the piece "z", which is not in the vocabulary', "model", "merges", value=[["a", "z"]])
changed("merge_to_unknown_piece", '/model/merges/0 needs the piece "ac", which is not in the vocabulary', "model", "merges", value=[["a", "c"]])
changed("merge_of_three", '/model/merges/0 is "a b c", needs "a b" or ["a", "b"]', "model", "merges", value=["a b c"])
changed("merge_number", "/model/merges/1 is 7, needs", "model", "merges", value=["a b", 7])
changed("merges_text", "/model/merges needs to be a list", "model", "merges", value="a b")
changed("unknown_token_unknown", 'has "y", which is not in the vocabulary, and neither is the unk_token "<unk>"', "model", "unk_token", value="<unk>", text="aby")
changed("dropout", "has dropout", "model", "dropout", value=0.1)
changed("subword_prefix", "/model/merges/0 is shorter than the continuing_subword_prefix", "model", "continuing_subword_prefix", value="##")
changed("subword_prefix_long", "has a subword prefix or suffix of more than 64 bytes", "model", "end_of_word_suffix", value="x" * 65)
changed("regex_broken", "/pre_tokenizer/pattern: the regular expression cannot be compiled", "pre_tokenizer", "pattern", value={"Regex": "(a"})
changed("regex_too_long", "/pre_tokenizer/pattern: the regular expression has 65537 bytes; the limit is 65536", "pre_tokenizer", "pattern", value={"Regex": "a" * 65537})
changed("regex_foreign_escape", "uses the escape \\h at byte 0", "pre_tokenizer", "pattern", value={"Regex": "\\h+"})
changed("regex_catastrophic", "gave up on the text at byte 0", "pre_tokenizer", "pattern", value={"Regex": "(?:a+)+[bc]"}, text="a" * 60)
changed("regex_absent", '/pre_tokenizer/pattern needs a "Regex" or a "String"', "pre_tokenizer", "pattern", value={"Glob": "*"})
changed("behavior_unknown", '/pre_tokenizer/behavior is "Sideways", needs Removed, Isolated', "pre_tokenizer", "behavior", value="Sideways")
changed("added_token_without_content", "/added_tokens/0/content is missing", "added_tokens", value=[{"id": 4}])
changed("added_token_long", "has a content of 257 bytes; the limit is 256", "added_tokens", value=[{"id": 4, "content": "x" * 257}])

MARK = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]], "byte_fallback": False}


def table(units, replacements=b"x\0", count=None):
    blob = (4 * len(units) if count is None else count).to_bytes(4, "little") + b"".join(u.to_bytes(4, "little") for u in units) + replacements
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}


changed("metaspace_long_mark", '/pre_tokenizer/replacement is "__", needs one character', "pre_tokenizer", value=MARK | {"replacement": "__"})
changed("metaspace_empty_mark", '/pre_tokenizer/replacement is "", needs one character', "pre_tokenizer", value=MARK | {"replacement": ""})
changed("metaspace_scheme", '/pre_tokenizer/prepend_scheme is "sometimes", needs always, first or never', "pre_tokenizer", value=MARK | {"prepend_scheme": "sometimes"})
changed("metaspace_contradiction", "/pre_tokenizer has add_prefix_space false, which its prepend_scheme contradicts", "pre_tokenizer", value=MARK | {"add_prefix_space": False})
changed("metaspace_split_text", '/pre_tokenizer/split is "yes"', "pre_tokenizer", value=MARK | {"split": "yes"})
changed("in_a_sequence", '/pre_tokenizer/pretokenizers/1 is of type "UnicodeScripts"', "pre_tokenizer", value={"type": "Sequence", "pretokenizers": [MARK, {"type": "UnicodeScripts"}]})
changed("sequence_without_steps", "/normalizer/normalizers is missing", "normalizer", value={"type": "Sequence"})
changed("fixed_length_zero", "/pre_tokenizer/length is 0, needs 1 to", "pre_tokenizer", value={"type": "FixedLength", "length": 0})
changed("delimiter_long", '/pre_tokenizer/delimiter is "ab", needs one character', "pre_tokenizer", value={"type": "CharDelimiterSplit", "delimiter": "ab"})
changed("strip_without_side", "/normalizer/strip_right is missing", "normalizer", value={"type": "Strip", "strip_left": True})
changed("replace_without_content", "/normalizer/content is missing", "normalizer", value={"type": "Replace", "pattern": {"String": " "}})
changed("replace_that_grows", "normalization makes the text longer than 256 MiB", "normalizer", value={"type": "Sequence", "normalizers": 6 * [
    {"type": "Replace", "pattern": {"Regex": "a"}, "content": "a" * 100}]}, text="aaaa")
changed("prepend_number", "/normalizer/prepend is 1, needs", "normalizer", value={"type": "Prepend", "prepend": 1})
changed("charsmap_no_base64", "/normalizer/precompiled_charsmap is not valid base64", "normalizer", value={"type": "Precompiled", "precompiled_charsmap": "A*=="})
changed("charsmap_short", "/normalizer/precompiled_charsmap has 2 bytes; a table needs at least 4", "normalizer", value={"type": "Precompiled", "precompiled_charsmap": "AAA="})
changed("charsmap_empty_trie", "/normalizer/precompiled_charsmap declares a trie of 0 units", "normalizer", value=table([]))
changed("charsmap_long_trie", "declares a trie of 1073741823 units and has room for 1", "normalizer", value=table([7], b"", 0xFFFFFFFF))
changed("charsmap_not_utf8", "/normalizer/precompiled_charsmap has replacements that are not UTF-8", "normalizer", value=table([7], b"\xff\0"))
changed("strip_decoder_long", '/decoder/content is "  ", needs one character', "decoder", value={"type": "Strip", "content": "  ", "start": 1, "stop": 0})
changed("strip_decoder_negative", "/decoder/start is -1, needs 0 to", "decoder", value={"type": "Strip", "content": " ", "start": -1, "stop": 0})
changed("decoder_steps", "/decoder/decoders/64 is one of more than 64 steps", "decoder", value={"type": "Sequence", "decoders": 65 * [{"type": "Fuse"}]})
changed("bert_pair", "/post_processor needs cls as [token, id]", "post_processor", value={"type": "BertProcessing", "sep": ["a", 0], "cls": ["a"]})
changed("bert_id", "/post_processor/sep/1 is 9, needs 0 to 4", "post_processor", value={"type": "BertProcessing", "sep": ["a", 9], "cls": ["a", 0]})
changed("template_text_twice", "/post_processor names the text more than once", "post_processor", value={
    "type": "TemplateProcessing", "single": 2 * [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}})
changed("unigram_vocab_object", "/model/vocab needs to be a list of [piece, score]", "model", value=UNIGRAM | {"vocab": {"a": 0}})
changed("unigram_vocab_entry", "/model/vocab has at 1 what is no [piece, score]", "model", value=UNIGRAM | {"vocab": [["a", 0.0], ["b"]]})
changed("unigram_vocab_empty", "/model/vocab has no pieces", "model", value=UNIGRAM | {"vocab": [], "unk_id": None})
changed("unigram_unknown", "/model/unk_id is 3, needs 0 to 2", "model", value=UNIGRAM | {"unk_id": 3})
changed("unigram_long_piece", "has at 0 a piece of 1025 bytes; the limit is 1024", "model", value=UNIGRAM | {"vocab": [["x" * 1025, 0.0]]})
changed("unigram_without_unknown", "has a character that is not in the vocabulary, and the model has no unk_id", "model", value=UNIGRAM | {"unk_id": None}, text="ac")
changed("template_id_out_of_range", "/post_processor/special_tokens/<s>/ids/0 is 99, needs 0 to 4", "post_processor", value={
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [99], "tokens": ["<s>"]}}})
changed("template_names_unknown_token", "/post_processor/special_tokens/<x> is missing", "post_processor", value={
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}], "pair": [], "special_tokens": {}})
(FOLDER / "cases.json").write_text(json.dumps(CASES, indent=1) + "\n")
print(f"{len(CASES)} cases in {FOLDER}")
