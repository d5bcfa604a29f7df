"""switchyard report: the same numbers in every rendering, files that others open, reports that rebuild themselves."""
import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import unittest
import xml.etree.ElementTree
from html.parser import HTMLParser

import h5py
import numpy

from support import PARQUET, PROMPTS, CliTest, run

SVG = "{http://www.w3.org/2000/svg}"


class Cells(HTMLParser):
    """Rows of every table, and the texts of every <title>, in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tables, self.titles, self.inside = [], [], None
        self.feed(html)

    def handle_starttag(self, tag, _):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = "cell"
        elif tag == "title":
            self.titles.append("")
            self.inside = "title"

    def handle_endtag(self, tag):
        if tag in ("td", "th", "title"):
            self.inside = None

    def handle_data(self, data):
        if self.inside == "cell":
            self.tables[-1][-1][-1] += data
        elif self.inside == "title":
            self.titles[-1] += data


def data_of(html):
    return json.loads(re.search(r'<template id="switchyard-report">(.*?)</template>', html, re.S).group(1))


def blocks(report, kind):
    return [(section, block) for section in report["sections"] for block in section["blocks"] if kind in block]


class ReportTest(CliTest):
    @classmethod
    def setUpClass(cls):
        import tempfile
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-report-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        cls.trace = cls.shared / "demo.moetrace.h5"
        done = run("run", "demo", "--prompt-file", PROMPTS / "mixed.txt", "--max-new-tokens", 96, "--trace", cls.trace, "--capture", "logits", "--greedy")
        assert done.returncode == 0, done.stderr

    def report(self, *more, name="r.html", trace=None):
        target = self.folder / name
        done = run("report", trace or self.trace, "-o", target, "--force", *more)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return target

    def test_the_default_report_is_small_quick_and_needs_nothing_else(self):
        began = time.monotonic()
        html = self.report().read_text()
        self.assertLess(time.monotonic() - began, 10 * float(os.environ.get("SWITCHYARD_SLOWER", "1")))
        self.assertLess(len(html.encode()), 5_000_000)
        self.assertNotIn("<script", html)
        self.assertIn("default-src 'none'", html)
        self.assertNotRegex(html, r"(src|href)=\"(?!#)")
        self.assertIn("@media print", html)

    def test_page_data_picture_and_table_hold_the_same_numbers(self):
        html = self.report().read_text()
        page, report = Cells(html), data_of(html)
        shown = lambda cell: "" if cell is None else "true" if cell is True else "false" if cell is False else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
        compared = 0
        for (_, block), table in zip(blocks(report, "table"), page.tables):
            self.assertEqual(table[0], block["table"]["columns"])
            for got, want in zip(table[1:], block["table"]["rows"], strict=True):
                for cell, number in zip(got, want, strict=True):
                    if isinstance(number, float):
                        self.assertEqual(float(cell), float(f"{number:.6g}"))
                    else:
                        self.assertEqual(cell, shown(number))
                    compared += 1
        self.assertGreater(compared, 100)
        # Marks of pictures say their values in full.
        said = 0
        for _, block in blocks(report, "chart"):
            chart = block["chart"]
            if chart["kind"] not in ("bars", "heat_map", "lines"):
                continue
            for r, row in enumerate(chart["rows"]):
                for c, column in enumerate(chart["columns"]):
                    value = chart["values"][r * len(chart["columns"]) + c]
                    if value is None or len(chart["values"]) > 4096:
                        continue
                    ends = [title for title in page.titles if re.search(rf": {re.escape(repr(value).removesuffix('.0'))}\b", title) or title.endswith(f": {value}")]
                    self.assertTrue(ends, (chart["name"], row, column, value))
                    said += 1
        self.assertGreater(said, 300)

    def test_the_geometry_of_bars_and_the_colours_of_a_map_are_their_values(self):
        figures = self.folder / "figures"
        self.report("--sections", "load", "--figures", figures)
        for file in figures.glob("*maxvio.svg"):
            root = xml.etree.ElementTree.parse(file).getroot()
            bars = [(float(one.find(f"{SVG}title").text.rsplit(": ", 1)[1]), float(one.get("height"))) for one in root.iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]
            self.assertEqual(len(bars), 8)
            scale = bars[0][1] / bars[0][0]
            for value, height in bars:
                self.assertAlmostEqual(height / scale, value, delta=0.02 / scale)
        cells = [(float(one.find(f"{SVG}title").text.rsplit(": ", 1)[1]), one.get("fill"))
                 for one in xml.etree.ElementTree.parse(next(figures.glob("*counts.svg"))).getroot().iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]
        self.assertEqual(len(cells), 8 * 32)
        # A diverging map with 1 in its middle: blue falls with the value above, red below.
        above = sorted((value, int(fill[5:7], 16)) for value, fill in cells if value > 1)
        self.assertEqual([blue for _, blue in above], sorted((blue for _, blue in above), reverse=True))
        below = sorted((value, int(fill[1:3], 16)) for value, fill in cells if value < 1)
        self.assertEqual([red for _, red in below], sorted(red for _, red in below))

    def test_numbers_are_those_of_the_analyses_and_of_numpy(self):
        report = data_of(self.report("--sections", "load,distribution").read_text())
        said = json.loads(run("analyze", self.trace, "load", "--json").stdout)
        table = next(block["table"] for _, block in blocks(report, "table"))
        column = table["columns"].index("gini")
        self.assertEqual([row[column] for row in table["rows"]], [layer["gini"] for layer in said["layers"]])
        chart = next(block["chart"] for _, block in blocks(report, "chart") if block["chart"]["kind"] == "ridge")
        with h5py.File(self.trace) as file:
            entropy = file["/routing/entropy"][...]
        want = numpy.stack([numpy.histogram(row, bins=32, range=(0, numpy.log(32)))[0] for row in entropy])
        got = numpy.array(chart["values"]).reshape(8, 32)
        self.assertEqual(got.sum(), want.sum())
        self.assertLessEqual(abs(got - want).sum(), 4)  # a value on the edge of a bin, in float32

    def test_every_figure_and_table_carries_the_command_that_remakes_it(self):
        report = data_of(self.report("--template", "placement-study", "--gpus", 4).read_text())
        commands = [block["command"] for _, block in blocks(report, "table") + blocks(report, "chart")]
        self.assertGreater(len(commands), 8)
        import shlex
        for command in sorted(set(commands)):
            words = shlex.split(command)
            self.assertEqual(words[0], "switchyard")
            words = [str(self.folder / word) if word in ("figures.html", "figures") else word for word in words[1:]]
            done = run(*words, *(["--force"] if words[0] == "report" else []))
            self.assertEqual(done.returncode, 0, (command, done.stderr.decode()))
        for section, block in blocks(report, "table"):
            words = shlex.split(block["command"])
            if "--csv" not in words or block["table"].get("left_out"):
                continue
            rows = list(csv.reader(run(*words[1:]).stdout.decode().splitlines()))
            self.assertEqual(rows[0], block["table"]["columns"])
            for got, want in zip(rows[1:], block["table"]["rows"], strict=True):
                for cell, number in zip(got, want, strict=True):
                    self.assertEqual(cell if isinstance(number, (str, bool)) or number is None else float(cell), ("" if number is None else str(number).lower() if isinstance(number, bool) else number), block["caption"])

    def test_rebuilding_says_whether_anything_changed(self):
        target = self.report()
        document = self.json_of("report", "report", "--rebuild", target)
        self.assertTrue(document["same"])
        self.assertGreater(document["numbers"], 500)
        self.assertEqual(document["changes"], [])
        html = target.read_text()
        number = next(cell for _, block in blocks(data_of(html), "table") for row in block["table"]["rows"] for cell in row if isinstance(cell, float))
        block = html.index('<template id="switchyard-report">')
        target.write_text(html[:block] + html[block:].replace(json.dumps(number), "12345.5", 1))
        document = self.json_of("report", "report", "--rebuild", target, code=9)
        self.assertFalse(document["same"])
        self.assertEqual([(change["was"], change["is"]) for change in document["changes"]], [(12345.5, number)])
        done = run("report", "--rebuild", target)
        self.assertEqual(done.returncode, 9)
        self.assertIn("12345.5 then", done.stdout.decode())

    def test_a_report_is_rebuilt_from_the_data_beside_a_pdf_and_only_from_the_same_trace(self):
        own = self.folder / "own.moetrace.h5"
        shutil.copy(self.trace, own)
        target = self.report("--sections", "load,text", name="r.pdf", trace=own)
        self.assertEqual(run("report", "--rebuild", target).returncode, 0)
        with h5py.File(own, "r+") as file:
            file.attrs["touched"] = 1
        done = run("report", "--rebuild", target)
        self.assertEqual(done.returncode, 9)
        self.assertIn("is another file now: SHA-256", done.stderr.decode())
        own.unlink()
        done = run("report", "--rebuild", target)
        self.assertEqual(done.returncode, 3)
        self.assertIn("beside the report", done.stderr.decode())

    def test_of_a_model_it_records_a_trace_first(self):
        target = self.report("--sections", "facts,load", trace="demo", name="m.html")
        own = self.folder / "m.moetrace.h5"
        with h5py.File(own) as file:
            domains = [name.decode() if isinstance(name, bytes) else name for name in file["domains/name"][:]]
        names = sorted(one.stem for one in PROMPTS.glob("*.txt"))
        self.assertEqual(domains, names)
        self.assertIn(own.name, target.read_text())
        self.assertEqual(run("report", "--rebuild", target).returncode, 0)
        # The trace is that of `score`: same tokens, same experts.
        texts = self.write("texts.jsonl", "".join(json.dumps({"text": (PROMPTS / f"{name}.txt").read_text(), "domain": name}) + "\n" for name in names))
        scored = self.folder / "scored.moetrace.h5"
        self.assertEqual(run("score", "demo", "--texts", texts, "--trace", scored).returncode, 0)
        with h5py.File(own) as a, h5py.File(scored) as b:
            self.assertTrue((a["tokens/token_id"][:] == b["tokens/token_id"][:]).all())
            self.assertTrue((a["routing/expert_id"][:] == b["routing/expert_id"][:]).all())
        self.assert_refused(5, "exists already", "report", "demo", "-o", self.folder / "m.pdf")
        self.assert_refused(2, "are read by a model", "report", own, "--texts", texts, "-o", self.folder / "n.html")
        self.assert_refused(2, "needs a trace", "report", "demo", "--dry-run", "-o", self.folder / "n.html")
        self.assert_refused(3, "none.jsonl", "report", "demo", "--texts", self.folder / "none.jsonl", "-o", self.folder / "n.html")
        self.assertFalse((self.folder / "n.html").exists() or (self.folder / "n.moetrace.h5").exists())

    def test_what_is_no_report_is_refused(self):
        for name, content, message in [("a.html", "<html></html>", "holds no report of Switchyard"), ("b.report.json", '{"schema":1,"type":"workspace"}', "is no report"),
                                       ("c.report.json", '{"schema":99,"type":"report"}', "has schema 99"), ("d.html", '<template id="switchyard-report">{"schema":1,</template>', "d.html"),
                                       ("e.report.json", '{"schema":1,"type":"report","inputs":[],"request":{"schema":1,"items":[{"source":"nonsense"}]}}', "names a source that is unknown here")]:
            self.assert_refused(4, message, "report", "--rebuild", self.write(name, content))
        self.assert_refused(2, "needs .html, .pdf, .tex or .md", "report", self.trace, "-o", self.folder / "r.doc")
        self.assert_refused(2, "compares two traces", "report", self.trace, "--template", "before-after", "-o", self.folder / "r.html")
        self.assert_refused(2, "is neither an analysis nor a study", "report", self.trace, "--sections", "loud", "-o", self.folder / "r.html")
        self.assert_refused(2, "--windows", "report", self.trace, "--section", "srp:windows=x", "-o", self.folder / "r.html")
        self.assert_refused(3, "none.moetrace.h5", "report", self.folder / "none.moetrace.h5", "-o", self.folder / "r.html")

    def test_an_old_file_stays_unless_forced_and_a_dry_run_writes_nothing(self):
        target = self.write("r.html", "old")
        self.assert_refused(5, "exists already", "report", self.trace, "-o", target)
        self.assertEqual(target.read_text(), "old")
        done = run("report", self.trace, "-o", self.folder / "s.md", "--sections", "load", "--dry-run")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(sorted(one.name for one in self.folder.iterdir()), ["r.html"])
        self.assertIn("s.report.json", done.stdout.decode())

    def test_figures_come_in_two_widths_with_data_and_a_script(self):
        figures = self.folder / "figures"
        self.report("--sections", "load,affinity,text", "--figures", figures)
        stems = sorted(one.stem for one in figures.glob("*.py"))
        self.assertGreaterEqual(len(stems), 5)
        for stem in stems:
            for suffix in ("svg", "pdf", "png", "csv", "json"):
                self.assertTrue((figures / f"{stem}.{suffix}").exists(), stem)
            for wide, points in (("", 234), ("-wide", 486)):
                root = xml.etree.ElementTree.parse(figures / f"{stem}{wide}.svg").getroot()
                self.assertEqual(root.get("width"), f"{points}pt")
                for text in root.iter(f"{SVG}text"):
                    self.assertGreaterEqual(float(text.get("font-size")), 6.5)  # points, at the size it is printed
                self.assertEqual((figures / f"{stem}{wide}.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        if PARQUET:
            self.assertTrue(all((figures / f"{stem}.parquet").read_bytes()[:4] == b"PAR1" for stem in stems))
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            self.skipTest("matplotlib is not installed: scripts were not run")
        for stem in stems:
            done = subprocess.run(["/usr/bin/python3", figures / f"{stem}.py"], capture_output=True, timeout=120, env=os.environ | {"MPLCONFIGDIR": str(self.folder)})
            self.assertEqual(done.returncode, 0, (stem, done.stderr.decode()))
            self.assertTrue((figures / f"{stem}.redrawn.pdf").exists())

    def test_pdflatex_compiles_the_tables(self):
        self.report("--template", "pruning-study", name="r.tex")
        if shutil.which("pdflatex") is None:
            self.skipTest("pdflatex is not installed (texlive-latex-recommended)")
        done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "r.tex"], cwd=self.folder, capture_output=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout.decode(errors="replace")[-2000:])
        self.assertNotIn("Overfull", "".join(line for line in done.stdout.decode(errors="replace").splitlines() if re.search(r"Overfull .hbox \((\d{3,})", line)))

    def test_the_pdf_has_text_vectors_and_its_fonts(self):
        target = self.report(name="r.pdf")
        if shutil.which("pdffonts") is None:
            self.skipTest("poppler-utils is not installed")
        fonts = subprocess.run(["pdffonts", target], capture_output=True).stdout.decode().splitlines()[2:]
        self.assertTrue(fonts)
        for row in fonts:
            self.assertRegex(row, r"yes +yes +(yes|no) +\d+ +\d+$")
        text = subprocess.run(["pdftotext", target, "-"], capture_output=True).stdout.decode()
        self.assertIn("Model card of routing", text)
        self.assertIn("Where the numbers come from", text)
        images = subprocess.run(["pdfimages", "-list", target], capture_output=True).stdout.decode().splitlines()[2:]
        self.assertEqual(images, [])

    def test_before_and_after_compares_two_traces(self):
        edited = self.folder / "edited.moetrace.h5"
        done = run("run", "demo", "--prompt-file", PROMPTS / "mixed.txt", "--max-new-tokens", 1, "--trace", edited, "--capture", "logits", "--greedy",
                   "--edits", self.edits({"kind": "mute", "layer": 2, "expert": [1, 2, 3]}))
        self.assertEqual(done.returncode, 0, done.stderr)
        report = data_of(self.report("--against", edited, "--template", "before-after").read_text())
        self.assertEqual(len(report["inputs"]), 2)
        edits = next(block["table"] for section, block in blocks(report, "table") if section["heading"] == "The edits")
        self.assertEqual([row[2] for row in edits["rows"]], ["mute"])
        said = json.loads(run("trace", "compare", self.trace, edited, "--json").stdout)
        table = next(block["table"] for section, block in blocks(report, "table") if section["heading"] == "What changed" and block["table"]["name"] == "layers")
        self.assertEqual([row[table["columns"].index("jaccard")] for row in table["rows"]], [layer["jaccard"] for layer in said["layers"]])

    def test_markdown_names_pictures_that_are_there(self):
        text = self.report(name="r.md").read_text()
        for target in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
            self.assertTrue((self.folder / target).exists(), target)
        self.assertGreater(len(re.findall(r"^\| --- ", text, re.M)), 4)

    def test_text_shows_the_words_of_the_prompt(self):
        report = data_of(self.report("--sections", "text").read_text())
        chart = next(block["chart"] for _, block in blocks(report, "chart"))
        words = "".join(chart["columns"])
        self.assertIn((PROMPTS / "mixed.txt").read_text().strip()[:40], words)

    def test_the_same_trace_gives_the_same_bytes(self):
        first = self.report().read_bytes()
        for threads in (1, 3):
            self.assertEqual(self.report("--threads", threads).read_bytes(), first)


if __name__ == "__main__":
    unittest.main()
