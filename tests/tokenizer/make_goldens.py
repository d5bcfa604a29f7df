"""Writes tests/data/tokenizer/goldens.json and kinds.json: what the `tokenizers` package makes of hostile and multilingual text.

usage: make_goldens.py      (in a virtual environment with tokenizers==0.23.*)

The file holds tokenizers as JSON merge patches (RFC 7386) over two bases, "demo" (the shipped one) and "tiny"
(256 bytes and some merges, trained here), and per tokenizer texts with their ids and ids with their texts.
Texts that are no UTF-8 are given as hex; the package sees them with U+FFFD as Python's errors="replace" puts it.
"""
import copy
import json
import pathlib
import random
import sys

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import kinds
from strings import BROKEN, HOSTILE, TRAINING, WRITTEN, random_text

ROOT = pathlib.Path(__file__).resolve().parents[2]
QWEN = json.loads((ROOT / "assets/models/demo/tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
CL100K = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
            r""" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
BAILING = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def cut(*steps):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, BYTES]}}


def added(content, **flags):
    base = {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return base | flags


def token(number, name, items):
    ids = {name: {"id": name, "ids": [number], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": items, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": ids}


BOS = {"SpecialToken": {"id": "!", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
# Every variant: base, merge patch.
VARIANTS = {
    "demo": ("demo", {}),
    "demo_added_inside": ("demo", {"added_tokens": [
        added("<|endoftext|>", special=True), added("<|pad|>", special=True),
        added("<think>", normalized=False), added("<think>ing", normalized=True), added("e\u0301toile", normalized=True),
        added("  ", normalized=False), added("word", single_word=True), added("<mask>", lstrip=True, special=True),
        added("<sep>", rstrip=True, lstrip=True), added("der", single_word=True, normalized=True), added("ab"), added("abc"), added("bcd")]}),
    "gpt2": ("tiny", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}}),
    "gpt2_prefix_space": ("tiny", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}),
    "nfc_gpt2": ("tiny", {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}}),
    "starcoder": ("tiny", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}}),
    "digit_runs": ("tiny", cut({"type": "Digits", "individual_digits": False})),
    "cl100k": ("tiny", cut(split(CL100K)) | {"model": {"ignore_merges": True}}),
    "o200k": ("tiny", cut(split(O200K))),
    "deepseek_v3": ("tiny", cut(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK))),
    "deepseek_v2": ("tiny", cut(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
                                split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), {"type": "Digits", "individual_digits": True})),
    "bailing": ("tiny", cut(split(BAILING))),
    "words": ("tiny", cut(split(r"\w+|[^\w\s]+", "Removed", True))),
    "removed": ("tiny", cut(split(" ", "Removed", kind="String"))),
    "merged_previous": ("tiny", cut(split(r"\s", "MergedWithPrevious"))),
    "merged_next": ("tiny", cut(split(r"[\s.]", "MergedWithNext"))),
    "contiguous": ("tiny", cut(split(r"\s", "Contiguous"))),
    "contiguous_inverted": ("tiny", cut(split(r"\p{L}", "Contiguous", True))),
    "empty_matches": ("tiny", cut(split(r"x*", "Isolated"))),
    "dollar": ("tiny", cut(split(r"a+$|^b|.c", "Isolated"))),
    "template": ("tiny", {"post_processor": token(0, "!", [BOS, TEXT, BOS])}),
    "template_in_sequence": ("tiny", {"post_processor": {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}, token(0, "!", [BOS, TEXT])]}}),
    "nfkd": ("tiny", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}]}}),
    "nfkc_nfd": ("tiny", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "NFD"}]}}),
    "no_decoder": ("tiny", {"decoder": None}),
    "unknown_fused": ("tiny", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}, "model": {"unk_token": "!", "fuse_unk": True}, "normalizer": None}),
    "characters": ("tiny", {"pre_tokenizer": None, "model": {"unk_token": "!", "fuse_unk": True}}),
    "characters_unfused": ("tiny", {"pre_tokenizer": None, "model": {"unk_token": "!", "fuse_unk": False}}),
    "characters_dropped": ("tiny", {"pre_tokenizer": None}),
}

def merge(base, patch):
    out = copy.deepcopy(base)
    for key, value in patch.items():
        if value is None:
            out[key] = None
        elif isinstance(value, dict) and isinstance(out.get(key), dict) and key == "model":
            out[key] = merge(out[key], value)
        else:
            out[key] = value
    return out


def tiny():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=420, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    base = json.loads(made.to_str())
    base["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    base["model"]["merges"] = [" ".join(pair) for pair in base["model"]["merges"]]  # the old spelling
    return base


def cases_of(name, made, rng):
    if name == "demo":
        texts = WRITTEN + [random_text(rng) for _ in range(220)]
    else:
        texts = [t for t in WRITTEN if len(t) < 150] + [random_text(rng) for _ in range(12)]
        if not name.endswith("inside"):
            texts = rng.sample(texts, 36)
    encode = []
    for text in texts:
        encode.append({"text": text, "ids": made.encode(text, add_special_tokens=True).ids})
        plain = made.encode(text, add_special_tokens=False).ids
        if plain != encode[-1]["ids"]:
            encode.append({"text": text, "ids": plain, "no_special": True})
    for broken in BROKEN if name in ("demo", "gpt2") else []:
        encode.append({"hex": broken, "ids": made.encode(bytes.fromhex(broken).decode("utf-8", "replace")).ids})
    size, decode = made.get_vocab_size(), []
    for _ in range(60 if name == "demo" else 6):
        ids = [rng.choice([rng.randrange(size), rng.randrange(2, 260)]) for _ in range(rng.randint(0, 20))]
        if rng.random() < 0.3:
            ids.insert(rng.randint(0, len(ids)), rng.choice([0, 1, size, size + 7]))
        decode.append({"ids": ids, "text": made.decode(ids, skip_special_tokens=False), "skip": made.decode(ids, skip_special_tokens=True)})
    return {"encode": encode, "decode": decode}


def variants():
    """Every variant over the two bases, as whole files."""
    bases = {"demo": json.loads((ROOT / "assets/models/demo/tokenizer.json").read_text()), "tiny": tiny()}
    return {name: merge(bases[base], patch) for name, (base, patch) in VARIANTS.items()}


FAMILIES = ("spm_legacy", "spm_first", "spm_flags_legacy", "spm_flags_first", "spm_partial_bytes", "nllb", "t5", "umt5", "unigram_scores", "bytes_normalizer")


def all_texts():
    return list(dict.fromkeys(HOSTILE + WRITTEN))


def golden_of_kind(name, file, texts, rng):
    """Ids of every hostile string (of a third of them, for the kinds that differ in one option), and texts of ids."""
    made = Tokenizer.from_str(json.dumps(file))
    numbers = range(len(texts)) if name in FAMILIES else sorted(rng.sample(range(len(texts)), len(texts) // 3))
    encode = [[number, made.encode(texts[number]).ids] for number in numbers]
    plain = [[number, made.encode(texts[number], add_special_tokens=False).ids] for number in rng.sample(range(len(texts)), 8)]
    size, decode = made.get_vocab_size(), []
    for _ in range(40):
        ids = [rng.choice([rng.randrange(size + 2), rng.randrange(min(size, 270))]) for _ in range(rng.randint(0, 14))]
        decode.append([ids, made.decode(ids, skip_special_tokens=False), made.decode(ids, skip_special_tokens=True)])
    text = json.dumps(file).replace(json.dumps(kinds.CHARSMAP), '"@charsmap"')
    return {"name": name, "file": json.loads(text), "encode": encode, "plain": plain, "decode": decode}


def write_kinds():
    texts = all_texts()
    out = {"about": f"made by tests/tokenizer/make_goldens.py with tokenizers {tokenizers.__version__}; nmt_nfkc table of sentencepiece",
           "charsmap": kinds.CHARSMAP, "texts": texts, "kinds": [golden_of_kind(name, file, texts, random.Random(name)) for name, file in kinds.build().items()]}
    target = ROOT / "tests/data/tokenizer/kinds.json"
    target.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{target}: {len(texts)} texts, {len(out['kinds'])} kinds, {target.stat().st_size} bytes")


def main():
    write_kinds()
    bases = {"demo": json.loads((ROOT / "assets/models/demo/tokenizer.json").read_text()), "tiny": tiny()}
    out = {"about": f"made by tests/tokenizer/make_goldens.py with tokenizers {tokenizers.__version__}", "tiny": bases["tiny"], "tokenizers": []}
    for name, (base, patch) in VARIANTS.items():
        made = Tokenizer.from_str(json.dumps(merge(bases[base], patch)))
        out["tokenizers"].append({"name": name, "base": base, "patch": patch} | cases_of(name, made, random.Random(name)))
    target = ROOT / "tests/data/tokenizer/goldens.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{target}: {sum(len(t['encode']) for t in out['tokenizers'])} texts, {sum(len(t['decode']) for t in out['tokenizers'])} id lists")


if __name__ == "__main__":
    main()
