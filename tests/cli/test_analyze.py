"""switchyard analyze: numbers against counts that this test makes itself from the trace's datasets."""
import csv
import io
import json
import math
import subprocess
import unittest

import h5py
import numpy

from support import SOURCE, CliTest, run

TEXTS = [("talk", "Hello there, how are you today? I am fine, thank you."), ("code", "int main() { return 0; }  // a program"),
         ("talk", "The quick brown fox jumps over the lazy dog and runs away."), ("code", "for (int i = 0; i < n; ++i) sum += a[i];")]


class Analyze(CliTest):
    def setUp(self):
        super().setUp()
        self.trace = self.folder / "t.moetrace.h5"
        texts = self.write("texts.jsonl", "".join(json.dumps({"text": text, "domain": domain}) + "\n" for domain, text in TEXTS))
        done = run("score", "demo", "--texts", texts, "--trace", self.trace, "--capture", "logits")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(self.trace) as file:
            self.ids = file["/routing/expert_id"][:].astype(int)      # [layers, tokens, k]
            self.offsets = file["/sequences/offset"][:]
            self.domains = file["/sequences/domain"][:]
            self.names = [name.decode() for name in file["/domains/name"][:]]
            self.logits = file["/routing/router_logits"][:].astype(numpy.float64)
            self.weights = file["/routing/weight"][:].astype(numpy.float64)
        self.layers, self.tokens, self.k = self.ids.shape

    def analyze(self, *arguments):
        return self.json_of("analyze", "analyze", self.trace, *arguments)

    def counts(self, layer, tokens=slice(None)):
        return numpy.bincount(self.ids[layer, tokens].ravel(), minlength=32)

    def test_load_and_its_filters(self):
        for one in self.analyze("load")["layers"]:
            counts = self.counts(one["layer"])
            self.assertEqual(one["counts"], counts.tolist())
            self.assertAlmostEqual(one["max_over_mean"], counts.max() / counts.mean(), places=12)
            self.assertAlmostEqual(one["cv"], counts.std() / counts.mean(), places=12)
        some = self.analyze("load", "--layers", "2,5-6", "--domain", "code")["layers"]
        self.assertEqual([one["layer"] for one in some], [2, 5, 6])
        code = numpy.concatenate([numpy.arange(a, b) for a, b, d in zip(self.offsets, self.offsets[1:], self.domains) if self.names[d] == "code"])
        self.assertEqual(some[1]["counts"], self.counts(5, code).tolist())

    def test_load_over_time(self):
        document = self.analyze("load-over-time", "--batch-tokens", "20")
        batches = self.analyze("load", "--batch-tokens", "20")["layers"]
        for layer, one in enumerate(document["layers"]):
            self.assertEqual([window["first_token"] for window in one["windows"]], list(range(0, self.tokens, 20)))
            for window in one["windows"]:
                first = window["first_token"]
                counts = self.counts(layer, slice(first, first + 20))
                self.assertEqual(window["tokens"], min(20, self.tokens - first))
                self.assertAlmostEqual(window["maxvio"], counts.max() / counts.mean() - 1, places=12)
                self.assertAlmostEqual(window["cv"], counts.std() / counts.mean(), places=12)
                self.assertEqual(window["dead"], int((counts == 0).sum()))
            whole = [window["maxvio"] for window in one["windows"] if window["tokens"] == 20]
            self.assertAlmostEqual(batches[layer]["maxvio_batch_mean"], numpy.mean(whole), places=12)
        draws = [numpy.bincount(numpy.array([generator.permutation(32)[:self.k] for _ in range(20)]).ravel(), minlength=32).max() / (20 * self.k / 32) - 1
                 for generator in [numpy.random.default_rng(1)] for _ in range(400)]
        self.assertAlmostEqual(document["random_maxvio"], numpy.mean(draws), delta=0.06)
        self.assertEqual(sum(w["tokens"] for w in self.analyze("load-over-time", "--domain", "code")["layers"][0]["windows"]),
                         sum(b - a for a, b, d in zip(self.offsets, self.offsets[1:], self.domains) if self.names[d] == "code"))

    def test_sums_by_domain_and_token_id_are_in_the_file(self):
        texts, path = self.write("lines.jsonl", "".join(json.dumps({"text": 6 * text, "domain": domain}) + "\n" for domain, text in TEXTS[:3])), self.folder / "lines.moetrace.h5"
        self.assertEqual(run("score", "demo", "--texts", texts, "--trace", path).returncode, 0)
        with h5py.File(path) as file:
            chosen, offsets, domains, tokens = (file[name][:] for name in ("/routing/expert_id", "/sequences/offset", "/sequences/domain", "/tokens/token_id"))
            one_hot, domain = (chosen[..., None] == numpy.arange(32)).any(2), numpy.repeat(domains, numpy.diff(offsets))
            for d in range(2):
                self.assertTrue((file["/agg/domain_count"][d] == one_hot[:, domain == d].sum(1)).all())
                windows = sum(b - a - 3 for a, b, of in zip(offsets, offsets[1:], domains) if of == d)
                self.assertTrue((file["/agg/srp_hist_m4"][d].sum(-1) == windows).all())
            common, ends, experts, counts = (file["/agg/vocab/" + name][:] for name in ("id", "indptr", "expert", "count"))
        ids, occurrences = numpy.unique(tokens, return_counts=True)
        self.assertGreater(len(common), 3)
        self.assertEqual(common.tolist(), ids[occurrences >= 8].tolist())
        for layer in range(len(one_hot)):
            for x, token in enumerate(common):
                cells = slice(*ends[layer * len(common) + x:][:2])
                want = one_hot[layer, tokens == token].sum(0)
                self.assertEqual(experts[cells].tolist(), numpy.flatnonzero(want).tolist())
                self.assertEqual(counts[cells].tolist(), want[want > 0].tolist())

    def test_affinity_and_coactivation(self):
        document = self.analyze("affinity", "--gpus", "4")
        first, second = self.ids[3, :, 0], self.ids[4, :, 0]
        joint = numpy.zeros((32, 32))
        numpy.add.at(joint, (first, second), 1)
        p = joint / joint.sum()
        with numpy.errstate(divide="ignore", invalid="ignore"):
            mutual = numpy.nansum(p * numpy.log2(p / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True))))
        transition = document["transitions"][3]
        self.assertEqual((transition["from"], transition["to"]), (3, 4))
        self.assertAlmostEqual(transition["top1"]["mi_bits"], mutual, places=9)
        self.assertAlmostEqual(transition["same_gpu"][0]["fraction"], float(numpy.mean(first // 8 == second // 8)), places=12)
        pairs = self.analyze("coactivation", "--top", "3")["layers"][2]["top_pairs"]
        self.assertEqual(len(pairs), 3)
        for pair in pairs:
            both = (self.ids[2] == pair["i"]).any(1) & (self.ids[2] == pair["j"]).any(1)
            self.assertEqual(pair["count"], int(both.sum()))

    def test_entropy_of_the_decisions_and_of_recorded_logits(self):
        with h5py.File(self.trace) as file:
            decided = {name: file["/routing/" + name][:].astype(numpy.float64) for name in ("entropy", "topk_mass", "margin")}
        p = numpy.exp(self.logits - self.logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        entropy = -(p * numpy.log(p)).sum(-1)
        for one in self.analyze("entropy")["layers"]:
            self.assertAlmostEqual(one["mean_entropy"], decided["entropy"][one["layer"]].mean(), places=12)
            self.assertAlmostEqual(one["mean_topk_mass"], decided["topk_mass"][one["layer"]].mean(), places=12)
            self.assertAlmostEqual(one["mean_margin"], decided["margin"][one["layer"]].mean(), places=12)
            self.assertAlmostEqual(one["mean_entropy"], entropy[one["layer"]].mean(), places=5)  # nothing is edited
            mean = p[one["layer"]].mean(0)
            self.assertAlmostEqual(one["mutual_information"], -(mean * numpy.log(mean)).sum() - entropy[one["layer"]].mean(), places=9)
            ratio = self.weights[one["layer"], :, 1] / self.weights[one["layer"], :, 0]
            self.assertAlmostEqual(one["median_w2_over_w1"], numpy.median(ratio), places=12)
            chosen = numpy.sort(p[one["layer"]], -1)[:, ::-1]
            self.assertAlmostEqual(one["median_w2_over_w1"], numpy.median(chosen[:, 1] / chosen[:, 0]), places=5)

    def test_all_gives_the_same_objects_and_says_what_it_left_out(self):
        document = self.analyze("all")
        names = [one["analysis"] for one in document["results"]]
        self.assertEqual([one["analysis"] for one in document["refused"]], ["router-similarity"])
        for name in names:
            alone = self.analyze(name)
            alone.pop("trace")
            self.assertEqual(alone, document["results"][names.index(name)], name)
        ids_only = self.folder / "ids.moetrace.h5"
        self.assertEqual(run("run", "demo", "--prompt", "The", "--max-new-tokens", 8, "--trace", ids_only, "--capture", "ids").returncode, 0)
        document = self.json_of("analyze", "analyze", ids_only, "all")
        refused = {one["analysis"]: one["missing"] for one in document["refused"]}
        self.assertEqual(refused["domain"], ["/sequences/domain"])
        self.assertEqual(refused["entropy"], ["/routing/entropy"])
        self.assertNotIn("domain", [one["analysis"] for one in document["results"]])
        self.assert_refused(2, "/sequences/domain", "analyze", ids_only, "domain")

    def test_counts_alone_are_enough_for_the_load(self):
        counts = self.folder / "counts.moetrace.h5"
        dump = SOURCE / "tests/data/foreign/imatrix/made_by_us_moe.gguf"
        self.assertEqual(run("trace", "import", "--from", "imatrix", dump, "-o", counts).returncode, 0)
        with h5py.File(counts) as file:
            stored = file["/agg/count"][:]
        document = self.json_of("analyze", "analyze", counts, "all")
        self.assertEqual([one["analysis"] for one in document["results"]], ["load", "long-tail"])
        load = document["results"][0]["layers"]
        self.assertEqual([one["counts"] for one in load], stored.tolist())
        self.assertAlmostEqual(load[0]["cv"], stored[0].std() / stored[0].mean(), places=12)
        self.assertNotIn("counts_top1", load[0])
        self.assertEqual([one["layer"] for one in self.json_of("analyze", "analyze", counts, "load", "--layers", "2-3")["layers"]], [2, 3])
        self.assert_refused(2, "needs /routing/expert_id", "analyze", counts, "affinity")
        self.assert_refused(2, "no tokens to choose by phase", "analyze", counts, "load", "--phase", "decode")
        self.assert_refused(2, "holds tokens, the others counts only", "analyze", counts, "load", "--with", self.trace)

    def test_taps_feed_the_pruning_criteria(self):
        tapped = self.folder / "tapped.moetrace.h5"
        done = run("run", "demo", "--prompt", "The", "--max-new-tokens", 12, "--trace", tapped, "--taps", "out_norm,block_cos")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(tapped) as file:
            ids, weights, norms, cosines = (file[f"/routing/{name}"][:].astype(float) for name in ("expert_id", "weight", "out_norm", "block_cos"))
        self.assertTrue((norms[ids < 255] > 0).all())
        self.assertTrue((numpy.abs(cosines) <= 1).all())
        layer = self.json_of("analyze", "analyze", tapped, "saliency")["layers"][3]
        shares = weights[3] / weights[3].sum(-1, keepdims=True)
        for expert in range(len(layer["frequency"])):
            chosen = ids[3] == expert
            reap = (shares * norms[3])[chosen]
            self.assertAlmostEqual(layer["ean_sum"][expert], norms[3][chosen].sum(), places=6)
            self.assertAlmostEqual(layer["reap"][expert], reap.mean() if len(reap) else 0, places=6)
            easy = (numpy.maximum(0, 1 - cosines[3])[:, None] * shares * norms[3])[chosen].sum()
            self.assertAlmostEqual(layer["easy_ep"][expert], easy, places=6)
        pruning = self.json_of("analyze", "analyze", tapped, "saliency", "--keep", "24")["layers"][3]
        for side in pruning["criteria"]:
            scores = numpy.array(pruning[side["criterion"]])
            ranks = [((scores < one).sum() + ((scores == one).sum() - 1) / 2) / 31 for one in scores]
            numpy.testing.assert_allclose(side["rank"], ranks, rtol=0, atol=1e-12)
            self.assertEqual(numpy.flatnonzero(side["pruned"]).tolist(), pruning["pruned"][side["criterion"]])
        self.assertNotIn("pruned", layer["criteria"][0])
        packed = self.folder / "packed.moetrace.h5"
        self.assertEqual(run("trace", "pack", tapped, "-o", packed).returncode, 0)
        self.assertEqual(self.json_of("analyze", "analyze", packed, "saliency")["layers"], self.json_of("analyze", "analyze", tapped, "saliency")["layers"])
        self.assertEqual(run("trace", "verify", packed).returncode, 0)
        texts = self.write("more.jsonl", '{"text": "x = 1"}\n')
        scored = self.folder / "scored.moetrace.h5"
        self.assertEqual(run("score", "demo", "--texts", texts, "--trace", scored, "--taps", "out_norm").returncode, 0)
        document = self.json_of("analyze", "analyze", scored, "saliency")
        self.assertEqual(document["missing"], ["/routing/block_cos"])

    def test_the_next_gate_on_this_input_is_scored(self):
        tapped = self.folder / "guessed.moetrace.h5"
        done = run("run", "demo", "--prompt", "def f(x):", "--max-new-tokens", 12, "--trace", tapped, "--taps", "pred_gate")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(tapped) as file:
            ids, guesses = file["/routing/expert_id"][:], file["/routing/pred_gate_id"][:]
        self.assertEqual(guesses.shape, (ids.shape[0] - 1, *ids.shape[1:]))
        packed = self.folder / "guessed-packed.moetrace.h5"
        self.assertEqual(run("trace", "pack", tapped, "-o", packed).returncode, 0)
        for path in (tapped, packed):
            for at, one in enumerate(self.json_of("analyze", "analyze", path, "next-layer-prediction")["transitions"]):
                hits = (guesses[at][:, :, None] == ids[at + 1][:, None, :]).any(-1).sum(-1)
                self.assertEqual(one["gate_tokens"], ids.shape[1])
                self.assertAlmostEqual(one["gate_recall"], hits.mean() / ids.shape[2], places=12)
                self.assertAlmostEqual(one["gate_exact"], (hits == ids.shape[2]).mean(), places=12)
                self.assertGreater(one["gate_recall"], ids.shape[2] / 32)
        self.assertNotIn("gate_recall", self.json_of("analyze", "analyze", self.trace, "next-layer-prediction")["transitions"][0])
        texts, scored = self.write("ahead.jsonl", '{"text": "x = 1"}\n'), self.folder / "ahead.moetrace.h5"
        self.assertEqual(run("score", "demo", "--texts", texts, "--trace", scored, "--taps", "pred_gate").returncode, 0)
        self.assertGreater(self.json_of("analyze", "analyze", scored, "next-layer-prediction")["transitions"][0]["gate_tokens"], 0)
        folder = self.folder / "guessed-npy"
        self.assertEqual(run("trace", "export", scored, "--to", "npy", "-o", folder).returncode, 0)
        with h5py.File(scored) as file:
            stored = file["/routing/pred_gate_id"][:].astype(int)
        self.assertTrue((numpy.load(folder / "pred_gate_id.npy")[1:] == numpy.where(stored == 255, -1, stored)).all())

    def test_the_sides_of_an_encoder_decoder_are_counted_apart(self):
        path = self.folder / "sides.moetrace.h5"
        done = run("run", SOURCE / "tests/goldens/switch_transformers", "--token-ids", "3,9,14,20,5,6,1", "--max-new-tokens", 6, "--greedy", "--ignore-eos",
                   "--trace", path, "--capture", "logits")
        if b"no backend" in done.stderr:
            self.skipTest("this build has no backend that runs it")
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(path) as file:
            ids, logits = file["/routing/expert_id"][:].astype(int), file["/routing/router_logits"][:].astype(float)
            names = [name.decode() for name in file["/model/router_names"][:]]
            prob_sum, windows = file["/agg/prob_sum"][:], file["/agg/srp_hist_m4"][0]
        experts = logits.shape[2]
        self.assertTrue(names[0].startswith("encoder") and names[-1].startswith("decoder"))
        encodes = numpy.arange(ids.shape[1]) < 7
        loads, entropies, repetitions, windowed = (self.json_of("analyze", "analyze", path, *name.split())["layers" if name[0] != "s" else "windows"]
                                                   for name in ("load", "entropy", "repetition", "srp --windows 4 --resamples 0"))
        for row, name in enumerate(names):
            own = encodes == name.startswith("encoder")
            self.assertTrue((ids[row, own, 0] < experts).all() and (ids[row, ~own] == 255).all())
            p = numpy.exp(logits[row, own] - logits[row, own].max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            numpy.testing.assert_allclose(prob_sum[row], p.sum(0), rtol=1e-9)
            counts = numpy.bincount(ids[row, own].ravel(), minlength=experts)
            self.assertAlmostEqual(loads[row]["std_100f"], 100 * (counts / own.sum()).std(), places=9)
            self.assertAlmostEqual(entropies[row]["mean_entropy"], -(p * numpy.log(p)).sum(-1).mean(), places=5)
            mean = p.mean(0)
            self.assertAlmostEqual(entropies[row]["entropy_of_mean"], -(mean * numpy.log(mean)).sum(), places=6)
            first = ids[row, own, 0]
            self.assertAlmostEqual(repetitions[row]["same_first_rate"], (first[1:] == first[:-1]).mean(), places=12)
            self.assertEqual(windows[row].sum(), experts * (own.sum() - 3))
            uses = numpy.lib.stride_tricks.sliding_window_view(first[:, None] == numpy.arange(experts), 4, axis=0).sum(-1)
            self.assertEqual(windows[row].sum(0).tolist(), numpy.bincount(uses.ravel(), minlength=5).tolist())
        self.assertEqual(run("trace", "verify", path).returncode, 0)
        self.assert_refused(2, "--layers", "analyze", path, "vocabulary")

    def test_routers_in_the_trace_give_their_cosines(self):
        path, packed = self.folder / "routers.moetrace.h5", self.folder / "routers-packed.moetrace.h5"
        self.assertEqual(run("run", "demo", "--prompt", "x", "--max-new-tokens", 2, "--trace", path, "--routers").returncode, 0)
        self.assertEqual(run("trace", "pack", path, "-o", packed).returncode, 0)
        self.assertEqual(run("trace", "verify", packed).returncode, 0)
        raw = (SOURCE / "assets/models/demo/model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        tensors = json.loads(raw[8:8 + size])
        with h5py.File(path) as file:
            recorded = file["/model/router_weight"][:]
        for trace in (path, packed):
            for layer, one in enumerate(self.json_of("analyze", "analyze", trace, "router-similarity")["layers"]):
                tensor = tensors[f"model.layers.{layer}.mlp.gate.weight"]
                begin, end = (8 + size + offset for offset in tensor["data_offsets"])
                kind = {"F32": "<f4", "BF16": "<u2"}[tensor["dtype"]]
                rows = numpy.frombuffer(raw[begin:end], kind)
                rows = (rows if kind == "<f4" else (rows.astype(numpy.uint32) << 16).view(numpy.float32)).reshape(tensor["shape"]).astype(float)
                self.assertTrue((recorded[layer] == rows).all())
                unit = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
                numpy.testing.assert_allclose(one["cosine"], unit @ unit.T, atol=1e-12)
                self.assertAlmostEqual(one["mean_cosine"], (unit @ unit.T)[numpy.tril_indices(len(rows), -1)].mean(), places=12)
        self.assert_refused(2, "needs /model/router_weight", "analyze", self.trace, "router-similarity")
        self.assert_refused(2, "go into a trace", "run", "demo", "--prompt", "x", "--routers")

    def test_two_traces_are_analysed_as_one(self):
        document = self.json_of("analyze", "analyze", self.trace, "load", "--with", self.trace)
        self.assertEqual(document["layers"][1]["counts"], (2 * self.counts(1)).tolist())

    def test_compare_is_what_score_measures_against_its_baseline(self):
        edits = self.edits({"kind": "mute", "layer": "2-5", "expert": [int(e) for e in numpy.argsort(self.counts(3))[-4:]]})
        edited = self.folder / "edited.moetrace.h5"
        shift = self.json_of("score", "score", "demo", "--texts", self.folder / "texts.jsonl", "--edits", edits, "--baseline", "--trace", edited)["baseline"]["routing_shift"]
        document = self.json_of("trace_compare", "trace", "compare", self.trace, edited)
        self.assertEqual(document["tokens"], self.tokens)
        numpy.testing.assert_allclose([one["overlap"][-1] for one in document["layers"]], shift, atol=1e-12)
        with h5py.File(edited) as file:
            other = file["/routing/expert_id"][:].astype(int)
        same_first = (self.ids[:, :, 0] == other[:, :, 0]).mean(1)
        numpy.testing.assert_allclose([one["overlap"][0] for one in document["layers"]], same_first, atol=1e-12)
        equal = (numpy.sort(self.ids) == numpy.sort(other)).all(-1)  # [layers, tokens]
        first = [int((~equal[row] & equal[:row].all(0)).sum()) for row in range(self.layers)]
        self.assertEqual([one["first_difference"] for one in document["layers"]], first)
        self.assertEqual(first[:2], [0, 0])
        self.assertEqual(document["equal_tokens"], int(equal.all(0).sum()))
        shorter = self.folder / "short.moetrace.h5"
        self.assertEqual(run("run", "demo", "--prompt", "The", "--max-new-tokens", 3, "--trace", shorter).returncode, 0)
        self.assert_refused(2, "can be compared over the same tokens", "trace", "compare", self.trace, shorter)

    def test_tables(self):
        done = run("analyze", self.trace, "load", "--csv", "--table", "layers")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
        self.assertEqual(len(rows), self.layers)
        self.assertAlmostEqual(float(rows[4]["cv"]), self.counts(4).std() / self.counts(4).mean(), places=12)
        self.assertTrue(run("analyze", self.trace, "load", "--markdown").stdout.startswith(b"## load: summary\n\n| mean_max_over_mean |\n| --- |\n"))
        self.assertIn(b"\\toprule\nlayer & ", run("analyze", self.trace, "load", "--latex", "--table", "layers").stdout)
        text = run("analyze", self.trace, "load").stdout.decode()
        self.assertIn("load: layers", text)

    def test_wrong_input_is_named(self):
        self.assert_refused(2, "there is no analysis of this name", "analyze", self.trace, "lod")
        self.assert_refused(2, "It takes --windows", "analyze", self.trace, "srp", "--gpus", 4)
        self.assert_refused(2, "do not divide evenly over 5 GPUs", "analyze", self.trace, "affinity", "--gpus", 5)
        self.assert_refused(2, "no routing of layer 9", "analyze", self.trace, "load", "--layers", "9")
        self.assert_refused(2, "needs numbers and ranges", "analyze", self.trace, "load", "--layers", "2-x")
        self.assert_refused(2, "needs numbers and ranges", "analyze", self.trace, "load", "--layers", "99999999999")
        self.assert_refused(2, "needs a whole number from 0 to 1000000", "analyze", self.trace, "affinity", "--top", "many")
        self.assert_refused(2, "needs a number from 0 to 1", "analyze", self.trace, "esft", "--threshold", "1.5")
        self.assert_refused(2, "needs token or gate", "analyze", self.trace, "esft", "--score", "both")
        self.assert_refused(2, "at least one window", "analyze", self.trace, "srp", "--windows", "")
        self.assert_refused(2, "no domain poem", "analyze", self.trace, "load", "--domain", "poem")
        self.assert_refused(3, "", "analyze", self.folder / "none.moetrace.h5", "load")


if __name__ == "__main__":
    unittest.main()
