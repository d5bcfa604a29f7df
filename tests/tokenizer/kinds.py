"""Small tokenizer.json files of every kind of families.md, section 3.1, and of every option of section 3.2.

build() returns {name: tokenizer.json as a dict}; used by make_goldens.py and differential.py (tokenizers==0.23.*,
sentencepiece for its nmt_nfkc table).
"""
import base64
import copy
import io

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from strings import TRAINING

MARK = "\u2581"
REPLACE_MARK = {"type": "Replace", "pattern": {"String": MARK}, "content": " "}
LLAMA_DECODER = {"type": "Sequence", "decoders": [REPLACE_MARK, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
LEGACY = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}


def metaspace(scheme="always", split=True):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


def added(content, **flags):
    base = {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return base | flags


def special(*contents):
    return [added(content, special=True) for content in contents]


def template(vocab, *items):
    """template({...}, "<s>", None, "</s>"): None is the text."""
    single = [{"Sequence": {"id": "A", "type_id": 0}} if item is None else {"SpecialToken": {"id": item, "type_id": 0}} for item in items]
    return {"type": "TemplateProcessing", "single": single, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {item: {"id": item, "ids": [vocab[item]], "tokens": [item]} for item in items if item}}


def charsmap():
    """SentencePiece's nmt_nfkc table, as T5, umT5 and NLLB carry it."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TRAINING * 20), model_writer=out, vocab_size=120, model_type="unigram",
                                             normalization_rule_name="nmt_nfkc", minloglevel=2, hard_vocab_limit=False)
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(out.getvalue())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def file(model, **parts):
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return base | parts | {"model": model}


def trained_bpe():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    made.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=420, show_progress=False))
    import json
    model = json.loads(made.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [list(pair) for pair in model["merges"]]


def spm_bpe(pieces, merges, specials=("<unk>", "<s>", "</s>"), byte_pieces=range(256), **settings):
    names = list(specials) + [f"<0x{b:02X}>" for b in byte_pieces] + [p for p in pieces if p not in specials]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
             "byte_fallback": True, "ignore_merges": False, "vocab": {name: i for i, name in enumerate(names)}, "merges": merges}
    return model | settings


def trained_unigram():
    import json
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    made.train_from_iterator(TRAINING * 4, trainers.UnigramTrainer(vocab_size=400, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]))
    return [entry for entry in json.loads(made.to_str())["model"]["vocab"] if entry[0] != "<unk>"]


def unigram(pieces, specials=("<pad>", "</s>", "<unk>"), unknown=2, extra=(), **settings):
    return {"type": "Unigram", "unk_id": unknown, "vocab": [[s, 0.0] for s in specials] + [list(p) for p in pieces] + [list(e) for e in extra], "byte_fallback": False} | settings


FLAGS = [added("<unk>", special=True), added("<s>", special=True), added("</s>", special=True), added("<mask>", lstrip=True, special=True), added("<sep>", rstrip=True),
         added("<both>", lstrip=True, rstrip=True, normalized=True), added("der", single_word=True, normalized=True), added("word", single_word=True), added("  ", rstrip=True),
         added("Quick", normalized=True), added("\u00e9t", normalized=True), added("fox jumps", normalized=True), added("abc"), added("ab"), added("\u4e00", single_word=True),
         added("<spec-norm>", special=True, normalized=True), added("a", normalized=True, lstrip=True, single_word=True)]


def spm_variants():
    pieces, merges = trained_bpe()
    llama = spm_bpe(pieces, merges)
    bos = template(llama["vocab"], "<s>", None)
    tokens = special("<unk>", "<s>", "</s>")
    base = dict(added_tokens=tokens, post_processor=bos, decoder=LLAMA_DECODER)
    old_metaspace = {"type": "Metaspace", "replacement": MARK, "str_rep": MARK, "add_prefix_space": True}
    partial = spm_bpe(pieces, merges, byte_pieces=[b for b in range(256) if b not in (0x80, 0xC3, 0x0A)])
    nllb = spm_bpe(pieces, merges, specials=("<s>", "<pad>", "</s>", "<unk>"), byte_pieces=(), byte_fallback=False)
    nllb_tokens = special("<s>", "<pad>", "</s>", "<unk>") + special("eng_Latn", "fra_Latn") + [added("<mask>", lstrip=True, special=True)]
    table = {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
    nllb_vocab = nllb["vocab"] | {"eng_Latn": len(nllb["vocab"])}
    legacy_merges = [" ".join(pair) for pair in merges]
    return {
        "spm_legacy": file(llama, **base | {"normalizer": LEGACY}),
        "spm_legacy_regex": file(llama | {"merges": legacy_merges}, **base | {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"Regex": " "}, "content": MARK}]}}),
        "spm_first": file(llama, **base | {"pre_tokenizer": metaspace("first", False)}),
        "spm_first_split": file(llama, **base | {"pre_tokenizer": metaspace("first", True)}),
        "spm_always": file(llama, **base | {"pre_tokenizer": metaspace("always", False), "decoder": metaspace("always", False)}),
        "spm_never": file(llama, **base | {"pre_tokenizer": metaspace("never", True), "decoder": metaspace("never", True)}),
        "spm_old_metaspace": file(llama, **base | {"pre_tokenizer": old_metaspace, "decoder": old_metaspace}),
        "spm_flags_legacy": file(llama, **base | {"normalizer": LEGACY, "added_tokens": FLAGS}),
        "spm_flags_first": file(llama, **base | {"pre_tokenizer": metaspace("first", False), "added_tokens": FLAGS}),
        "spm_flags_lower": file(llama, **base | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFC"}]}, "pre_tokenizer": metaspace("first", True), "added_tokens": FLAGS}),
        "spm_no_fallback": file(llama | {"byte_fallback": False}, **base | {"normalizer": LEGACY}),
        "spm_no_fallback_unfused": file(llama | {"byte_fallback": False, "fuse_unk": False}, **base | {"normalizer": LEGACY}),
        "spm_partial_bytes": file(partial, **base | {"normalizer": LEGACY}),
        "spm_ignore_merges": file(llama | {"ignore_merges": True}, **base | {"pre_tokenizer": metaspace("always", True)}),
        "spm_gemma": file(llama, **base | {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": MARK}, "pre_tokenizer":
            {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
            "decoder": {"type": "Sequence", "decoders": [REPLACE_MARK, {"type": "ByteFallback"}, {"type": "Fuse"}]}}),
        "spm_strip_first": file(llama, **base | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}, "pre_tokenizer": metaspace("first", True)}),
        "spm_words_first": file(llama, **base | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("first", True)]}}),
        "spm_affixes": file(spm_affixes(), decoder={"type": "BPEDecoder", "suffix": "</w>"}, pre_tokenizer={"type": "Whitespace"}, added_tokens=special("<unk>")),
        "nllb": file(nllb, added_tokens=nllb_tokens, normalizer={"type": "Sequence", "normalizers": [table, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
                     pre_tokenizer=metaspace("always", True), decoder=metaspace("always", True), post_processor=template(nllb_vocab, "eng_Latn", None, "</s>")),
    }


def spm_affixes():
    """Old BPE with both affixes: merges over "##" pieces and words that end in "</w>"."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = ["<unk>"] + list(letters) + ["##" + c for c in letters] + [c + "</w>" for c in letters] + ["##" + c + "</w>" for c in letters]
    merges = [["t", "##h"], ["th", "##e</w>"], ["##o", "##x</w>"], ["f", "##ox</w>"], ["##e", "##r</w>"], ["d", "##er</w>"], ["##o", "##u"]]
    for left, right in merges:
        names.append(left + right[2:])
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", "fuse_unk": False, "byte_fallback": False,
            "vocab": {name: i for i, name in enumerate(dict.fromkeys(names))}, "merges": merges}


def unigram_variants():
    pieces = trained_unigram()
    t5 = unigram(pieces)
    ids = {entry[0]: i for i, entry in enumerate(t5["vocab"])}
    byte_pieces = [[f"<0x{b:02X}>", 0.0] for b in range(256)]
    table = {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
    sequence = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always", True)]}
    eos = template(ids, None, "</s>")
    tokens = special("<pad>", "</s>", "<unk>") + special("<extra_id_0>", "<extra_id_1>")
    base = dict(added_tokens=tokens, post_processor=eos, decoder=metaspace("always", True))
    low = [["xx", -40.0], ["\u2581\u2581", -3.0], ["ab", -1.0], ["abc", -1.5], ["bc", -0.5], ["c", -1.0], ["\u4e00\u4e8c", -99.0]]
    return {
        "t5": file(t5, **base | {"normalizer": table, "pre_tokenizer": sequence}),
        "t5_old_metaspace": file(t5, **base | {"normalizer": table, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": MARK, "str_rep": MARK, "add_prefix_space": True}]}}),
        "umt5": file(unigram(pieces, extra=byte_pieces, byte_fallback=True), **base | {"normalizer": {"type": "Sequence", "normalizers": [table, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
            "pre_tokenizer": metaspace("always", False), "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace("always", True)]}}),
        "unigram_bytes": file(unigram(pieces, extra=byte_pieces[:200], byte_fallback=True), **base | {"pre_tokenizer": metaspace("first", True), "decoder": LLAMA_DECODER}),
        "unigram_scores": file(unigram(pieces, extra=low), **base | {"normalizer": {"type": "NFKC"}, "pre_tokenizer": metaspace("never", True)}),
        "unigram_repeated": file(unigram(pieces, extra=[["the", -1.0], ["\u2581the", -50.0]]), **base | {"pre_tokenizer": metaspace("always", True)}),
        "xlnet": file(t5, **base | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "``"}, "content": "\""}, {"type": "Replace", "pattern": {"String": "''"}, "content": "\""},
            {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, table]}, "pre_tokenizer": metaspace("always", True)}),
        "nmt": file(t5, **base | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Strip", "strip_left": False, "strip_right": True}]},
            "pre_tokenizer": metaspace("always", True)}),
    }


def option_variants():
    """Pre-tokenizers, post-processors and decoders that the families above do not use together."""
    pieces, merges = trained_bpe()
    words = spm_bpe(pieces, merges)
    plain = dict(added_tokens=special("<unk>", "<s>", "</s>"))
    pair = {"sep": ["</s>", 2], "cls": ["<s>", 1]}
    cuts = {
        "whitespace": {"type": "Whitespace"}, "whitespace_split": {"type": "WhitespaceSplit"}, "bert": {"type": "BertPreTokenizer"},
        "punctuation": {"type": "Punctuation", "behavior": "Contiguous"}, "punctuation_isolated": {"type": "Punctuation"},
        "digits": {"type": "Digits", "individual_digits": True}, "digit_runs": {"type": "Digits", "individual_digits": False},
        "delimiter": {"type": "CharDelimiterSplit", "delimiter": "e"}, "fixed": {"type": "FixedLength", "length": 3},
    }
    made = {f"cut_{name}": file(words, **plain, pre_tokenizer=cut, decoder={"type": "Fuse"}) for name, cut in cuts.items()}
    made["bert_processing"] = file(words, **plain, normalizer=LEGACY, post_processor={"type": "BertProcessing"} | pair, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    made["roberta_processing"] = file(words, **plain, normalizer=LEGACY, post_processor={"type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": False} | pair,
                                      decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"Regex": "e+|\u2581"}, "content": "_"}, {"type": "Strip", "content": "_", "start": 2, "stop": 0}]})
    made["fused_then_replaced"] = file(words, **plain, normalizer=LEGACY, decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "\u2581+|o[nu]"}, "content": " "},
                                                                                             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})
    byte_words = byte_level_words()
    made["bytes_normalizer"] = file(byte_words, normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "ByteLevel"}]}, decoder={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                                    added_tokens=[added("\u00e9t\u00e9", normalized=True), added("a b", normalized=True), added("<|x|>", special=True), added("<|y z|>", special=True, normalized=True)])
    return made


def byte_level_words():
    import json
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=360, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return json.loads(made.to_str())["model"]


CHARSMAP = charsmap()


def build():
    return copy.deepcopy(spm_variants() | unigram_variants() | option_variants())
