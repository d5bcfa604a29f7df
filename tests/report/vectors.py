"""Strings that attack what shows them: HTML and SVG, Markdown, LaTeX, spreadsheets, terminals, eyes. PORT becomes the port
of a server that counts requests; every script among them would ask it for something, or change the page's title."""

ASK = "http://127.0.0.1:PORT/x"
RUN = f"fetch('{ASK}');document.title='RAN'"

BASE = [
    f"<script>{RUN}</script>", f"</script><script>{RUN}</script>", f"<ScRiPt >{RUN}</sCrIpT >", f"<script src={ASK}></script>",
    f"<img src={ASK}>", f"<img src=x onerror=\"{RUN}\">", f"<img/src=x/onerror={RUN}>", f"<svg onload=\"{RUN}\">", f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin=\"{RUN}\" attributeName=x dur=1s>", f"<body onload=\"{RUN}\">", f"<iframe src=\"javascript:{RUN}\"></iframe>",
    f"<iframe srcdoc=\"&lt;script&gt;{RUN}&lt;/script&gt;\"></iframe>", f"<object data={ASK}></object>", f"<embed src={ASK}>", f"<link rel=stylesheet href={ASK}>",
    f"<style>@import '{ASK}';</style>", f"<style>body{{background:url({ASK})}}</style>", f"<meta http-equiv=refresh content=\"0;url={ASK}\">",
    f"<base href={ASK}>", f"<form action={ASK}><input autofocus onfocus=\"{RUN}\"></form>", f"<details open ontoggle=\"{RUN}\">", f"<video><source onerror=\"{RUN}\"></video>",
    f"<audio src={ASK} autoplay>", f"<a href=\"javascript:{RUN}\">x</a>", f"\" onmouseover=\"{RUN}\" x=\"", f"' onfocus='{RUN}' autofocus x='", f"\"><img src={ASK}>",
    f"'><img src={ASK}>", f"</title><script>{RUN}</script>", f"</style><script>{RUN}</script>", f"</template><script>{RUN}</script>", f"</textarea><script>{RUN}</script>",
    f"--><script>{RUN}</script>", f"]]><script>{RUN}</script>", f"<!--<img src=\"--><img src={ASK}>", f"<![CDATA[<script>{RUN}</script>]]>", f"<noscript><p title=\"</noscript><img src={ASK}>\">",
    f"<math><mtext></mtext><script>{RUN}</script></math>", f"<svg><foreignObject><iframe src={ASK}></iframe></foreignObject></svg>", f"<svg><use href={ASK}#x></use></svg>",
    f"<svg><image href={ASK}></image></svg>", f"<title>{RUN}", f"<plaintext>", f"<xmp>", f"<!DOCTYPE html><html>", f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM '{ASK}'>]><x>&e;</x>",
    "&lt;script&gt;", "&amp;lt;", "&#60;script&#62;", "&#x3c;img src=x&#x3e;", "\\u003cscript\\u003e", "%3Cscript%3E", "{{7*7}}", "${7*7}", "`id`", "$(id)", "'; DROP TABLE x;--",
    f"[x](javascript:{RUN})", f"![x]({ASK})", f"![x]({ASK} \"t\")", f"<{ASK}>", "**bold** _it_ `code` ~~no~~", "| a | b |", "# not a heading", "- not an item", "1. not an item", "> no quote", "```\nfence\n```", "$$x$$", "[^1]: foot", "<b>bold</b>", "&copy; &nbsp;",
    "\\input{/etc/passwd}", "\\write18{touch RAN}", "\\immediate\\write18{touch RAN}", "\\def\\x{\\x}\\x", "\\catcode`\\%=12", "\\end{document}", "\\begin{verbatim}", "$", "$$", "%", "#1", "^^5c", "~^_{}&%$#\\", "\\\\", "\\[4pt]", "[3pt] x", "* star", "--- -- -", "``x''", "\\verb|x|", "\\openout15=RAN", "\\includegraphics{/etc/passwd}", "}{", "{", "}",
    "=1+1", "+1", "-1+1", "@SUM(A1)", "=cmd|'/C calc'!A0", "\t=1", "\r=1", "a,b", "a\"b", "a;b", "line\nfeed", "tab\there",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x00nul", "\x07bell", "\x7fdel", "\x0bvt", "\x0cff", "\r\n\r\n", "a\rb",
    "\u202eabc", "\u202dabc", "\u2066abc\u2069", "a\u200bb", "a\u200db", "\ufeffbom", "\u2028line", "\u2029par", "\u00adsoft", "\u061cx", "\ufffe", "\uffff", "\U000e0041tag",
    "漢字かな", "Кириллица", "العربية", "עברית", "emoji 🎉", "e\u0301", "ﬁ", "ß", "İ", "ǅ", "＜script＞", "ʼ", "‘’“”", "…", "−", "×", "Δ", "→", "�", "x" * 300, "W" * 120, " ", "  two  spaces  ", "\u00a0nbsp", "", "null", "undefined", "NaN", "1e309", "0x10", "true",
]


def vectors(count, port):
    """The first `count` of the base strings, and of them in surroundings that parsers trip over."""
    around = [("", ""), ("a", "b"), ("\"", "\""), ("<", ">"), ("&", ";"), ("\n", "\n"), ("<p>", "</p>"), ("'", "'"), ("<!--", "-->")]
    out = []
    for before, after in around:
        for one in BASE:
            out.append((before + one + after).replace("PORT", str(port)))
            if len(out) == count:
                return out
    return out
