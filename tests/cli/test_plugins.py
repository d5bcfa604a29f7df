"""Plugins from outside: the SDK is installed into an empty prefix, the examples and every template are built with it and
nothing else, checked, trusted and run; their numbers against h5py and numpy."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
from html.parser import HTMLParser

import h5py
import numpy as np

from support import PROGRAM, SOURCE, CliTest, run

BUILD = pathlib.Path(PROGRAM).resolve().parent.parent
EXAMPLES = ["noisy-gate", "weight-spread", "token-table", "slots-csv", "routes-text", "slot-share"]
KINDS = ["scheme", "edit", "metric", "view", "reader", "writer", "report"]
DATA_KINDS = ["section", "command", "theme"]
BUILT = EXAMPLES + [f"my-{kind}" for kind in KINDS] + ["hostile"]
# A report section of a plugin that gives hostile texts wherever a text goes.
HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "</template><b>out</b>", "\\input{/etc/passwd} $x$ % #", "=1+1", "a | b", "[x](javascript:alert(1))",
           "\u202eright to left", "`code` *star* _line_", "& < > \" '", "tab\tand\nline"]
HOSTILE_SOURCE = """#include <switchyard/plugin.hpp>
static const char* const kTexts[] = {%s};
struct Hostile : sy::ReportSection {
  void write(const sy_trace&, std::span<const double> parameters, const sy::ReportOut& out) override {
    const std::string text = kTexts[size_t(parameters[0])];
    out.heading(text);
    out.text("before " + text + " after");
    sy::ReportTable table{"words", text, {sy::column("what", text.c_str()), sy::column("number")}};
    table.rows.push_back({text, 1.5});
    table.rows.push_back({"empty", NAN});
    out.table(table);
    for (uint32_t kind = 0; kind < 8; ++kind) {
      sy::ReportChart chart{.kind = kind, .name = "chart", .title = text, .caption = text, .quantity = text, .row_title = text, .column_title = text};
      chart.rows = {text, "second"}, chart.columns = {text, "b"};
      if (kind == SY_CHART_FLOW) chart.links = {{sizeof(sy_report_link), 0, 1, 2, 0.5}};
      else if (kind == SY_CHART_POINTS) chart.points = {{text, 0.5, 0.01}}, chart.side_a = text, chart.side_b = text;
      else chart.values = {1, NAN, 3, 4};
      if (kind == SY_CHART_LINES) chart.low = {0, NAN, 2, 3}, chart.high = {2, NAN, 4, 5}, chart.baseline = 2, chart.baseline_title = text;
      if (kind == SY_CHART_HEAT_MAP) chart.marked = {1, 0, 0, 1}, chart.mark_title = text, chart.middle = 2;
      out.chart(chart);
    }
  }
};
SWITCHYARD_PLUGIN(plugin) { plugin.report_section<Hostile>("hostile.section"); }
"""
WORLD = {}


class Shown(HTMLParser):
    """What a browser would show, and the elements that it would make."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.text, self.tags, self.quiet = "", set(), False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.tags |= {f"@{name}" for name, _ in attributes}
        self.quiet = self.quiet or tag == "template"

    def handle_endtag(self, tag):
        self.quiet = self.quiet and tag != "template"

    def handle_data(self, data):
        self.text += "" if self.quiet else data


