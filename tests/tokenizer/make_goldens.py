"""Writes tests/data/tokenizer/goldens.json: what the `tokenizers` package makes of hostile and multilingual text.

usage: make_goldens.py SOURCE_ROOT      (in a virtual environment with tokenizers==0.23.*)

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

ROOT = pathlib.Path(sys.argv[1])
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

TRAINING = ["the quick brown fox jumps over the lazy dog 0123456789 ", "der Router leitet das Token an den Experten weiter. ",
            "le routeur envoie le jeton à l'expert été façade œuvre ", "маршрутизатор отправляет токен эксперту ",
            "専門家の混合モデルはトークンを振り分ける。", "    return self.router(hidden_states)\n", "don't we'll they're I've ", "1234 5678 2026 "] * 3

WRITTEN = [
    "", " ", "  ", "\n", "\r\n", "\r\n\r\n  \r\n", "\t\tx", "a", "Hello, world!", "don't DON'T don\u2019t we'll WE'LL I'VE 'S 's ''s",
    "it'\u017f LONG-S", "  leading and trailing  ", "a  b   c    d", "line one\nline two\r\nline three\rline four\n\n\n", "x\n \n  y \t\n",
    "1", "12", "123", "1234567890", "3.14159e-10", "1,000,000.00", "\u0661\u0662\u0663 \u0e51\u0e52 \u00b2\u00b3\u00bd \u2167 \u3289",
    "caf\u00e9 cafe\u0301 \u212b \u00c5 A\u030a", "q\u0307\u0323 q\u0323\u0307", "\u1100\u1161\u11a8 \uac01", "\u0344 \u0958 \ufb1d \ufb01",
    "e" + "\u0301" * 20, "\u0301start with a mark", "a\u0315\u0300\u05ae\u0062", "\u0f71\u0f72\u0f74", "\U0001d15e \U0001d15f",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u3053\u3093\u306b\u3061\u306f \uc548\ub155\ud558\uc138\uc694 \u041f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u00a0\u2003\u2028\u2029\u3000\u0085\u180e\u200b\ufeff", "a\u00a0b\u2003c\u2028d\u180ee\u200bf", "\x00\x01\x02\x1b[31m\x7f\x9b", "nul\x00inside",
    "\ue000\U000f0000\ufffe\uffff\U0010ffff", "\ufffd", "\u202eabc\u202c\u2066x\u2069", "def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass\n",
    "#include <vector>\nint main() { return 0; }\n", '{"a": [1, 2.5, null], "b": "\\u00e9"}', "https://example.org/a?b=c&d=%20#frag", "a_b-c.d/e\\f|g~h`i^j",
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", "<|endoftext", "<|pad|> <|pad|>\n<|pad|>", "x<|endoftext|>\u0301y",
    "mixed \u0440\u0443\u0441 \u65e5\u672c 123abc456\u4e00\u4e8c", "UPPER lower CamelCase snake_case SCREAMING_SNAKE", "\u01c5\u01c8 \u02b0\u02b1 \u00aa\u00ba",
    "a" * 300, " " * 300, "\n" * 100, "ab" * 150, "\u00e9" * 100, "e\u0301" * 100, "1" * 100, "!?" * 60, "\U0001f600" * 40, " \n" * 50, "\u3042" * 80,
    "<think>hmm</think>", "<think>ing about <think> things", "\u00e9toile e\u0301toile \u00c9toile", "a  b   c", "word words sword word, (word) word",
    "word\u0301 word_ word\u203f word\u200d w\u00f6rd word\u24d0", "a <mask> b<mask>c \t\n<mask>  <mask>", "a <sep> b <sep><sep>  c\u3000<sep>\u00a0d", "der Bruder, der der\u2019s der",
    "abcd abcabc ab abc bcd abbcd", "xxaxbxx x", "aaa\naab\nbab\nac\ncc\n", "ends in c\n\nb", "a.b. c.d .. . ", "tab\tsep\tvalues\r\n1\t2\t3\r\n",
    "\u0130\u0131 I i \u1e9e\u00df ss", "\u03c3\u03c2\u03a3", "''", "\"quoted\"", "\u2018curly\u2019 \u201cquotes\u201d", "\u2026 \u2014 \u2013 \u00b7", "$100 \u20ac5 \u00a37 \u00a59", "+-*/=<>", "((((()))))",
]
# Bytes that are no UTF-8: lone and cut sequences, overlong forms, surrogates, beyond U+10FFFF.
BROKEN = ["ff", "80", "61ff62", "c3", "e282", "f09f98", "c0af", "e080af", "eda080", "f4908080", "f8888080", "61e28220f09f9862", "c3c3a9", "f09f98f09f9880",
          "ed9fbf", "edbfbf", "efbfbf", "e2", "e28261", "6180806162"]

POOLS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " \t\n\r\u00a0\u3000\u2028\u0085", ".,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`",
    "\u0300\u0301\u0308\u0323\u0327\u0330\u0345\u05b4\u064b\u093c\u0e38\u3099", "éèêëàçñöüßæøåœ", "абвгдежзийклмнопрстуфхцчшщъыьэюяЁё", "αβγδεζηθικλμνξοπρστυφχψωάέ",
    "的一是不了人我在有他这中大来上国", "あいうえおかがきぎアイウエオ", "가각간갇갈힣\u1100\u1161\u11a8", "ابتثجحخدذرزس\u0660\u0661\u0669", "אבגדהוזחטי", "कखगघङचछजझञ\u0966\u096f",
    "\U0001f600\U0001f680\U0001f9d1\u200d\U0001f4bb\ufe0f\U0001f3ff", "\u00b2\u00bd\u2160\u3007\u24d0\u2460\U0001d7ce", "\u2126\u212a\u212b\ufb00\ufb03\u1e9b\u0958\U0002f800",
    "\x00\x07\x1b\x7f\u200b\u200d\u2060\ufeff\ufffd",
]


def random_text(rng):
    pools = rng.sample(POOLS, rng.randint(1, 4))
    return "".join(rng.choice(rng.choice(pools)) * (rng.randint(2, 6) if rng.random() < 0.1 else 1) for _ in range(rng.randint(1, 40)))


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


def main():
    bases = {"demo": json.loads((ROOT / "assets/models/demo/tokenizer.json").read_text()), "tiny": tiny()}
    out = {"about": f"made by tests/tokenizer/make_goldens.py with tokenizers {tokenizers.__version__}", "tiny": bases["tiny"], "tokenizers": []}
    for name, (base, patch) in VARIANTS.items():
        made = Tokenizer.from_str(json.dumps(merge(bases[base], patch)))
        out["tokenizers"].append({"name": name, "base": base, "patch": patch} | cases_of(name, made, random.Random(name)))
    target = ROOT / "tests/data/tokenizer/goldens.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{target}: {sum(len(t['encode']) for t in out['tokenizers'])} texts, {sum(len(t['decode']) for t in out['tokenizers'])} id lists")


main()
