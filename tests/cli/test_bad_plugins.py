"""The 24 broken plugins of reliability.md section 8: in a process of their own (trial, metric, importer, report section) and in
the program itself (scheme). Whatever they do, the program lives and names them, or names them at its next start. Prints the table."""
import json
import os
import pathlib
import unittest

from support import PROGRAM, CliTest, run

BUILD = pathlib.Path(PROGRAM).resolve().parent.parent
PLUGINS = BUILD / "bad_plugins"
NAMES = ["null-write", "abort", "exit", "throw", "throw-in-constructor", "stack-overflow", "endless-loop", "deadlock", "leak", "double-free", "wrong-abi",
         "missing-symbol", "missing-dependency", "zero-table", "thread", "close-stderr", "setlocale", "chdir", "signal", "floats", "prints", "overrun",
         "not-a-number", "slow"]
# In the program: it goes down with these and names them when it starts again; they are refused when they are opened; the rest
# the program survives: replaced by the native gate, put back, or harmless.
DIES = {"null-write", "abort", "stack-overflow", "double-free"}
ENDS_BY_ITSELF = {"exit", "endless-loop", "deadlock"}  # the program says whose call it was, and ends with code 8
REFUSED = {"throw-in-constructor", "wrong-abi", "missing-symbol", "missing-dependency"}
FALLS_BACK = {"throw": "across the border", "zero-table": "filled 0 slots", "overrun": "past the end", "not-a-number": "not finite", "slow": "times in a row"}
CHANGES = {"close-stderr": "descriptor 2", "setlocale": "the locale", "chdir": "working folder", "signal": "signal 15", "floats": "floating-point"}
HARMLESS = {"leak", "thread", "prints"}
TABLE = []


