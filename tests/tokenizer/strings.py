"""Hostile and multilingual text for make_goldens.py and differential.py, and a little text to train vocabularies on."""

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


# What a hostile reader of section 3 would try: every script, spaces, sequences, look-alikes of added tokens and bytes.
SCRIPTS = [
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0", "\u0532\u0561\u0580\u0565\u0582", "\u12a0\u121b\u122d\u129b \u1369\u136a", "\u1000\u103c\u1014\u103a\u1019\u102c\u1005\u102c",
    "\u1781\u17d2\u1798\u17c2\u179a", "\u0e9e\u0eb2\u0eaa\u0eb2\u0ea5\u0eb2\u0ea7", "\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51\u0f0d", "\u1826\u1822\u182f\u1820", "\u13a0\u13b4\u13a9 \uab70\uab71",
    "\u1401\u1403\u14c4\u1483", "\u16a0\u16a2\u16a6 \u1680 \u1681", "\u2c00\u2c01 \u2c30", "\u2d30\u2d31\u2d4f", "\ua4d0\ua4d1", "\ua500\ua501", "\ua6a0", "\u0a97\u0ac1\u0a9c", "\u0a2a\u0a70\u0a1c\u0a3e\u0a2c\u0a40",
    "\u0b24\u0b2e\u0b3f\u0b34\u0bcd", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd", "\u0c24\u0c46\u0c32\u0c41\u0c17\u0c41", "\u0c95\u0ca8\u0ccd\u0ca8\u0ca1", "\u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02", "\u0dc3\u0dd2\u0d82\u0dc4\u0dbd",
    "\u0710\u0712\u072a", "\u0780\u07a7\u0781", "\u07ca\u07cb", "\u0840\u0841", "\U00010330\U00010331", "\U00010400\U00010428", "\U00010900", "\U00010a00\U00010a01", "\U00011083\U000110b9", "\U00012000\U00012001",
    "\U00013000\U00013001", "\U00016800", "\U0001b000", "\U0001d400\U0001d7ff", "\U0001e900\U0001e922", "\U00020000\U00020001\U0002a6d6", "\U0002b740\U0002f800\U0002fa1d", "\U00030000\U00031350", "\U000323af\U0002ebf0",
]
SPACES = ["\u0009", "\u000a", "\u000b", "\u000c", "\u000d", "\u0020", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008", "\u2009",
          "\u200a", "\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "\u2420", "\u00ad", "\u034f", "\u115f", "\u3164", "\uffa0"]
DIGITS = ["\u0660\u0665", "\u06f0\u06f9", "\u07c0", "\u0966\u096f", "\u09e6", "\u0a66", "\u0be6\u0bf0", "\u0c66", "\u0ce6", "\u0d66\u0d70", "\u0e50", "\u0ed0", "\u0f20\u0f2a", "\u1040", "\u17e0", "\u1810", "\uff10\uff19", "\U0001d7ce\U0001d7d8",
          "\u00bc\u00bd", "\u2460\u2474", "\u2160\u216b", "\u3007\u3021", "\u4e00\u4e8c\u5341\u767e", "\u0bf0\u0bf1", "\U00010107", "\u2189", "\U0001fbf0\U0001fbf9"]
HOSTILE = (
    SCRIPTS + [f"a{space}b{space}{space}c{space}" for space in SPACES] + [f"x{digits}y {digits} {digits}1" for digits in DIGITS] + [
        "\u2581", "\u2581\u2581", "a\u2581b \u2581c\u2581 ", " \u2581a", "\u2581 a", "<0x41>", "<0x0A><0xFF>", "<0x4", "<unk>", "<s>", "</s>", "<s> <s>a</s>\n", " <s> ", "a<s>b</s>c", "<s", "s>",
        "<extra_id_0> <extra_id_1>", "<mask>x <mask> y<mask>", "eng_Latn", "[INST] a [/INST]", "<|im_start|>user\nhi<|im_end|>\n", "\u00abquoted\u00bb", "Stra\u00dfe STRASSE \u017fit\u212a\u212b", "IT'\u017f it'\u212a 'M'm 'LL'll 'Ve",
        "\u1e9b\u0323", "\ufb01\ufb02\ufb00\ufb03 \ufb06", "\u2460\u2461 \u33c2 \u337f", "\uff21\uff22\uff23 \uff41\uff42", "\uff76\uff9e\uff77\uff9f \uff66", "\u3131\u3161 \uac00\u11a8", "\u1112\u1161\u11ab\u1100\u1173\u11af",
        "\uff21\u0301 \u00aa\u0301 \u00aa\u0308\u0323 \u2126\u0301", "\u00aa\u094d \u00aa\u200d \u00aa\ufe0f", "\r\n \r\n\r\n\n\r", "\u0e33 \u0eb3 \u0f77", "\u0300", "\u200d\u200d", "\u0600\u0661 \u06dd1", "\u1f1e6", "\U0001f1e6\U0001f1e7\U0001f1e8", "\U0001f468\U0001f3fd\u200d\U0001f680",
        "\u2764\u200d\U0001f525", "#\ufe0f\u20e3", "\U000e0067\U000e007f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\ud7b0\ud7cb", "\ue000\uf8ff", "\U000fffff\U00100000", "\u0378\u0379", "\u05ff\u2fff", "\U0001ffff\U000e0fff",
        "\U00011f00\U00011f04", "\U0001e4d0\U0001e4f0", "\U00010d40\U00010d4a", "\ua7cb\ua7da", "\u1c89\u1c8a", "\U0001ccf0", "\U00016d40\U00016d70", "\u0897", "\u1acf", "\U00011bc0", "\U000105c0", "\U00010ec2",
        "\x00", "\x00\x00a\x00", "a\x00", "\x01\x02\x03\x7f\x80\x9f", "\u200b\u200bzero\u200bwidth\u200b", "\u202b\u05e9\u05dc\u05d5\u05dd\u202c abc", "\u2067\u0645\u0631\u062d\u0628\u0627\u2069!", "a\u0308\u0308\u0308\u0308\u0308", "\u0915\u094d\u0937\u093f \u0915\u093c",
        "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m", "\u0130stanbul \u0131\u015f\u0131k", "\u039f\u0394\u039f\u03a3 \u1fb3\u1fbc\u03ac", "\u01c4\u01c5\u01c6 \u1c90\u10d0", "\ua64a\u1c88", "\u1e9e \u00df",
        "...!?!?...", "\u3001\u3002\u300c\u300d\uff0c\uff01", "\u060c\u061b\u061f", "\u0964\u0965", "\u05be\u05c3", "\u2e2e\u2e3a", "\u00a1\u00bf\u00a7\u00b6", "_\u203f_\uff3f", "\u0060\u00b4\u02c6\u02dc", "$+<=>^|~", "\u00ac\u00b1\u00d7\u00f7", "\u20ac\u20bf\u20c0",
        "\u2190\u21d2\u2200\u2211\u222b", "\u250c\u2500\u2510", "\u2800\u28ff", "\u2655\u265b", "\u4dc0\u4dff", "\u302a\u3099", "\u2ff0\u2ffb", "\u31c0", "\u32ff", "a" * 700, "ab " * 200, " " * 700 + "x", "\n" * 300 + "y", "\t" * 200, "\u2581" * 300, "\u3000" * 100,
        "\u4e00" * 200, "\U0001f600" * 100, "\u0301" * 200, "x" + " \n" * 100, "-" * 500, "0" * 500, "a\n" * 200, "\u00e9\u0301" * 100, "\r\n" * 100, "\u00a0" * 100 + "z", "A" * 40 + "b" * 40 + "1" * 40 + "!" * 40,
        "The quick brown fox jumps over 13 lazy dogs.", "der Router leitet das Token an den Experten weiter", "le routeur envoie le jeton \u00e0 l'expert", "for (int i = 0; i < 10; ++i) {\n\tx[i] += 1;\n}", "    indented\n        more\n", "SELECT * FROM t WHERE a='b';",
        "http://x.y/z?q=1&r=%C3%A9", "user@example.org", "2026-11-25T01:02:03Z", "1e-5 0x1F 1_000 1,234.5", "C++20 & C#", "(a(b[c{d}e]f)g)", "e.g., i.e. etc...", "I'm you're he's we've they'll I'd don't", "O'Brien's rock'n'roll 'tis", "\u2019tis don\u2019t",
    ])
