"""switchyard trace export: every file is read back by something else than our code and holds what the trace holds."""
import csv
import io
import json

import h5py
import numpy as np

from support import PARQUET, SOURCE, CliTest, run

FOREIGN = SOURCE / "tests/data/foreign"
TRUTH = json.loads((FOREIGN / "made-by-us/routing.json").read_text())
LAYERS = TRUTH["moe_layers"]
COUNTS = np.array([TRUTH["counts"][str(layer)] for layer in LAYERS])


class Export(CliTest):
    def setUp(self):
        super().setUp()
        self.trace = self.folder / "a.moetrace.h5"
        done = run("trace", "import", FOREIGN / "moe-vis/made_by_us_expert_trace.jsonl", "-o", self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)

    def export(self, kind, name, *options, trace=None):
        target = self.folder / name
        arguments = ("trace", "export", trace or self.trace, "--to", kind, "-o", target, *options)
        planned = self.json_of("trace_export", *arguments, "--dry-run")
        self.assertFalse(target.exists())
        document = self.json_of("trace_export", *arguments)
        self.assertEqual({**planned, "written": True}, document, "--dry-run lists the same files and sizes")
        for file in document["files"]:
            self.assertEqual(file["bytes"], len((self.folder / file["path"]).read_bytes()))
        return target

    def placement(self, **content):
        return self.write("placement.json", json.dumps({"schema": 1, **content}))

    def test_npy_is_the_trace_field_by_field(self):
        folder = self.export("npy", "arrays")
        with h5py.File(self.trace) as file:
            ids = file["routing/expert_id"][:].astype(np.int32)
            np.testing.assert_array_equal(np.load(folder / "expert_id.npy"), np.where(ids == 255, -1, ids))
            for name in ("weight",):
                np.testing.assert_array_equal(np.load(folder / f"{name}.npy"), file[f"routing/{name}"][:])
            np.testing.assert_array_equal(np.load(folder / "position.npy"), file["tokens/position"][:])
            np.testing.assert_array_equal(np.load(folder / "phase.npy"), file["tokens/phase"][:])
            np.testing.assert_array_equal(np.load(folder / "sequence_offset.npy"), file["sequences/offset"][:])
        np.testing.assert_array_equal(np.load(folder / "moe_layers.npy"), LAYERS)
        self.assertFalse((folder / "token_id.npy").exists(), "the source has none")

    def test_csv_holds_the_sums(self):
        rows = list(csv.DictReader(io.StringIO(self.export("csv", "a.csv").read_text())))
        self.assertEqual(len(rows), 32)
        for row in rows:
            layer, expert = row["layer"], int(row["expert"])
            self.assertEqual(int(row["count"]), TRUTH["counts"][layer][expert])
            self.assertAlmostEqual(float(row["weight_sum"]), TRUTH["weight_sums"][layer][expert], places=4)
            self.assertEqual(int(row["count_top1"]), sum(ids[0] == expert for ids in TRUTH["topk_ids"][layer]))

    def test_jsonl_is_a_token_a_line(self):
        lines = [json.loads(line) for line in self.export("jsonl", "a.jsonl").read_text().splitlines()]
        self.assertEqual(len(lines), 48)
        for t, line in enumerate(lines):
            self.assertEqual((line["sequence"], line["position"], line["phase"]), (0, t, int(t >= 32)))
            for layer in line["layers"]:
                self.assertEqual(layer["experts"], TRUTH["topk_ids"][str(layer["layer"])][t])
                np.testing.assert_allclose(layer["weights"], TRUTH["topk_weights"][str(layer["layer"])][t], atol=1e-6)

    def test_parquet_is_a_choice_a_row(self):
        if not PARQUET:
            self.skipTest("built without Parquet")
        target = self.export("parquet", "a.parquet")
        self.assertEqual((target.read_bytes()[:4], target.read_bytes()[-4:]), (b"PAR1", b"PAR1"))
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            self.skipTest("pyarrow is not installed: the rows are not read back")
        table = parquet.read_table(target).to_pydict()
        self.assertEqual(list(table), ["token", "sequence", "layer", "slot", "expert", "weight", "position", "phase"])
        rows = iter(zip(*(table[name] for name in ("token", "layer", "slot", "expert", "weight", "position", "phase"))))
        for token in range(48):
            for layer in LAYERS:
                for slot, (expert, weight) in enumerate(zip(TRUTH["topk_ids"][str(layer)][token], TRUTH["topk_weights"][str(layer)][token])):
                    row = next(rows)
                    self.assertEqual(row[:4] + row[5:], (token, layer, slot, expert, token, int(token >= 32)))
                    self.assertAlmostEqual(row[4], weight, places=6)
        self.assertIsNone(next(rows, None))

    def test_sglang_location_has_a_row_for_every_layer_of_the_model(self):
        counts = json.loads(self.export("sglang-location", "a.json", "--layers", 6).read_text())["logical_count"]
        self.assertEqual([len(row) for row in counts], [8] * 6)
        self.assertEqual(counts[0], [0] * 8)
        np.testing.assert_array_equal(counts[1:5], COUNTS)
        physical = [[0, 1, 2, 3, 4, 5, 6, 7, e, 5] for e in range(4)]
        located = json.loads(self.export("sglang-location", "b.json", "--placement", self.placement(physical_to_logical=physical)).read_text())["physical_to_logical_map"]
        self.assertEqual(located, [[0, 1, 2, 3, 4, 5, 6, 7, 0, 1]] + physical, "the dense row is the identity")

    def test_torch_files_come_back_through_the_importer(self):
        for kind, name, reader in (("sglang-location", "a.pt", "sglang"), ("reap", "b.pt", "reap")):
            target = self.export(kind, name, trace=None if kind == "sglang-location" else self.observer())
            again = self.folder / f"{name}.h5"
            self.assertEqual(run("trace", "import", "--from", reader, target, "-o", again).returncode, 0)
            with h5py.File(again) as file:
                np.testing.assert_array_equal(file["agg/count"][:], COUNTS)
                if kind == "reap":
                    with h5py.File(self.observer()) as first:
                        for sum_of in ("weight_sum", "ean_sum", "reap_sum", "max_act"):
                            np.testing.assert_array_equal(file[f"agg/{sum_of}"][:], first[f"agg/{sum_of}"][:])

    def observer(self):
        path = self.folder / "observer.moetrace.h5"
        if not path.exists():
            self.assertEqual(run("trace", "import", FOREIGN / "reap/made_by_us_observer.pt", "-o", path).returncode, 0)
        return path

    def test_reap_says_what_is_missing(self):
        state = json.loads(self.export("reap", "a.json").read_text())
        self.assertEqual(state["3"]["expert_frequency"], TRUTH["counts"]["3"])
        self.assertNotIn("reap", state["3"])
        full = json.loads(self.export("reap", "b.json", trace=self.observer()).read_text())
        np.testing.assert_allclose(full["3"]["reap"], [0.28014, 0.37429, 0.38308, 0.45386, 0, 0, 0.7005, 0.65933], atol=1e-4)

    def test_measured_norms_go_out(self):
        tapped = self.folder / "tapped.moetrace.h5"
        done = run("run", "demo", "--prompt", "The", "--max-new-tokens", 8, "--trace", tapped, "--taps", "out_norm,block_cos")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(tapped) as file:
            ids, weights, norms, cosines = (file[f"routing/{name}"][:] for name in ("expert_id", "weight", "out_norm", "block_cos"))
        arrays = self.export("npy", "arrays", trace=tapped)
        np.testing.assert_array_equal(np.load(arrays / "out_norm.npy"), norms)
        np.testing.assert_array_equal(np.load(arrays / "block_cos.npy"), cosines)
        state = json.loads(self.export("reap", "reap.json", trace=tapped).read_text())["3"]
        shares = weights[3] / weights[3].sum(-1, keepdims=True)
        for expert in range(32):
            chosen = ids[3] == expert
            self.assertAlmostEqual(state["ean_sum"][expert], float(norms[3][chosen].sum(dtype=float)), places=3)
            self.assertAlmostEqual(state["reap"][expert], float((shares * norms[3])[chosen].mean()) if chosen.any() else 0, places=4)

    def test_vllm_eplb_maps_agree_with_each_other(self):
        physical = [[0, 1, 2, 3, 4, 5, 6, 7, 3, 5]] * 3 + [[7, 6, 5, 4, 3, 2, 1, 0, 0, 0]]
        folder = self.export("vllm-eplb", "eplb", "--placement", self.placement(physical_to_logical=physical))
        forward, back, copies = (np.load(folder / f"{name}.npy") for name in ("physical_to_logical_map", "logical_to_physical_map", "logical_replica_count"))
        np.testing.assert_array_equal(forward, physical)
        self.assertEqual(back.shape, (4, 8, 3))
        for layer in range(4):
            for expert in range(8):
                slots = [s for s in back[layer, expert] if s >= 0]
                self.assertEqual(len(slots), copies[layer, expert])
                self.assertEqual(slots, list(np.flatnonzero(forward[layer] == expert)))
        document = json.loads((folder / "eplb.json").read_text())
        self.assertEqual(document["logical_to_physical_map"], back.tolist())
        self.assertEqual(document["moe_layers"], LAYERS)

    def test_exflow_takes_first_choices_and_gives_nodes(self):
        choices = np.load(self.export("exflow", "a.npy"))
        np.testing.assert_array_equal(choices, np.array([[ids[0] for ids in TRUTH["topk_ids"][str(layer)]] for layer in LAYERS]).T)
        nodes = [[(e + layer) % 2 for e in range(8)] for layer in range(4)]
        rows = list(csv.DictReader(io.StringIO(self.export("exflow", "a.csv", "--placement", self.placement(placement=nodes)).read_text())))
        self.assertEqual([int(row["Node"]) for row in rows], sum(nodes, []))
        self.assertEqual([int(row["Expert"]) for row in rows], list(range(32)))

    def test_esft_takes_experts_until_the_threshold(self):
        config = json.loads(self.export("esft", "a.json", "--threshold", "0.4").read_text())
        self.assertEqual((config["shared_experts"], config["non_expert_modules"]), (False, False))
        for layer, row in zip(LAYERS, COUNTS):
            want, total = [], 0.0
            for score, expert in sorted(((round(n / 96, 4), e) for e, n in enumerate(row)), key=lambda pair: (-pair[0], pair[1])):
                if total >= 0.4:
                    break
                want.append(expert)
                total += score
            self.assertEqual(config["experts"][str(layer)], want)

    def test_refusals(self):
        taken = self.write("taken.json", "mine")
        self.assert_refused(5, "exists already", "trace", "export", self.trace, "--to", "csv", "-o", taken)
        self.assert_refused(2, "is no known format", "trace", "export", self.trace, "--to", "xml", "-o", self.folder / "a.xml")
        self.assert_refused(3, "the Parquet module is not there", "trace", "export", self.trace, "--to", "parquet", "-o", self.folder / "a.parquet",
                            env={"SWITCHYARD_PARQUET_LIB": "/nowhere"})
        self.assert_refused(2, "needs a placement", "trace", "export", self.trace, "--to", "vllm-eplb", "-o", self.folder / "maps")
        self.assert_refused(4, "has 1 layers, the trace has 4", "trace", "export", self.trace, "--to", "vllm-eplb", "--placement",
                            self.placement(physical_to_logical=[[0]]), "-o", self.folder / "maps")
        counts = self.observer()
        self.assert_refused(2, "the trace has no /routing/expert_id. It holds counts only.", "trace", "export", counts, "--to", "jsonl", "-o", self.folder / "a.jsonl")


if __name__ == "__main__":
    import unittest
    unittest.main()