class BadPlugins(CliTest):
    def setUp(self):
        super().setUp()
        self.env = {f"XDG_{name}_HOME": str(self.folder / name) for name in ("CONFIG", "DATA", "STATE")}
        self.env |= {"SWITCHYARD_PLUGIN_PATH": str(PLUGINS), "SWITCHYARD_PLUGIN_PATIENCE": "2", "SWITCHYARD_PLUGIN_HANG": "2", "SWITCHYARD_PLUGIN_CHECK_CALLS": "1",
                     "SWITCHYARD_PLUGIN_BUDGET_US": "1000"}

    def go(self, *arguments):
        return run(*arguments, env=self.env, timeout=120)

    def plugin(self, name):
        done = self.go("plugin", "list", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return {p["id"]: p for p in json.loads(done.stdout)["plugins"]}[f"bad-{name}"], done.stderr.decode()

    def test_twenty_four(self):
        self.assertEqual(len(NAMES), 24)
        self.assertEqual(DIES | ENDS_BY_ITSELF | REFUSED | set(FALLS_BACK) | set(CHANGES) | HARMLESS, set(NAMES))

    def test_in_a_process_of_their_own_the_program_lives(self):
        trace = self.folder / "a.moetrace.h5"
        self.assertEqual(self.go("run", "demo", "--prompt", "The router", "--max-new-tokens", 4, "--trace", trace).returncode, 0)
        dump = self.folder / "x.bad"
        dump.write_text("anything")
        for name in NAMES:
            with self.subTest(name):
                self.assertEqual(self.go("plugin", "trust", f"bad-{name}").returncode, 0)
                before = trace.read_bytes()
                outcomes = []
                for arguments in (("analyze", trace, f"bad-{name}.metric", "--json"), ("trace", "import", "--from", f"bad-{name}.reader", dump, "-o", self.folder / "b.moetrace.h5", "--force", "--json")):
                    done = self.go(*arguments)
                    self.assertIn(done.returncode, (0, 4, 8), done.stderr)
                    if done.returncode:
                        self.assertIn(f"bad", done.stderr.decode())
                        self.assertEqual(done.stdout, b"")
                    else:
                        json.loads(done.stdout)  # whatever was printed is not in it
                    outcomes.append(done.returncode)
                self.assertEqual(trace.read_bytes(), before)
                if name in DIES | REFUSED | {"exit", "throw", "endless-loop", "deadlock", "leak", "overrun", "zero-table"}:
                    self.assertIn(8, outcomes, name)
                TABLE.append((name, "own process", f"metric {'answers' if outcomes[0] == 0 else 'fails, named'}; importer {'answers' if outcomes[1] == 0 else 'fails, named'}"))

    def test_a_report_names_the_sections_that_fail_and_stays_whole(self):
        trace = self.folder / "a.moetrace.h5"
        self.assertEqual(self.go("run", "demo", "--prompt", "The router", "--max-new-tokens", 4, "--trace", trace).returncode, 0)
        for name in NAMES:
            self.assertEqual(self.go("plugin", "trust", f"bad-{name}").returncode, 0)

        def sections(*more):
            out = self.folder / "r.html"
            done = self.go("report", trace, "-o", out, "--force", "--sections", ",".join(("load", *more, "entropy")))
            self.assertEqual(done.returncode, 0, done.stderr)
            data = out.read_text().split('<template id="switchyard-report">')[1].split("</template>")[0]
            return {one["id"]: one for one in json.loads(data)["sections"]}, done.stderr.decode()

        alone, _ = sections()
        found, told = sections(*(f"bad-{name}.section" for name in NAMES))
        self.assertEqual({key: found[key] for key in alone}, alone, "what is not theirs is the same")
        fails = DIES | REFUSED | {"exit", "throw", "endless-loop", "deadlock", "leak", "zero-table", "overrun", "not-a-number"}
        for name in NAMES:
            blocks = found[f"bad-{name}-section"]["blocks"]
            missing = [block["text"] for block in blocks if "This section is missing" in block.get("text", "")]
            self.assertEqual(bool(missing), name in fails, (name, blocks))
            self.assertEqual(f"bad-{name}" in told, name in fails)
            if missing:
                self.assertIn("bad", missing[0])
                self.assertNotIn(str(PLUGINS), missing[0], "no path of this machine in a report")
            else:
                self.assertIn(f"Numbers of the plugin bad-{name} 1.0.", blocks[-1]["caption"])
            TABLE.append((name, "report section", "missing, named" if missing else "written"))

    def test_in_the_program_they_are_survived_or_named(self):
        for name in NAMES:
            with self.subTest(name):
                self.go("plugin", "trust", f"bad-{name}")
                script = self.folder / "a.edits.json"
                script.write_text(json.dumps({"schema": 1, "edits": [{"kind": "scheme", "layer": "all", "name": f"bad-{name}.scheme"}]}))
                done = self.go("run", "demo", "--prompt", "The router", "--max-new-tokens", 24, "--ignore-eos", "--edits", script, "--json")
                errors = done.stderr.decode()
                if name in DIES:
                    self.assertLess(done.returncode, 0, errors)
                    plugin, told = self.plugin(name)
                    self.assertEqual(plugin["state"], "off", told)
                    self.assertIn(f"bad-{name} is off: the program did not survive its route()", told)
                    self.assertEqual(self.go("run", "demo", "--prompt", "The router", "--max-new-tokens", 2, "--edits", script).returncode, 8, "it stays off")
                    outcome = "program dies, named and off at the next start"
                elif name in ENDS_BY_ITSELF:
                    self.assertEqual(done.returncode, 8, errors)
                    self.assertIn(f"bad-{name}", errors)
                    self.assertEqual(self.plugin(name)[0]["state"], "off")
                    outcome = "program ends with code 8 and its name; off at the next start"
                elif name in REFUSED:
                    self.assertEqual(done.returncode, 8, errors)
                    self.assertIn("bad_" + name.replace("-", "_"), errors)
                    outcome = "refused in its trial, by name"
                else:
                    self.assertEqual(done.returncode, 0, errors)
                    document = json.loads(done.stdout)
                    self.assertTrue(document)
                    words = FALLS_BACK.get(name) or CHANGES.get(name)
                    if words:
                        self.assertIn(f"bad-{name}", errors)
                        self.assertIn(words, errors)
                    outcome = "survived; native gate in its place, named" if name in FALLS_BACK else "survived; put back, named" if name in CHANGES else "survived"
                TABLE.append((name, "in the program", outcome))


def tearDownModule():
    for line in TABLE:
        print("%-22s %-15s %s" % line)


if __name__ == "__main__":
    unittest.main()
