"""Text from files is hostile wherever it is shown (reliability.md, section 5): strings in every field of a report, as a browser,
an XML parser, a spreadsheet's reader, Python and pdflatex see it. SWITCHYARD_HOSTILE: how many strings (50; by hand 500).

usage: hostile.py HOSTILE_DOCUMENT"""
import csv
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree
from html.parser import HTMLParser

from vectors import vectors

DRIVER = sys.argv.pop(1)
COUNT = int(os.environ.get("SWITCHYARD_HOSTILE", "50"))


class Counting(http.server.BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        Counting.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Texts(HTMLParser):
    """Text of elements, in order, by tag."""
    VOID = {"meta", "br", "hr", "img", "input", "link"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.found, self.tags, self.attributes = [], {}, {}, []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [name for name, _ in attributes]
        if tag not in self.VOID:
            self.open.append((tag, []))

    def handle_endtag(self, tag):
        while self.open:
            name, parts = self.open.pop()
            text = "".join(parts)
            self.found.setdefault(name, []).append(text)
            if self.open:
                self.open[-1][1].append(text)
            if name == tag:
                return

    def handle_data(self, data):
        if self.open:
            self.open[-1][1].append(data)


def texts(html):
    parser = Texts()
    parser.feed(html)
    parser.close()
    return parser


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-hostile-"))
        cls.strings = vectors(COUNT, cls.server.server_port)
        assert len(cls.strings) == COUNT, len(cls.strings)
        done = subprocess.run([DRIVER, cls.folder], input=json.dumps(cls.strings).encode(), capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        cls.expected = json.loads((cls.folder / "expected.json").read_text())
        cls.html = (cls.folder / "r.html").read_bytes().decode()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def browse(self, page):
        """The page's DOM after it has loaded, and what the console said; requests are in Counting.asked."""
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if chromium is None:
            self.skipTest("chromium is not installed")
        Counting.asked.clear()
        with tempfile.TemporaryDirectory(prefix="switchyard-chromium-") as profile:
            done = subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
                                   "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()], capture_output=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout.decode(), [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]

    def test_a_page_that_runs_scripts_is_noticed(self):
        page = self.folder / "control.html"
        page.write_text(f"<title>t</title><script>document.title='RAN'</script><img src='http://127.0.0.1:{self.server.server_port}/x'>")
        dom, _ = self.browse(page)
        self.assertIn("<title>RAN</title>", dom)
        self.assertEqual(Counting.asked, ["/x"])

    def test_nothing_runs_and_nothing_is_fetched_in_a_browser(self):
        dom, console = self.browse(self.folder / "r.html")
        self.assertEqual(Counting.asked, [])
        self.assertEqual(console, [])
        seen, given = texts(dom), texts(self.html)
        self.assertEqual(seen.found["title"][0], self.expected[0])
        self.assertNotIn("script", seen.tags)
        for name in seen.attributes:
            self.assertFalse(name.startswith("on"), name)
        for tag in ("h2", "td", "th", "figcaption", "caption", "text"):
            self.assertEqual(seen.tags.get(tag), given.tags.get(tag), tag)

    def test_the_browser_shows_the_text_that_was_given(self):
        dom, _ = self.browse(self.folder / "r.html")
        found = texts(dom).found
        line = lambda text: text.replace("\r\n", "\n").replace("\r", "\n")
        want = [line(one) for one in self.expected]
        self.assertEqual([line(one) for one in found["h2"][:COUNT]], want)
        cells = [line(one) for one in found["td"]]
        self.assertEqual(cells[0:2 * COUNT:2], want)  # a row of each section: text, 1
        heads = [line(one) for one in found["th"]]
        self.assertEqual(heads[0:2 * COUNT:2], want)
        titles = [line(one) for one in found["title"]]
        for one in want:  # tooltips of marks
            self.assertTrue(any(one in title for title in titles), one)
        self.assertEqual(cells[2 * COUNT:4 * COUNT], [one for pair in zip(want, want) for one in pair])  # provenance

    def test_the_data_in_the_page_are_what_was_shown(self):
        block = re.search(r'<template id="switchyard-report">(.*?)</template>', self.html, re.S).group(1)
        self.assertNotIn("<", block)
        data = json.loads(block)
        self.assertEqual([section["heading"] for section in data["sections"]], self.strings)

    def test_svg_is_well_formed_and_shows_the_text(self):
        for i, want in enumerate(self.expected):
            root = xml.etree.ElementTree.parse(self.folder / f"chart-{i}.svg").getroot()
            tags = {element.tag.split("}")[1] for element in root.iter()}
            self.assertLessEqual(tags, {"svg", "title", "rect", "path", "text"})
            if i % 2 == 0:
                self.assertEqual(root.findtext("{http://www.w3.org/2000/svg}title"), want.replace("\r\n", "\n").replace("\r", "\n"))

    def test_csv_runs_nothing_in_a_spreadsheet(self):
        for i, want in enumerate(self.strings):
            with open(self.folder / f"chart-{i}.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
            self.assertEqual(len(rows), 2)
            self.assertFalse(rows[1][0][:1] in tuple("=+-@\t\r"), rows[1][0])
            self.assertEqual(rows[1][0].removeprefix("'") if want[:1] in tuple("=+-@\t\r") else rows[1][0], want)

    def test_scripts_are_python_with_the_text_in_it(self):
        for i in range(COUNT):
            source = (self.folder / f"chart-{i}.py").read_text()
            compile(source, f"chart-{i}.py", "exec")

    def test_markdown_has_no_html_and_no_pictures_of_others(self):
        text = (self.folder / "r.md").read_text()
        fenced = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.S | re.M)
        html = re.search(r"<(?!http|mailto)[a-zA-Z!/?].{0,80}", fenced)
        self.assertIsNone(html)
        for target in re.findall(r"(?<!\\)!\[[^\]]*\]\(([^)]*)\)", fenced):
            self.assertTrue(target.startswith("figures/"), target)

    def test_pdflatex_compiles_it_and_runs_nothing(self):
        if shutil.which("pdflatex") is None:
            self.skipTest("pdflatex is not installed")
        done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "r.tex"], cwd=self.folder, capture_output=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout.decode(errors="replace")[-3000:])
        self.assertFalse((self.folder / "RAN").exists())

    def test_the_pdf_embeds_its_fonts(self):
        if shutil.which("pdffonts") is None:
            self.skipTest("pdffonts is not installed")
        done = subprocess.run(["pdffonts", self.folder / "r.pdf"], capture_output=True, timeout=120)
        rows = done.stdout.decode().splitlines()[2:]
        self.assertTrue(rows)
        for row in rows:
            self.assertRegex(row, r"yes +(yes|no) +(yes|no) +\d+ +\d+$")


unittest.main()
