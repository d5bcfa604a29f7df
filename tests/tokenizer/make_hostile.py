"""Writes tests/data/hostile/tokenizer: one folder with a tokenizer.json per fault, and cases.json with the message
each must be refused with (a part of it).

usage: make_hostile.py SOURCE_ROOT
"""
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
changed("model_unigram", '/model is of type "Unigram", which this reader does not support', "model", "type", value="Unigram")
changed("normalizer_precompiled", '/normalizer is of type "Precompiled"', "normalizer", value={"type": "Precompiled", "precompiled_charsmap": ""})
changed("pre_tokenizer_unknown", '/pre_tokenizer is of type "\\x1b[31mEvil"', "pre_tokenizer", value={"type": "\x1b[31mEvil"})
changed("decoder_wordpiece", '/decoder is of type "WordPiece"', "decoder", value={"type": "WordPiece"})
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
changed("unknown_token_unknown", 'names the unk_token "<unk>", which is not in the vocabulary', "model", "unk_token", value="<unk>")
changed("dropout", "has dropout", "model", "dropout", value=0.1)
changed("subword_prefix", 'has continuing_subword_prefix "##"', "model", "continuing_subword_prefix", value="##")
changed("regex_broken", "/pre_tokenizer/pattern: the regular expression cannot be compiled", "pre_tokenizer", "pattern", value={"Regex": "(a"})
changed("regex_too_long", "/pre_tokenizer/pattern: the regular expression has 65537 bytes; the limit is 65536", "pre_tokenizer", "pattern", value={"Regex": "a" * 65537})
changed("regex_foreign_escape", "uses the escape \\h at byte 0", "pre_tokenizer", "pattern", value={"Regex": "\\h+"})
changed("regex_catastrophic", "gave up on the text at byte 0", "pre_tokenizer", "pattern", value={"Regex": "(?:a+)+[bc]"}, text="a" * 60)
changed("regex_absent", '/pre_tokenizer/pattern needs a "Regex" or a "String"', "pre_tokenizer", "pattern", value={"Glob": "*"})
changed("behavior_unknown", '/pre_tokenizer/behavior is "Sideways", needs Removed, Isolated', "pre_tokenizer", "behavior", value="Sideways")
changed("added_token_without_content", "/added_tokens/0/content is missing", "added_tokens", value=[{"id": 4}])
changed("added_token_long", "has a content of 257 bytes; the limit is 256", "added_tokens", value=[{"id": 4, "content": "x" * 257}])
changed("added_token_on_taken_id", '/added_tokens puts "<s>" at id 4, which the vocabulary gives to "c"', "model", "vocab", value={"a": 0, "b": 1, "ab": 2, "c": 4})
changed("template_id_out_of_range", "/post_processor/special_tokens/<s>/ids/0 is 99, needs 0 to 4", "post_processor", value={
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [99], "tokens": ["<s>"]}}})
changed("template_names_unknown_token", "/post_processor/special_tokens/<x> is missing", "post_processor", value={
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}], "pair": [], "special_tokens": {}})
(FOLDER / "cases.json").write_text(json.dumps(CASES, indent=1) + "\n")
print(f"{len(CASES)} cases in {FOLDER}")