def write_hostile(folder):
    folder.mkdir()
    parameter = {"name": "which", "type": "integer", "default": 0, "min": 0, "max": len(HOSTILE) - 1}
    (folder / "plugin.json").write_text(json.dumps({"id": "hostile", "version": "1.0", "title": "Hostile", "contract": {"core": 1}, "library": "hostile",
                                                    "contributes": {"report_sections": [{"id": "hostile.section", "title": "Hostile", "parameters": [parameter]}]}}))
    (folder / "hostile.cpp").write_text(HOSTILE_SOURCE % ", ".join(json.dumps(text) for text in HOSTILE))
    (folder / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(hostile LANGUAGES CXX)\nfind_package(SwitchyardPlugin 1 REQUIRED)\nswitchyard_add_plugin(hostile hostile.cpp)\n")


def setUpModule():
    root = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-sdk-"))
    WORLD["root"] = root
    done = subprocess.run(["cmake", "--install", BUILD, "--component", "sdk", "--prefix", root / "prefix"], capture_output=True)
    assert done.returncode == 0, done.stderr
    tree = root / "tree"
    tree.mkdir()
    for example in EXAMPLES:
        shutil.copytree(SOURCE / "plugins/examples" / example, tree / example)
    for kind in KINDS + DATA_KINDS:
        done = run("plugin", "new", kind, f"my-{kind}", "--folder", tree / f"my-{kind}")
        assert done.returncode == 0, done.stderr
    write_hostile(tree / "hostile")
    # One configuration for all of them: each folder is a project of its own that finds the installed package.
    (tree / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.25)\nproject(all LANGUAGES CXX)\n" +
                                         "".join(f"add_subdirectory({name})\n" for name in BUILT))
    for command in (["cmake", "-S", tree, "-B", root / "build", f"-DCMAKE_PREFIX_PATH={root / 'prefix'}", "-DCMAKE_BUILD_TYPE=Release", f"-DSWITCHYARD={PROGRAM}"],
                    ["cmake", "--build", root / "build", "-j2"]):
        done = subprocess.run(command, capture_output=True)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    # What a user would drop into the plugin folder.
    for name in BUILT:
        target = root / ("more" if name == "hostile" else "plugins") / name
        target.mkdir(parents=True)
        for file in (root / "build" / name).iterdir():
            if file.suffix in (".so", ".json"):
                shutil.copy(file, target)
        target.chmod(0o755)
    for kind in DATA_KINDS:
        shutil.copytree(tree / f"my-{kind}", root / "plugins" / f"my-{kind}")


def tearDownModule():
    shutil.rmtree(WORLD["root"], ignore_errors=True)


