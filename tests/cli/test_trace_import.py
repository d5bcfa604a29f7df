"""switchyard trace import: the JSON of specs/cli-json.md, exit codes, files that are left; the written trace with h5py."""
import gzip
import json
import unittest

import h5py

from support import SOURCE, CliTest, run

FOREIGN = SOURCE / "tests/data/foreign"
LOGS = SOURCE / "../shared/data/router-logs/esft"
GOOD = "1\t2\t\t0.5\t0.25\n3\t0\t4\t5\t\t0.25\t0.5\t0.1\t0.3\n"


class Import(CliTest):
    def logs(self, **layers):
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        for name, text in layers.items():
            (folder / f"expert_weights_{name[1:]}.txt").write_text(text)
        return folder

    def test_esft_gives_the_object_of_the_specification(self):
        folder = self.logs(l1=GOOD)
        (folder / "expert_weights_10.txt.gz").write_bytes(gzip.compress(GOOD.encode()))
        (folder / "notes.md").write_text("not a log")
        out = self.folder / "a.h5"
        document = self.json_of("trace_import", "trace", "import", "--from", "esft", folder, "-o", out, "--experts", 8, "--top-k", 2)
        self.assertEqual(document["trace"], {"path": str(out), "tokens": 3, "sequences": 2, "layers": 2, "experts": 8, "top_k": 2, "moe_layers": [1, 10]})
        self.assertEqual((document["command"], document["schema"], document["source"]), ("trace import", 1, "esft"))
        with h5py.File(out) as file:
            self.assertEqual(file["routing/expert_id"][0].tolist(), [[1, 2], [0, 3], [5, 4]], "ranked by weight, not as they stand")
            self.assertEqual(file["sequences/offset"][:].tolist(), [0, 1, 3])
            self.assertEqual(file.attrs["id_order"], "weight_desc")
            self.assertEqual((file.attrs["complete"], file.attrs["weights_renormalised"]), (1, 0))
            self.assertNotIn("token_id", file["tokens"])
            meta = json.loads(file["meta/run"].asstr()[()])
            self.assertEqual([f["name"] for f in meta["source"]["files"]], ["expert_weights_1.txt", "expert_weights_10.txt.gz"])
        self.assertEqual(run("trace", "verify", out).returncode, 0)

    def test_refusals_name_file_and_line_and_leave_nothing(self):
        out = self.folder / "a.h5"
        folder = self.logs(l1=GOOD, l7=GOOD.replace("4\t5", "4\t9"))
        self.assert_refused(4, "expert_weights_7.txt:2: names expert 9", "trace", "import", "--from", "esft", folder, "-o", out, "--experts", 8, "--top-k", 2)
        self.assert_refused(4, "expert_weights_1.txt:1: has 2 ids, which is not a multiple of k = 6", "trace", "import", "--from", "esft", folder, "-o", out)
        self.assert_refused(3, "could not be opened", "trace", "import", "--from", "esft", self.folder / "nowhere", "-o", out)
        self.assert_refused(3, "holds no expert_weights_{L}.txt", "trace", "import", "--from", "esft", self.folder, "-o", out)
        self.assert_refused(2, "--top-k 6 of --experts 4", "trace", "import", "--from", "esft", folder, "-o", out, "--experts", 4, "--top-k", 6)
        self.assert_refused(2, "is no known format", "trace", "import", "--from", "esf", folder, "-o", out)
        self.assert_refused(2, "needs to end in .h5", "trace", "import", "--from", "esft", folder, "-o", self.folder / "a.txt")
        self.assert_refused(2, "is no list of layers", "trace", "import", folder, "-o", out, "--moe-layers", "5-2")
        self.assert_refused(4, "is no dump that is known by its look", "trace", "import", self.write("x.bin", b"\0" * 64), "-o", out)

    def test_writes_over_a_file_only_with_force(self):
        out = self.write("taken.h5", "mine")
        folder = self.logs(l1=GOOD)
        arguments = ("trace", "import", folder, "-o", out, "--experts", 8, "--top-k", 2)
        self.assert_refused(5, "exists already", *arguments)
        self.assertEqual(run(*arguments, "--force").returncode, 0)
        self.assertEqual(run("trace", "verify", out).returncode, 0)

    def test_counts_say_what_they_cannot_do(self):
        out = self.folder / "counts.moetrace.h5"
        document = self.json_of("trace_import", "trace", "import", FOREIGN / "sglang/made_by_us_stat.pt", "-o", out, "--top-k", 2)
        self.assertTrue(document["counts_only"])
        self.assertEqual(document["trace"]["tokens"], 48)
        self.assertIn("/routing, /tokens, /sequences", [one["field"] for one in document["missing"]])
        with h5py.File(out) as file:
            self.assertNotIn("routing", file)
            self.assertEqual(file["agg/count"].shape, (4, 8))
            self.assertEqual(int(file["agg/pass_count"][:].sum()), int(file["agg/count"][:].sum()))
        info = self.json_of("trace", "trace", "info", out)
        self.assertEqual(info["capture"], "off")
        shown = run("trace", "import", FOREIGN / "sglang/made_by_us_stat.pt", "-o", self.folder / "b.h5").stdout.decode()
        self.assertIn("no tokens", shown)
        self.assertIn("disables", shown)
        done = run("analyze", out, "coactivation", "--json")
        self.assertNotEqual(done.returncode, 0, "counts are no tokens")
        self.assertIn("counts only", done.stderr.decode())

    @unittest.skipUnless(LOGS.is_dir(), "the shared logs are not beside this checkout")
    def test_real_logs_give_the_published_numbers(self):
        for task in ("intent", "translation"):
            out = self.folder / f"{task}.h5"
            document = self.json_of("trace_import", "trace", "import", "--from", "esft", LOGS / task, "-o", out)
            expected = json.loads((LOGS / task / "expected.json").read_text())
            self.assertEqual(document["trace"]["moe_layers"], list(range(1, 27)))
            for name, options in (("load", ()), ("esft", ("--threshold", "0.2", "--score", "token"))):
                result = json.loads(run("analyze", out, name, *options, "--json").stdout)
                for layer, want in zip(result["layers"], expected[name]["layers"]):
                    for key in ("counts", "experts"):
                        if key in want:
                            self.assertEqual(layer[key], want[key], f"{task}, {name}, layer {layer['layer']}")


if __name__ == "__main__":
    unittest.main()