class Plugins(CliTest):
    def setUp(self):
        super().setUp()
        self.env = {f"XDG_{name}_HOME": str(self.folder / name) for name in ("CONFIG", "DATA", "STATE")}
        self.env["SWITCHYARD_PLUGIN_PATH"] = str(WORLD["root"] / "plugins")

    def go(self, *arguments, code=0):
        done = run(*arguments, env=self.env)
        self.assertEqual(done.returncode, code, (arguments, done.stderr.decode()))
        return done

    def json(self, *arguments, code=0):
        return json.loads(self.go(*arguments, "--json", code=code).stdout)

    def trust(self, *names):
        for name in names:
            self.go("plugin", "trust", name)

    def scheme(self, name, **parameters):
        file = self.folder / "recipe.edits.json"
        file.write_text(json.dumps({"schema": 1, "edits": [{"kind": "scheme", "layer": "all", "name": name, "parameters": parameters}]}))
        return file

    def record(self, *options, name="run.moetrace.h5", tokens=24):
        out = self.folder / name
        done = self.go("run", "demo", "--prompt", "The router", "--greedy", "--ignore-eos", "--max-new-tokens", tokens, "--trace", out, "--force", *options)
        return out, done

    def test_every_example_is_short_and_needs_the_sdk_alone(self):
        for example in EXAMPLES:
            for source in (SOURCE / "plugins/examples" / example).glob("*.cpp"):
                text = source.read_text()
                self.assertLess(text.count("\n"), 100, source)
                self.assertEqual(set(re.findall(r"#include <(\w+)/", text)), {"switchyard"}, source)

    def test_check_passes_for_examples_and_templates(self):
        for name in EXAMPLES + [f"my-{kind}" for kind in KINDS + DATA_KINDS]:
            report = self.json("plugin", "check", WORLD["root"] / "plugins" / name)
            self.assertTrue(report["passed"], report)
            self.assertGreaterEqual(len(report["checks"]), 2)

    def test_list_runs_nothing_and_tells_all(self):
        listed = self.json("plugin", "list")
        self.assertEqual(listed["contracts"], {"core": 1, "view": 1})
        found = {plugin["id"]: plugin for plugin in listed["plugins"]}
        self.assertEqual(set(found), set(EXAMPLES) | {f"my-{kind}" for kind in KINDS + DATA_KINDS})
        noisy = found["noisy-gate"]
        self.assertEqual(noisy["state"], "not trusted")
        library = WORLD["root"] / "plugins/noisy-gate/libnoisy_gate.so"
        digest = subprocess.run(["sha256sum", library], capture_output=True, text=True).stdout.split()[0]
        self.assertEqual(noisy["sha256"], digest)
        self.assertEqual(noisy["contributes"][0]["parameters"][0]["max"], 4)
        self.assertEqual(found["my-theme"]["state"], "ready", "data needs no trust")

    def test_contributions_appear_where_such_things_are_listed(self):
        names = [scheme["name"] for scheme in self.json("recipe", "list")["schemes"]]
        for name in ("noisy-gate.noisy_top_k", "my-scheme.gate", "my-edit.edit"):
            self.assertIn(name, names)
        shown = self.json("recipe", "show", "noisy-gate.noisy_top_k")
        self.assertIn("plugin noisy-gate", shown["source"])
        self.assertIn("weight-spread.participation", self.go("analyze", "--help").stdout.decode())
        self.assertIn("slots-csv.csv", self.go("trace", "export", "--help").stdout.decode())
        self.assertIn("routes-text.routes", self.go("trace", "import", "--help").stdout.decode())
        self.assertRegex(self.go("report", "--help").stdout.decode(), r"(?s)slot-share\.slots +What each slot carries.*least: a slot below this share could be left out \(0\.1\)")
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("slot-share.slots", self.go("completion", shell).stdout.decode())

    def test_nothing_runs_without_trust_by_hash(self):
        file = self.scheme("noisy-gate.noisy_top_k")
        arguments = ("run", "demo", "--prompt", "a", "--max-new-tokens", 2, "--edits", file)
        self.assertIn("not trusted", self.go(*arguments, code=8).stderr.decode())
        digest = {p["id"]: p["sha256"] for p in self.json("plugin", "list")["plugins"]}["noisy-gate"]
        self.go(*arguments, "--trust-plugin", f"sha256:{digest}")
        self.go(*arguments, code=8)  # for that run alone
        self.go("plugin", "trust", "noisy-gate")
        self.go(*arguments)
        self.assertIn("safe mode", self.go(*arguments, "--safe-mode", code=8).stderr.decode())
        self.go("plugin", "off", "noisy-gate")
        self.assertIn("off", self.go(*arguments, code=8).stderr.decode())
        self.go("plugin", "on", "noisy-gate")
        self.go(*arguments)
        self.go("plugin", "untrust", "noisy-gate")
        self.go(*arguments, code=8)

    def test_a_changed_library_asks_anew_and_a_shared_folder_is_refused(self):
        mine = self.folder / "mine/noisy-gate"
        shutil.copytree(WORLD["root"] / "plugins/noisy-gate", mine)
        self.env["SWITCHYARD_PLUGIN_PATH"] = str(self.folder / "mine")
        self.trust("noisy-gate")
        state = lambda: self.json("plugin", "list")["plugins"][0]["state"]
        self.assertEqual(state(), "ready")
        with open(mine / "libnoisy_gate.so", "ab") as library:
            library.write(b"\0")
        self.assertEqual(state(), "not trusted")
        self.trust("noisy-gate")
        mine.chmod(0o777)
        self.assertEqual(state(), "refused")

    def test_a_scheme_without_noise_is_top_k_and_with_noise_repeats(self):
        self.trust("noisy-gate")
        ours, _ = self.record("--edits", self.scheme("noisy-gate.noisy_top_k", sigma=0), name="a.moetrace.h5")
        theirs, _ = self.record("--edits", self.scheme("top_k"), name="b.moetrace.h5")
        with h5py.File(ours) as a, h5py.File(theirs) as b:
            np.testing.assert_array_equal(a["routing/expert_id"][:], b["routing/expert_id"][:])
            np.testing.assert_allclose(a["routing/weight"][:], b["routing/weight"][:], atol=1e-6)
            np.testing.assert_array_equal(a["tokens/token_id"][:], b["tokens/token_id"][:])
        runs = [self.record("--edits", self.scheme("noisy-gate.noisy_top_k", sigma=2, seed=seed), name=f"{i}.moetrace.h5")[0] for i, seed in enumerate((3, 3, 4))]
        ids = [h5py.File(path)["routing/expert_id"][:] for path in runs]
        np.testing.assert_array_equal(ids[0], ids[1])
        self.assertTrue(ids[0].shape != ids[2].shape or (ids[0] != ids[2]).any())

    def test_templates_run(self):
        self.trust("my-scheme", "my-edit", "my-metric")
        trace, done = self.record("--edits", self.scheme("my-scheme.gate", sharpness=1))
        self.assertNotIn("warning", done.stderr.decode())
        self.record("--edits", self.scheme("my-edit.edit", pull=0.5), name="b.moetrace.h5")
        native, _ = self.record(name="c.moetrace.h5")
        flat, _ = self.record("--edits", self.scheme("my-edit.edit", pull=0), name="d.moetrace.h5")
        with h5py.File(native) as a, h5py.File(flat) as b:
            np.testing.assert_array_equal(a["routing/expert_id"][:], b["routing/expert_id"][:], "no pull: the model's own decisions")
            np.testing.assert_array_equal(a["routing/weight"][:], b["routing/weight"][:])
        table = self.json("analyze", trace, "my-metric.metric")["experts"]
        with h5py.File(trace) as file:
            ids = file["routing/expert_id"][:]
        for row, layer in enumerate(sorted({one["layer"] for one in table})):
            counts = np.bincount(ids[row, :, 0], minlength=len([one for one in table if one["layer"] == layer]))
            self.assertEqual([one["first_choices"] for one in table if one["layer"] == layer], counts.tolist())

    def test_a_metric_is_what_numpy_says_and_marked_as_the_plugins(self):
        self.trust("weight-spread")
        trace, _ = self.record()
        found = self.json("analyze", trace, "weight-spread.participation")
        self.assertEqual(found["plugin"], "weight-spread 1.0.0")
        with h5py.File(trace) as file:
            weights = file["routing/weight"][:].astype(np.float64)
            empty = file["routing/expert_id"][:] == (255 if file["routing/expert_id"].dtype == np.uint8 else 65535)
        weights[empty] = 0
        n = weights.sum(2) ** 2 / (weights ** 2).sum(2)
        self.assertEqual(len(found["layers"]), n.shape[0])
        for row, layer in enumerate(found["layers"]):
            self.assertEqual(layer["tokens"], n.shape[1])
            self.assertAlmostEqual(layer["mean"], n[row].mean(), places=9)
            self.assertAlmostEqual(layer["deviation"], n[row].std(), places=6)
        self.assertEqual(len(found["histogram"]), 8 * n.shape[0])
        self.go("plugin", "set", "weight-spread", "bins", "4")
        self.assertEqual(len(self.json("analyze", trace, "weight-spread.participation")["histogram"]), 4 * n.shape[0])
        self.assertIn("needs 1 to 64", self.go("plugin", "set", "weight-spread", "bins", "65", code=2).stderr.decode())
        self.assertIn("It has bins", self.go("plugin", "set", "weight-spread", "bin", "6", code=2).stderr.decode())

    def test_a_writer_writes_what_the_trace_holds(self):
        self.trust("slots-csv")
        trace, _ = self.record()
        out = self.folder / "slots.csv"
        self.go("trace", "export", trace, "--to", "slots-csv.csv", "-o", out)
        lines = [line.split(",") for line in out.read_text().splitlines()]
        self.assertEqual(lines[0], ["sequence", "position", "token_id", "layer", "slot", "expert", "weight"])
        with h5py.File(trace) as file:
            ids, weights, tokens = file["routing/expert_id"][:], file["routing/weight"][:], file["tokens/token_id"][:]
        expected = [(t, int(tokens[t]), slot, int(ids[0, t, slot]), float(weights[0, t, slot])) for t in range(ids.shape[1]) for slot in range(ids.shape[2])]
        first_layer = [line for line in lines[1:] if line[3] == lines[1][3]]
        self.assertEqual([(int(l[1]), int(l[2]), int(l[4]), int(l[5]), float(np.float32(l[6]))) for l in first_layer], expected)
        self.assertIn("exists already", self.go("trace", "export", trace, "--to", "slots-csv.csv", "-o", out, code=5).stderr.decode())

    def test_a_reader_reads_and_names_file_and_line(self):
        self.trust("routes-text")
        dump = self.folder / "a.routes"
        dump.write_text("routes 1 8\n# a remark\n17 0=3:0.75,5:0.25 4=2:1\n9 0=1:0.5,0:0.5 4=7:1\n\n5 0=6:0.9,7:0.1 4=0:1\n")
        out = self.folder / "a.moetrace.h5"
        document = self.json("trace", "import", dump, "-o", out)
        self.assertEqual(document["source"], "routes-text.routes")
        self.assertTrue(any("routes-text 1.0.0" in note for note in document["notes"]))
        with h5py.File(out) as file:
            self.assertEqual(file["routing/expert_id"][0].tolist(), [[3, 5], [0, 1], [6, 7]])
            self.assertEqual(file["routing/expert_id"][1, :, 0].tolist(), [2, 7, 0])
            self.assertEqual(file["tokens/token_id"][:].tolist(), [17, 9, 5])
            self.assertEqual(file["sequences/offset"][:].tolist(), [0, 2, 3])
        self.go("trace", "verify", out)
        dump.write_text("routes 1 8\n17 0=x:1\n")
        self.assertIn("a.routes:2: needs a number", self.go("trace", "import", "--from", "routes-text.routes", dump, "-o", out, "--force", code=8).stderr.decode())

    def report(self, *options, name="r.html", trace=None, code=0):
        out = self.folder / name
        done = self.go("report", trace or self.trace_here(), "-o", out, "--force", *options, code=code)
        if code:
            return None, done.stderr.decode()
        text = out.read_text()
        data = text.split('<template id="switchyard-report">')[1].split("</template>")[0] if name.endswith(".html") else (self.folder / (out.stem + ".report.json")).read_text()
        return json.loads(data), text

    def trace_here(self):
        if not hasattr(self, "made"):
            self.made = self.record()[0]
        return self.made

    def test_a_report_section_is_what_numpy_says_and_marked_as_the_plugins(self):
        self.trust("slot-share", "my-report")
        report, _ = self.report("--section", "slot-share.slots:least=0.3", "--sections", "load")
        section = next(one for one in report["sections"] if one["id"] == "slot-share-slots")
        self.assertEqual(section["heading"], "What each slot carries")
        digest = {p["id"]: p["sha256"] for p in self.json("plugin", "list")["plugins"]}["slot-share"]
        whose, text, chart, table = section["blocks"]
        self.assertIn(digest, whose["text"])
        self.assertIn(["sections by", f"plugin slot-share 1.0.0, SHA-256 {digest}"], report["provenance"])
        with h5py.File(self.made) as file:
            weights = file["routing/weight"][:].astype(np.float64)
            weights[file["routing/expert_id"][:] == (255 if file["routing/expert_id"].dtype == np.uint8 else 65535)] = 0
        share = weights / weights.sum(2, keepdims=True)
        np.testing.assert_allclose(np.reshape(chart["chart"]["values"], share.shape[::2]), share.mean(1), atol=1e-12)
        light = (share[:, :, -1] < 0.3).sum(1)
        self.assertEqual(table["table"]["columns"], ["layer", "tokens", "light (tokens)", "first_slot (share)", "judgement"])
        self.assertEqual([row[2] for row in table["table"]["rows"]], light.tolist())
        self.assertIn(f"**{int(100 * light.sum() / share[:, :, 0].size + 0.5)} %**", text["text"])
        for block in (chart, table):
            self.assertTrue(block["caption"].endswith("Numbers of the plugin slot-share 1.0.0."), block["caption"])
            self.assertIn("--section 'slot-share.slots:least=0.3'", block["command"].replace("--section slot-share.slots:least=0.3", "--section 'slot-share.slots:least=0.3'"))
        self.assertIn("The same:", self.go("report", "--rebuild", self.folder / "r.html").stdout.decode())
        with h5py.File(self.made) as file:
            first = file["routing/expert_id"][:, :, 0]
        ours = self.report("--sections", "my-report.section")[0]["sections"][0]["blocks"][2]["chart"]
        expected = np.stack([np.bincount(row, minlength=len(ours["columns"])) / first.shape[1] for row in first])
        np.testing.assert_allclose(np.reshape(ours["values"], expected.shape), expected, atol=1e-12)

    def test_what_is_asked_of_a_report_section_is_checked_first(self):
        self.assertIn("not trusted", self.report("--sections", "slot-share.slots", code=8)[1])
        self.trust("slot-share")
        self.assertIn("0 to 1", self.report("--section", "slot-share.slots:least=2", code=2)[1])
        self.assertIn("It has least", self.report("--section", "slot-share.slots:most=2", code=2)[1])
        ids = self.record("--capture", "ids", name="ids.moetrace.h5")[0]
        report, _ = self.report("--sections", "slot-share.slots,facts", trace=ids)
        self.assertIn("needs /routing/weight", report["sections"][0]["blocks"][1]["text"])
        self.assertEqual(report["sections"][1]["id"], "facts")

    def test_a_ready_made_section_is_an_analysis_with_a_note(self):
        report, _ = self.report("--sections", "my-section.section")
        ours, = report["sections"]
        theirs, = self.report("--sections", "load")[0]["sections"]
        self.assertEqual(ours["heading"], "My section")
        self.assertEqual(ours["blocks"][0]["text"], "How evenly the experts of each layer were chosen.")
        self.assertEqual(ours["blocks"][1:], theirs["blocks"])

    def test_hostile_texts_of_a_section_are_shown_and_do_nothing(self):
        self.env["SWITCHYARD_PLUGIN_PATH"] = str(WORLD["root"] / "more")
        self.trust("hostile")
        plain = Shown(self.report("--sections", "facts")[1]).tags
        for which, text in enumerate(HOSTILE):
            with self.subTest(text):
                report, html = self.report("--section", f"hostile.section:which={which}")
                section, = report["sections"]
                self.assertEqual(section["heading"], text)
                self.assertEqual(section["blocks"][2]["table"]["rows"], [[text, 1.5], ["empty", None]])
                self.assertEqual([block["chart"]["title"] for block in section["blocks"][3:]], [text] * 8)
                shown = Shown(html)
                known = {"figure", "figcaption", "svg", "rect", "path", "text", "title", "g", "line", "circle", "polyline", "polygon", "details", "summary", "em", "strong", "code", "table", "defs", "pattern", "clippath", "lineargradient", "stop", "tspan"}
                self.assertFalse({tag for tag in shown.tags - plain if not tag.startswith("@")} - known, shown.tags)
                self.assertFalse({tag for tag in shown.tags if tag.startswith("@on")})
                if "\u202e" not in text and "\t" not in text:
                    self.assertGreaterEqual(shown.text.count(text), 10, "heading, cell, captions, titles")
                self.assertNotIn("\u202e", shown.text, "text that turns others around is shown by its name")
                self.assertNotIn("javascript:", "".join(re.findall(r'href="[^"]*"', html)))
                _, markdown = self.report("--section", f"hostile.section:which={which}", name="r.md")
                self.assertNotIn("<script>", markdown)
                _, latex = self.report("--section", f"hostile.section:which={which}", name="r.tex")
                self.assertNotIn("\\input{/", latex)

    def test_a_trace_and_its_report_name_the_plugin_that_routed(self):
        self.trust("noisy-gate")
        digest = {p["id"]: p["sha256"] for p in self.json("plugin", "list")["plugins"]}["noisy-gate"]
        ours, _ = self.record("--edits", self.scheme("noisy-gate.noisy_top_k", sigma=1), name="ours.moetrace.h5")
        expected = {"id": "noisy-gate", "version": "1.0.0", "sha256": digest, "schemes": ["noisy-gate.noisy_top_k"]}
        with h5py.File(ours) as file:
            self.assertIn(f'"sha256":"{digest}"', bytes(file["epochs/json"][:]).decode())
        self.assertEqual(self.json("trace", "info", ours)["plugins"], [expected])
        line = f"noisy-gate 1.0.0, SHA-256 {digest}: noisy-gate.noisy_top_k"
        self.assertIn(f"routed by the plugin {line}", self.go("trace", "info", ours).stdout.decode())
        report, _ = self.report("--sections", "facts", trace=ours)
        self.assertIn(["routed by the plugin", line], report["provenance"])
        commit = re.search(r"commit +(.+)", self.go("--version").stdout.decode()).group(1)
        self.assertIn(["commit", commit], report["provenance"])
        theirs, _ = self.record("--edits", self.scheme("top_k"), name="theirs.moetrace.h5")
        self.assertNotIn("plugins", self.json("trace", "info", theirs))
        self.go("trace", "verify", ours)
        recovered = self.folder / "packed.moetrace.h5"
        self.go("trace", "pack", ours, "-o", recovered)
        self.assertEqual(self.json("trace", "info", recovered)["plugins"], [expected], "copies keep it")

    def test_the_version_tells_the_contracts(self):
        self.assertIn("contract 1 for schemes, metrics and files, 1 for views", self.go("--version").stdout.decode())

    def test_new_refuses_what_is_there_and_what_is_no_name(self):
        self.assertIn("is no name", self.go("plugin", "new", "scheme", "My Gate", "--folder", self.folder / "x", code=2).stderr.decode())
        self.assertIn("exists already", self.go("plugin", "new", "scheme", "my-gate", "--folder", self.folder, code=5).stderr.decode())
        self.assertIn("no kind", self.go("plugin", "new", "spell", "my-gate", "--folder", self.folder / "x", code=2).stderr.decode())

    def test_a_broken_manifest_is_listed_with_its_path(self):
        broken = self.folder / "broken/some"
        broken.mkdir(parents=True)
        (broken / "plugin.json").write_text('{"id": "some", "version": "1", "title": "S", "contract": {"core": "one"}}')
        self.env["SWITCHYARD_PLUGIN_PATH"] = str(broken.parent)
        plugin = self.json("plugin", "list")["plugins"][0]
        self.assertEqual(plugin["state"], "refused")
        self.assertIn("/contract/core", plugin["why"])


if __name__ == "__main__":
    unittest.main()
