"""run and score: ids of transformers, edits at their token, traces read with h5py, logits, samplers."""
import json
import subprocess
import sys
import unittest

import h5py
import numpy

from support import ASSETS, EXPECTED, PROMPTS, REFERENCE, CliTest, built, run

PYTHON = ("--prompt-file", PROMPTS / "python.txt", "--max-new-tokens", "32", "--greedy")


def rows(path):
    """The routing of a trace: expert ids [moe rows, tokens, k] and applied weights."""
    with h5py.File(path) as file:
        tokens = int(file.attrs["n_tokens"])
        return {"ids": file["/routing/expert_id"][:, :tokens], "weights": file["/routing/weight"][:, :tokens],
                "token_id": file["/tokens/token_id"][:tokens], "epoch": file["/tokens/recipe_epoch"][:tokens],
                "phase": file["/tokens/phase"][:tokens], "position": file["/tokens/position"][:tokens], "complete": int(file.attrs["complete"])}


def relayered(folder, path):
    """The demo with its layers in the order of `path`."""
    demo = ASSETS / "models/demo"
    folder.mkdir()
    for file in demo.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((demo / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": len(path)}))
    data = (demo / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, parts = {}, []
    for name, tensor in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        layer = int(name.split(".")[2]) if ".layers." in name else None
        for place, of in enumerate(path if layer is not None else [None]):
            if of != layer:
                continue
            at = sum(map(len, parts))
            new = name if layer is None else name.replace(f".layers.{layer}.", f".layers.{place}.")
            header[new] = {**tensor, "data_offsets": [at, at + end - begin]}
            parts.append(data[start + begin:start + end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return folder


class Run(CliTest):
    def check_ids(self, backend):
        for name, prompt in EXPECTED.items():
            with self.subTest(prompt=name):
                done = self.json_of("run", "run", "demo", "--prompt-file", PROMPTS / f"{name}.txt", "--max-new-tokens", "32", "--greedy",
                                    "--ignore-eos", "--backend", backend)
                self.assertEqual(done["prompt_ids"], prompt["ids"])
                self.assertEqual(done["generated_ids"], prompt["greedy_ids"][:32])
                self.assertTrue(prompt["greedy_text"].startswith(done["text"].rstrip("\ufffd")))
                self.assertEqual(done["backend"], backend)
                self.assertEqual(done["finish"], "length")

    def test_cpu_gives_the_ids_of_transformers_on_every_prompt(self):
        self.check_ids("cpu")

    @unittest.skipUnless(REFERENCE, "the reference engine is not built")
    def test_reference_gives_the_ids_of_transformers_on_every_prompt(self):
        self.check_ids("reference")

    def test_a_scheme_from_a_token_on_routes_as_its_formula_says(self):
        """top-p over the recorded raw logits, computed here again; tokens before it are the native run's."""
        recipe = self.edits({"kind": "scheme", "layer": "all", "name": "top_p", "parameters": {"p": 0.6}, "at_token": 10})
        native, gated = self.folder / "native.moetrace.h5", self.folder / "gated.moetrace.h5"
        self.json_of("run", "run", "demo", *PYTHON, "--capture", "logits", "--trace", native)
        done = self.json_of("run", "run", "demo", *PYTHON, "--capture", "logits", "--recipe", recipe, "--trace", gated)
        self.assertEqual([e["from_token"] for e in done["epochs"]], [0, 10])
        before, after = rows(native), rows(gated)
        self.assertEqual(run("trace", "verify", gated).returncode, 0)
        slots = before["ids"].shape[2]
        numpy.testing.assert_array_equal(before["ids"][:, :10], after["ids"][:, :10, :slots])
        with h5py.File(gated) as file:
            logits = file["/routing/router_logits"][:].astype(numpy.float64)
        counts = set()
        for row in range(logits.shape[0]):
            for token in range(10, len(after["epoch"])):
                p = numpy.exp(logits[row, token] - logits[row, token].max())
                p /= p.sum()
                order = sorted(range(len(p)), key=lambda e: (-p[e], e))
                mass = numpy.cumsum(p[order])
                if numpy.abs(mass - 0.6).min() < 1e-5:
                    continue
                n = int((mass <= 0.6).sum()) + 1
                counts.add(n)
                self.assertEqual(list(after["ids"][row, token, :n]), order[:n])
                self.assertTrue((after["ids"][row, token, n:] == 255).all())
                numpy.testing.assert_allclose(after["weights"][row, token, :n], p[order[:n]], atol=1e-5)
        self.assertGreater(len(counts), 3)

    def test_a_replay_repeats_the_recorded_run_without_its_edits(self):
        edits = self.edits({"kind": "bias", "layer": 2, "expert": 4, "value": 1.5}, {"kind": "top_k", "layer": 5, "k": 2},
                           {"kind": "mute", "layer": 3, "expert": [1, 2], "at_token": 40})
        first, second = self.folder / "first.moetrace.h5", self.folder / "second.moetrace.h5"
        sampled = ("--prompt-file", PROMPTS / "python.txt", "--max-new-tokens", "16", "--temperature", "1.2", "--seed", "5", "--ignore-eos")
        recorded = self.json_of("run", "run", "demo", *sampled, "--edits", edits, "--trace", first)
        again = self.json_of("run", "run", "demo", "--replay", first, "--ignore-eos", "--trace", second)
        self.assertEqual(again["prompt_ids"], recorded["prompt_ids"])
        self.assertEqual(again["generated_ids"], recorded["generated_ids"])
        self.assertEqual(again["sampling"], recorded["sampling"])
        self.assertEqual([edit["name"] for edit in again["epochs"][0]["edits"]], ["replay"])
        before, after = rows(first), rows(second)
        numpy.testing.assert_array_equal(before["ids"], after["ids"])
        numpy.testing.assert_array_equal(before["weights"], after["weights"])
        # The logits of the prompt, to the last bit; the edits of the record are not given again.
        ours, theirs = self.folder / "ours.npy", self.folder / "theirs.npy"
        self.json_of("run", "run", "demo", *sampled, "--edits", edits, "--dump-logits", theirs)
        self.json_of("run", "run", "demo", "--replay", first, "--ignore-eos", "--dump-logits", ours)
        numpy.testing.assert_array_equal(numpy.load(ours), numpy.load(theirs))
        # Another text from some token on: told, not hidden.
        other = run("run", "demo", "--replay", first, "--ignore-eos", "--seed", "6")
        self.assertEqual(other.returncode, 0)
        self.assertIn("only tokens that are the trace's are replayed", other.stderr.decode())
        # A recipe that names the trace is the same replay, also for score.
        script = self.folder / "replay.json"
        script.write_text(json.dumps({"schema": 1, "edits": again["epochs"][0]["edits"]}))
        text = ("--text-file", PROMPTS / "python.txt")
        self.assertAlmostEqual(self.json_of("score", "score", "demo", *text, "--edits", script)["nll"],
                               self.json_of("score", "score", "demo", *text, "--edits", edits)["nll"], places=12)

    def test_a_replay_that_does_not_fit_is_refused(self):
        trace = self.folder / "one.moetrace.h5"
        self.json_of("run", "run", "demo", *PYTHON, "--trace", trace)
        self.assert_refused(2, "the prompt is not the trace's: token 0", "run", "demo", "--replay", trace, "--token-ids", "1,2,3")
        self.assert_refused(2, "there is no sequence 3", "run", "demo", "--replay", trace, "--replay-sequence", "3")
        self.assert_refused(3, "none.moetrace.h5", "run", "demo", "--replay", self.folder / "none.moetrace.h5")
        self.assert_refused(2, "--replay-sequence", "run", "demo", *PYTHON, "--replay-sequence", "1")
        with h5py.File(trace, "r+") as file:
            file["/model/moe_layers"][-1] = 9
        self.assert_refused(2, "routers in the layers", "run", "demo", "--replay", trace)

    def test_adapted_biases_lower_the_loss_that_score_measures(self):
        out = self.folder / "biases.json"
        text = ("--text-file", PROMPTS / "python.txt")
        before = self.json_of("score", "score", "demo", *text)["nll"]
        for method, backend in built((("rewire", "reference"), ("spsa", "cpu")), lambda case: case[1]):
            with self.subTest(method=method):
                out.unlink(missing_ok=True)
                found = self.json_of("adapt", "adapt", "demo", *text, "--method", method, "--steps", "3", "--lr", "0.05", "--out", out)
                self.assertEqual(found["backend"], backend)
                self.assertAlmostEqual(found["loss_before"], before, delta=1e-4)
                self.assertAlmostEqual(self.json_of("score", "score", "demo", *text, "--edits", out)["nll"], found["loss_after"], delta=1e-4)
                self.assertLessEqual(found["loss_after"], before + 1e-6)
        self.assert_refused(5, "exists", "adapt", "demo", *text, "--method", "spsa", "--out", out)
        self.assert_refused(2, "no gradients", "adapt", "demo", *text, "--method", "rewire", "--backend", "cpu")

    def test_moved_centres_are_a_script_like_any_other(self):
        out = self.folder / "centres.json"
        text = ("--text-file", PROMPTS / "python.txt")
        found = self.json_of("adapt", "adapt", "demo", *text, "--method", "ema", "--steps", "2", "--eta", "0.1", "--layers", "3,4", "--out", out)
        self.assertEqual(found["layers"], [3, 4])
        self.assertEqual([edit["kind"] for edit in found["edits"]].count("scheme"), 2)
        self.assertEqual([edit["kind"] for edit in found["edits"]].count("router_row"), 64)
        self.assertTrue(all(found["norms"][row] > 0 for row in (3, 4)) and found["norms"][0] == 0)
        self.assertAlmostEqual(self.json_of("score", "score", "demo", *text, "--edits", out)["nll"], found["loss_after"], delta=1e-6)

    def test_a_run_that_adapts_is_repeated_by_its_edits(self):
        prompt = ("--prompt-file", PROMPTS / "python.txt", "--max-new-tokens", "24", "--greedy", "--ignore-eos")
        first, second = self.folder / "first.moetrace.h5", self.folder / "second.moetrace.h5"
        run_ = self.json_of("run", "run", "demo", *prompt, "--adapt", "usage-bias", "--adapt-every", "8", "--adapt-steps", "2", "--adapt-lr", "0.05",
                            "--trace", first)
        steps = run_["adaptation"]["steps"]
        known = len(run_["prompt_ids"])
        self.assertEqual([step["from_token"] for step in steps], [0, known + 8, known + 16])
        self.assertEqual([epoch["from_token"] for epoch in run_["epochs"]], [0, known + 8, known + 16])
        self.assertEqual(steps[0]["loss_before"], self.json_of("adapt", "adapt", "demo", "--text-file", PROMPTS / "python.txt", "--method", "usage-bias",
                                                                "--steps", "2", "--lr", "0.05")["loss_before"])
        # Each epoch's edits are all that is in force: biases that are back at 0 are not among them.
        nothing = {"kind": "bias", "layer": "all", "expert": list(range(32)), "value": 0}
        script = self.edits(*({**edit, "at_token": epoch["from_token"]} for epoch in run_["epochs"] for edit in [nothing, *epoch["edits"]]))
        again = self.json_of("run", "run", "demo", *prompt, "--edits", script, "--trace", second)
        self.assertEqual(again["generated_ids"], run_["generated_ids"])
        self.assertIsNone(again["adaptation"])
        a, b = rows(first), rows(second)
        numpy.testing.assert_array_equal(a["ids"], b["ids"])
        numpy.testing.assert_array_equal(a["weights"], b["weights"])
        self.assert_refused(2, "no gradients", "run", "demo", *prompt, "--adapt", "rewire", "--backend", "cpu")
        self.assert_refused(2, "layer 99 has no experts", "run", "demo", *prompt, "--adapt", "spsa", "--adapt-layers", "99")

    @unittest.skipUnless(REFERENCE, "the reference engine is not built")
    def test_the_gradient_lens_shows_who_should_have_run(self):
        expected = json.loads((ASSETS.parent / "tests" / "data" / "gate_gradient.json").read_text())
        found = self.json_of("calibrate_gradient", "calibrate", "gradient", "demo", "--token-ids", ",".join(map(str, expected["ids"])))
        for layer in expected["layers"]:
            own = found["layers"][layer["layer"]]
            dense, sparse = numpy.array(layer["dense"]), numpy.array(layer["sparse"])
            numpy.testing.assert_allclose(own["dense"], dense.sum(0), atol=1e-5)
            numpy.testing.assert_allclose(own["sparse"], sparse.sum(0), atol=1e-5)
            # Renormalised weights: an expert that did not run has no sparse gradient.
            idle = numpy.where(numpy.abs(sparse) < 1e-15, dense, 1)
            for token in own["tokens"]:
                self.assertEqual(token["expert"], int(idle[token["token"]].argmin()))
                self.assertEqual(token["sparse"], 0)
            self.assertEqual(sum(own["wanted"]), len(own["tokens"]))
        self.assert_refused(2, "no gradients", "calibrate", "gradient", "demo", "--text", "one two three", "--backend", "cpu")

    def test_carve_writes_a_core_and_a_part_for_each_domain(self):
        texts = self.folder / "domains.jsonl"
        texts.write_text("".join((ASSETS / "contrast" / f"{side}.jsonl").read_text() for side in ("code", "prose")))
        out = self.folder / "carved.json"
        found = self.json_of("calibrate_carve", "calibrate", "carve", "demo", "--texts", texts, "--expert", "3", "--out", out)
        self.assertEqual([domain["name"] for domain in found["domains"]], ["code", "prose"])
        off = {(edit["layer"], edit["expert"]): set(edit["neurons"]) for edit in json.loads(out.read_text())["edits"] if edit["kind"] == "neuron_mask"}
        differing = 0
        for layer in found["layers"]:
            units, core, own = layer["units"], layer["residual"], layer["experts"]
            kept = [set(range(units)) - off[layer["layer"], place] for place in (0, 1)]
            self.assertEqual([len(units_of) for units_of in kept], [units // 2] * 2)
            self.assertEqual(len(kept[0] & kept[1]), core)
            self.assertEqual([units // 2 - core] * 2, own)
            differing += own[0] > 0
        self.assertGreater(differing, 0)
        # Every token takes one place of all layers; the two parts are not the same expert.
        trace = self.folder / "carved.moetrace.h5"
        losses = {}
        for place, side in ((0, "code"), (1, "prose")):
            for text in ("code", "prose"):
                script = json.loads(out.read_text())
                script["edits"][-1]["parameters"] = {"expert": place}
                edits = self.folder / f"{side}.json"
                edits.write_text(json.dumps(script))
                losses[side, text] = self.json_of("score", "score", "demo", "--texts", ASSETS / "contrast" / f"{text}.jsonl", "--edits", edits,
                                                  "--trace", trace, "--force")["nll"]
                self.assertTrue((rows(trace)["ids"][:, :, 0] == place).all())
        for text in ("code", "prose"):
            self.assertGreater(abs(losses["code", text] - losses["prose", text]), 1e-4)
        self.assert_refused(5, "exists", "calibrate", "carve", "demo", "--texts", texts, "--out", out)
        self.assert_refused(2, "1 domains", "calibrate", "carve", "demo", "--texts", ASSETS / "contrast" / "code.jsonl", "--out", self.folder / "x.json")

    def test_a_scheme_with_more_rows_goes_on_in_the_next_trace(self):
        script = self.folder / "chain.json"
        script.write_text(json.dumps({"edits": [{"kind": "scheme", "layer": 3, "name": "chain_of_experts", "at_token": 9}]}))
        trace = self.folder / "chain.moetrace.h5"
        done = self.json_of("run", "run", "demo", "--token-ids", "1,2,3,4,5,6", "--max-new-tokens", "8", "--ignore-eos", "--greedy", "--edits", script, "--trace", trace)
        second = self.folder / "chain-2.moetrace.h5"
        self.assertEqual(done["traces"], [str(trace), str(second)])
        first, then = rows(trace), rows(second)
        self.assertEqual(first["ids"].shape[:2], (8, 9))
        self.assertEqual(then["ids"].shape[:2], (9, 4))
        with h5py.File(second) as file:
            names = [name.decode() for name in file["/model/router_names"][:]]
            self.assertEqual(list(file["/model/moe_layers"][:]), [0, 1, 2, 3, 3, 4, 5, 6, 7])
            self.assertEqual(list(file["/tokens/position"][:]), [9, 10, 11, 12])
        self.assertEqual(names[3:5], ["layer 3", "layer 3 · pass 2"])
        self.assertTrue((then["ids"][3:5, :, 2:] == 255).all())  # k / C experts in each pass

    def test_adapter_routers_have_rows_in_the_trace(self):
        edit = json.loads((ASSETS / "schemes/adapters_arrow.json").read_text())["edits"][0] | {"layer": 3, "at_token": 9}
        script = self.folder / "adapters.json"
        script.write_text(json.dumps({"edits": [edit]}))
        trace = self.folder / "adapters.moetrace.h5"
        done = self.json_of("run", "run", "demo", "--token-ids", "1,2,3,4,5,6", "--max-new-tokens", "8", "--ignore-eos", "--greedy", "--edits", script, "--trace", trace)
        second = self.folder / "adapters-2.moetrace.h5"
        self.assertEqual(done["traces"], [str(trace), str(second)])
        self.assertEqual(rows(trace)["ids"].shape[:2], (8, 9))
        then = rows(second)
        with h5py.File(second) as file:
            names = [name.decode() for name in file["/model/router_names"][:]]
            self.assertEqual(list(file["/model/moe_layers"][:]), [0, 1, 2, 3, 3, 4, 5, 6, 7])
        self.assertEqual(names[3:5], ["layer 3", "layer 3 · q_proj adapter"])
        (adapted,) = done["adapters"]
        self.assertEqual((adapted["name"], adapted["tokens"]), (names[4], 4))
        ids, weights = then["ids"][4], then["weights"][4]  # two of four adapters
        self.assertTrue((ids[:, :2] < 4).all() and (ids[:, 2:] == 255).all())
        self.assertTrue(numpy.allclose(weights[:, :2].sum(axis=1), 1, atol=1e-6))
        for adapter, mean in enumerate(adapted["mean_weights"]):
            self.assertAlmostEqual(float(weights[:, :2][ids[:, :2] == adapter].sum()) / 4, mean, places=6)

    def test_contrast_counts_what_traces_count_and_steers_towards_a(self):
        folder = ASSETS / "contrast"
        steer = self.folder / "steer.json"
        found = self.json_of("calibrate_contrast", "calibrate", "contrast", "demo", "--a", folder / "code.jsonl", "--b", folder / "prose.jsonl",
                             "--top", "256", "--steer", steer)
        counts = {}
        for side in ("code", "prose"):
            trace = self.folder / f"{side}.moetrace.h5"
            self.json_of("score", "score", "demo", "--texts", folder / f"{side}.jsonl", "--trace", trace)
            ids = rows(trace)["ids"]
            counts[side] = ids.shape[1], [numpy.bincount(ids[row].ravel(), minlength=32) for row in range(ids.shape[0])]
        self.assertEqual((found["tokens_a"], found["tokens_b"]), (counts["code"][0], counts["prose"][0]))
        self.assertEqual(len(found["experts"]), 256)
        for one in found["experts"]:
            a, b = (counts[side][1][one["layer"]][one["expert"]] / counts[side][0] for side in ("code", "prose"))
            self.assertAlmostEqual(one["rd"], a - b)
            self.assertLessEqual(one["low"], one["high"])
        self.assertGreater(found["significant"], 10)
        steered = self.folder / "steered.moetrace.h5"
        self.json_of("score", "score", "demo", "--texts", folder / "prose.jsonl", "--edits", steer, "--trace", steered)
        ids = rows(steered)["ids"]
        for edit in json.loads(steer.read_text())["edits"]:
            for expert in edit["parameters"].get("on", []):
                self.assertTrue((ids[edit["layer"]] == expert).any(axis=1).all())
            for expert in edit["parameters"].get("off", []):
                self.assertFalse((ids[edit["layer"]] == expert).any())

    def test_sensitivity_of_a_layer_is_the_score_of_its_edit(self):
        text = ("--text-file", PROMPTS / "python.txt")
        found = self.json_of("calibrate_sensitivity", "calibrate", "sensitivity", "demo", *text, "--k", "1")
        for layer in (0, 3):
            score = self.json_of("score", "score", "demo", *text, "--edits", self.edits({"kind": "top_k", "layer": layer, "k": 1}), "--baseline")
            self.assertAlmostEqual(found["layers"][layer]["dnll"], score["baseline"]["dnll"])
            self.assertAlmostEqual(found["layers"][layer]["kl"], score["baseline"]["kl"])

    def test_a_bank_of_exemplars_says_how_far_the_router_is_trusted(self):
        texts = [ASSETS / "contrast" / f"{side}.jsonl" for side in ("code", "prose")]
        bank, trace = self.folder / "bank.safetensors", self.folder / "sdm.moetrace.h5"
        found = self.json_of("calibrate_bank", "calibrate", "bank", "demo", "--texts", texts[0], "--texts", texts[1], "--most", "64", "--out", bank)
        self.assertEqual([one["layer"] for one in found["layers"]], list(range(8)))
        for one in found["layers"]:
            self.assertTrue(0 < one["exemplars"] <= 64 and 0 < one["calibration_points"])
        header = json.loads(bank.read_bytes()[8:8 + int.from_bytes(bank.read_bytes()[:8], "little")])
        self.assertEqual(header["layers.3.sdm.exemplars"]["shape"], [found["layers"][3]["exemplars"], 256])
        script = self.edits({"kind": "scheme", "layer": "all", "name": "sdm", "parameters": {"file": str(bank), "if_out": "all"}})
        self.json_of("score", "score", "demo", "--texts", texts[1], "--edits", script, "--trace", trace)
        ids = rows(trace)["ids"]
        used = (ids != 255).sum(axis=2)
        self.assertEqual(set(numpy.unique(used)), {4, 32})  # trusted: the model's own k; out of distribution: all
        self.assert_refused(5, "exists", "calibrate", "bank", "demo", "--texts", texts[0], "--out", bank)
        one = self.write("one.jsonl", '{"text": "a b c"}\n')
        self.assert_refused(2, "a bank needs two at least", "calibrate", "bank", "demo", "--texts", one, "--out", self.folder / "no.safetensors")
        labelled = self.folder / "labelled.safetensors"
        self.json_of("calibrate_bank", "calibrate", "bank", "demo", "--texts", texts[0], "--texts", texts[1], "--labels", "domain", "--out", labelled)

    def test_the_example_file_of_every_scheme_routes_the_demo(self):
        listed = self.json_of("recipe_list", "recipe", "list")
        with_file = {one["name"] for one in listed["schemes"] if any(p["type"] == "file" for p in one["parameters"])} - {"replay"}
        self.assertEqual({one["scheme"] for one in listed["examples"]}, with_file)
        native, few = self.folder / "native.moetrace.h5", (*PYTHON[:2], "--max-new-tokens", "8", "--greedy")
        self.json_of("run", "run", "demo", *few, "--trace", native)
        for one in listed["examples"]:
            with self.subTest(scheme=one["scheme"]):
                script = self.edits({"kind": "scheme", "layer": "all", "name": one["scheme"], "parameters": {"file": one["file"]}})
                self.assertTrue(self.json_of("recipe_check", "recipe", "check", script, "demo")["ok"])
                trace = self.folder / f"{one['scheme']}.moetrace.h5"
                self.json_of("run", "run", "demo", *few, "--edits", script, "--trace", trace)
                self.assertFalse(numpy.array_equal(rows(native)["weights"], rows(trace)["weights"]))
                shown = run("recipe", "show", one["scheme"]).stdout.decode()
                self.assertIn(f'"file":"{one["file"]}"', shown)

    def test_the_example_files_are_what_their_script_makes(self):
        folder = ASSETS / "schemes"
        sys.path.insert(0, str(folder))
        import make
        for name in make.ARRAYS:
            with self.subTest(name=name):
                shipped, made = make.read_safetensors(folder / f"{name}.safetensors"), make.arrays(name)
                self.assertEqual(list(shipped), list(made))
                for tensor, values in made.items():
                    self.assertEqual(shipped[tensor].dtype, values.dtype)
                    numpy.testing.assert_allclose(shipped[tensor], values, rtol=1e-6)
        # What is distilled by the program: tables, thresholds and exemplars of the shape that the demo needs.
        table, bank = make.read_safetensors(folder / "stable_moe.safetensors"), make.read_safetensors(folder / "sdm.safetensors")
        self.assertEqual({values.shape[0] for values in table.values()}, {make.VOCAB})
        self.assertEqual(len(table), make.LAYERS)
        for layer in range(make.LAYERS):
            self.assertEqual(bank[f"layers.{layer}.sdm.exemplars"].shape, (len(bank[f"layers.{layer}.sdm.labels"]), make.WIDTH))

    def test_a_token_router_distilled_from_a_trace_routes_by_token_id(self):
        trace, table, again = self.folder / "run.moetrace.h5", self.folder / "table.safetensors", self.folder / "again.moetrace.h5"
        self.json_of("run", "run", "demo", *PYTHON, "--trace", trace)
        document = self.json_of("recipe_distil", "recipe", "distil", trace, "demo", "-o", table)
        before = rows(trace)
        for row, share in enumerate(document["agreement"]):  # counted here again
            first = {}
            for token, expert in zip(before["token_id"], before["ids"][row, :, 0]):
                first.setdefault(int(token), []).append(int(expert))
            agreed = sum(max(chosen.count(e) for e in chosen) for chosen in first.values())
            self.assertAlmostEqual(share, agreed / len(before["token_id"]))
        recipe = self.edits({"kind": "scheme", "layer": "all", "name": "stable_moe", "parameters": {"file": str(table)}})
        self.json_of("run", "run", "demo", *PYTHON, "--recipe", recipe, "--trace", again)
        after = rows(again)
        for row in range(after["ids"].shape[0]):
            chosen = {}
            for token, expert in zip(after["token_id"], after["ids"][row, :, 0]):
                self.assertEqual(chosen.setdefault(int(token), int(expert)), int(expert))
        self.assert_refused(5, "exists", "recipe", "distil", trace, "demo", "-o", table)
        self.assert_refused(2, "no router logits", "recipe", "distil", trace, "demo", "--kind", "threshold", "-o", self.folder / "t.safetensors")

    def test_text_on_stdout_equals_the_document(self):
        document = self.json_of("run", "run", "demo", *PYTHON)
        self.assertEqual(run("run", "demo", *PYTHON).stdout.decode(), document["text"])
        target = self.folder / "text.txt"
        self.assertEqual(run("run", "demo", *PYTHON, "-o", target).stdout, b"")
        self.assertEqual(target.read_text(), document["text"])

    def test_prompt_may_come_as_text_file_stdin_or_ids(self):
        text = (PROMPTS / "json.txt").read_bytes()
        ways = [("--prompt", text.decode()), ("--prompt-file", PROMPTS / "json.txt"), ("--prompt-file", "-"),
                ("--token-ids", ",".join(map(str, EXPECTED["json"]["ids"])))]
        outputs = {run("run", "demo", *way, "--max-new-tokens", "8", "--greedy", stdin=text).stdout for way in ways}
        self.assertEqual(len(outputs), 1)

    def test_sampling_follows_the_seed_and_the_models_defaults(self):
        prompt = ("--prompt-file", PROMPTS / "bible.txt", "--max-new-tokens", "24")
        first = self.json_of("run", "run", "demo", *prompt, "--seed", "7")
        # generation_config.json of the demo: do_sample, temperature 0.8, top_p 0.95.
        self.assertEqual(first["sampling"], {"greedy": False, "temperature": 0.8, "top_p": 0.95, "top_k": 0, "seed": 7})
        self.assertEqual(self.json_of("run", "run", "demo", *prompt, "--seed", "7")["generated_ids"], first["generated_ids"])
        self.assertNotEqual(self.json_of("run", "run", "demo", *prompt, "--seed", "8")["generated_ids"], first["generated_ids"])
        greedy = self.json_of("run", "run", "demo", *prompt, "--top-k", "1")  # top-1 sampling is greedy
        self.assertEqual(greedy["generated_ids"], EXPECTED["bible"]["greedy_ids"][:24])

    def test_dumped_logits_are_those_of_transformers(self):
        for backend, tolerance in built((("reference", 2e-4), ("cpu", 2.2e-3))):
            target = self.folder / f"{backend}.npy"
            self.json_of("run", "run", "demo", *PYTHON, "--backend", backend, "--dump-logits", target)
            logits = numpy.load(target)
            self.assertEqual((logits.dtype, logits.shape), (numpy.float32, (len(EXPECTED["python"]["ids"]), 4096)))
            self.assertLess(numpy.abs(logits[-1] - numpy.array(EXPECTED["python"]["last_logits"])).max(), tolerance)


class Traces(CliTest):
    def record(self, name, *more):
        path = self.folder / name
        return self.json_of("run", "run", "demo", *PYTHON, "--trace", path, *more), rows(path)

    def test_trace_holds_prompt_and_generated_tokens_with_the_routing_of_transformers(self):
        document, trace = self.record("plain.moetrace.h5")
        ids = document["prompt_ids"] + document["generated_ids"]
        self.assertEqual(trace["token_id"].tolist(), ids[:-1])  # the last token was never routed
        self.assertEqual(trace["complete"], 1)
        prompt = len(document["prompt_ids"])
        self.assertEqual(trace["phase"].tolist(), [0] * prompt + [1] * (len(ids) - 1 - prompt))
        self.assertEqual(trace["position"].tolist(), list(range(len(ids) - 1)))
        for layer in EXPECTED["python"]["routing"]:
            numpy.testing.assert_array_equal(trace["ids"][layer["layer"], :prompt], layer["experts"])
            numpy.testing.assert_allclose(trace["weights"][layer["layer"], :prompt], layer["weights"], atol=2e-3)
        self.assertEqual(document["trace"], str(self.folder / "plain.moetrace.h5"))

    def test_a_muted_expert_is_in_no_later_row_and_earlier_rows_are_the_same(self):
        plain_document, plain = self.record("plain.moetrace.h5")
        layer = 3
        expert = int(numpy.bincount(plain["ids"][layer, 10:].ravel()).argmax())
        self.assertGreater((plain["ids"][layer, 10:] == expert).sum(), 5, "the muted expert must matter")
        script = self.edits({"kind": "mute", "layer": layer, "expert": expert, "at_token": 10})
        document, muted = self.record("muted.moetrace.h5", "--edits", script)
        self.assertEqual((muted["ids"][layer, 10:] == expert).sum(), 0)
        numpy.testing.assert_array_equal(muted["ids"][:, :10], plain["ids"][:, :10])
        numpy.testing.assert_array_equal(muted["weights"][:, :10], plain["weights"][:, :10])
        self.assertEqual(muted["epoch"].tolist(), [0] * 10 + [1] * (len(muted["epoch"]) - 10))
        self.assertEqual([(e["from_token"], e["recipe_epoch"]) for e in document["epochs"]], [(0, 0), (10, 1)])
        self.assertEqual(document["epochs"][1]["edits"], [{"kind": "mute", "layer": layer, "expert": expert}])
        self.assertEqual(len(plain_document["epochs"]), 1)

    def test_an_edit_that_is_taken_back_at_its_token_changes_nothing(self):
        plain_document, plain = self.record("plain.moetrace.h5")
        script = self.edits({"kind": "mute", "layer": 3, "expert": 5, "at_token": 60}, {"kind": "unmute", "layer": 3, "expert": 5, "at_token": 60})
        document, back = self.record("back.moetrace.h5", "--edits", script)
        self.assertEqual(document["generated_ids"], plain_document["generated_ids"])
        numpy.testing.assert_array_equal(back["ids"], plain["ids"])
        numpy.testing.assert_array_equal(back["weights"], plain["weights"])

    def test_edits_from_the_start_belong_to_epoch_0(self):
        script = self.edits({"kind": "mute", "layer": "all", "expert": 0}, {"kind": "top_k", "layer": "all", "k": 2, "at_token": 0})
        document, trace = self.record("start.moetrace.h5", "--edits", script)
        self.assertEqual(set(trace["epoch"].tolist()), {0})
        self.assertEqual((trace["ids"] == 0).sum(), 0)
        self.assertEqual(len(document["epochs"][0]["edits"]), 2)

    def test_a_layer_path_runs_as_the_checkpoint_with_those_layers(self):
        """The other checkpoint is written here: tensors copied under the numbers of the path."""
        path = [0, 1, 1, 2, 4, 5, 5, 5, 6]
        model = relayered(self.folder / "relayered", path)
        script = self.edits({"kind": "layer_path", "layers": path})
        trace, other = self.folder / "path.moetrace.h5", self.folder / "other.moetrace.h5"
        done = self.json_of("run", "run", "demo", *PYTHON, "--edits", script, "--capture", "logits", "--trace", trace)
        want = self.json_of("run", "run", model, *PYTHON, "--capture", "logits", "--trace", other)
        self.assertEqual(done["generated_ids"], want["generated_ids"])
        self.assertEqual(done["epochs"], [{"from_token": 0, "recipe_epoch": 0, "edits": [{"kind": "layer_path", "layers": path}]}])
        with h5py.File(trace) as file:
            layers = file["/model/moe_layers"][:].tolist()
            names = [name.decode() for name in file["/model/router_names"][:]]
        self.assertEqual(layers, [0, 1, 1, 2, 3, 4, 5, 5, 5, 6, 7])
        self.assertEqual(names[1:3] + names[6:9], ["layer 1", "layer 1 · pass 2", "layer 5", "layer 5 · pass 2", "layer 5 · pass 3"])
        ran = [row for row, layer in enumerate(layers) if layer not in (3, 7)]
        numpy.testing.assert_array_equal(rows(trace)["ids"][ran], rows(other)["ids"])
        numpy.testing.assert_array_equal(rows(trace)["weights"][ran], rows(other)["weights"])
        self.assertEqual(set(rows(trace)["ids"][[4, 10]].ravel().tolist()), {255}, "skipped layers have empty rows")
        self.assertEqual(run("trace", "verify", trace).returncode, 0)
        nll = [self.json_of("score", "score", *one, "--text-file", PROMPTS / "python.txt")["nll"] for one in (("demo", "--edits", script), (model,))]
        self.assertEqual(*nll)

    def test_comparing_a_skipped_layer_says_that_no_expert_runs(self):
        script = self.edits({"kind": "layer_path", "layers": ["0-2", "4-7"]})
        layers = self.json_of("compare", "compare", "demo", "--recipes", script, "--mode", "twin", "--text", "The king said unto the people")["recipes"][0]["layers"]
        self.assertEqual([(one["jaccard"], one["extra_experts"]) for one in layers[:4]], [(1, 0)] * 3 + [(0, -4)])
        self.assertEqual([one["extra_experts"] for one in layers[4:]], [0] * 4)

    def test_a_layer_path_cannot_begin_within_a_sequence(self):
        script = self.edits({"kind": "layer_path", "layers": [0, 0, "1-7"], "at_token": 4})
        self.assert_refused(2, "edits[0]: a layer path holds for a whole sequence and cannot begin at token 4", "run", "demo", *PYTHON, "--edits", script)
        once = self.edits({"kind": "layer_path", "layers": "all"})
        self.assertEqual(self.record("once.moetrace.h5", "--edits", once)[0]["generated_ids"], self.record("plain.moetrace.h5")[0]["generated_ids"])

    def test_trace_info_and_verify_agree_with_the_run(self):
        document, _ = self.record("run.moetrace.h5", "--capture", "logits")
        path = self.folder / "run.moetrace.h5"
        for command in ("info", "verify"):
            found = self.json_of("trace", "trace", command, path)
            self.assertEqual(found["trace"]["tokens"], len(document["prompt_ids"]) + len(document["generated_ids"]) - 1)
            self.assertEqual((found["complete"], found["problems"], found["capture"]), (True, [], "logits"))
            self.assertEqual(found["trace"]["moe_layers"], list(range(8)))
            self.assertEqual(found["run"]["command"], "run")

    def test_recover_copies_a_trace_and_exits_10(self):
        self.record("run.moetrace.h5")
        source, target = self.folder / "run.moetrace.h5", self.folder / "rescued.moetrace.h5"
        before = source.read_bytes()
        found = self.json_of("trace", "trace", "recover", source, "-o", target, code=10)
        self.assertEqual(found["problems"], [])
        self.assertEqual(source.read_bytes(), before)
        numpy.testing.assert_array_equal(rows(target)["ids"], rows(source)["ids"])
        self.assert_refused(5, "rescued.moetrace.h5", "trace", "recover", source, "-o", target)

    def test_verify_finds_a_changed_number(self):
        self.record("run.moetrace.h5")
        path = self.folder / "run.moetrace.h5"
        with h5py.File(path, "r+") as file:
            weights = file["/routing/weight"]
            weights[0, 0, 0] = weights[0, 0, 0] + 1
        found = self.json_of("trace", "trace", "verify", path, code=9)
        self.assertTrue(found["problems"])


class Paths(CliTest):
    TEXT = ("--text-file", PROMPTS / "arithmetic.txt")

    def nll(self, *edits):
        return self.json_of("score", "score", "demo", *self.TEXT, *edits)["nll"]

    def test_a_searched_path_scores_what_the_search_says(self):
        out = self.folder / "path.json"
        found = self.json_of("calibrate_path_search", "calibrate", "path-search", "demo", *self.TEXT, "--simulations", 12, "--slack", "0.05", "--seed", 7, "--out", out)
        best, own = found["best"], found["own"]
        self.assertEqual(own["layers"], list(range(8)))
        self.assertLessEqual(best["ce"], own["ce"] + 0.05)
        self.assertLessEqual(len(found["trials"]), 13)
        self.assertEqual(best, min((t for t in found["trials"] if t["success"]), key=lambda t: (t["length"], t["ce"])))
        self.assertAlmostEqual(self.nll(), own["ce"], delta=1e-6)
        self.assertAlmostEqual(self.nll("--edits", out), best["ce"], delta=1e-6)
        for trial in found["trials"][1:4]:
            self.assertAlmostEqual(self.nll("--edits", self.edits({"kind": "layer_path", "layers": trial["layers"]})), trial["ce"], delta=1e-6)
        again = self.json_of("calibrate_path_search", "calibrate", "path-search", "demo", *self.TEXT, "--simulations", 12, "--slack", "0.05", "--seed", 7)
        self.assertEqual({**again, "file": None}, {**found, "file": None})
        self.assert_refused(5, "exists", "calibrate", "path-search", "demo", *self.TEXT, "--simulations", 1, "--out", out)

    def test_routers_choose_a_path_that_runs_as_an_edit(self):
        routers = "layer_routers.safetensors"  # of assets/paths
        made = subprocess.run([sys.executable, ASSETS / "paths/make.py"], capture_output=True, check=True).stdout
        self.assertEqual(made, (ASSETS / "paths" / routers).read_bytes())
        out = self.folder / "path.json"
        found = self.json_of("calibrate_path_route", "calibrate", "path-route", "demo", *self.TEXT, "--routers", routers, "--budget", "-0.3", "--out", out)
        for layer in found["layers"]:
            t = -0.3 + 0.5
            mixed = [(1 - t) * p + t * (i == 1) for i, p in enumerate(layer["probabilities"])]
            numpy.testing.assert_allclose(layer["mixed"], mixed, atol=1e-12)
            self.assertEqual(layer["passes"], int(numpy.argmax(mixed)))
        self.assertEqual(found["path"], [l["layer"] for l in found["layers"] for _ in range(l["passes"])])
        chosen = self.edits({"kind": "layer_path", "routers": str(routers), "budget": -0.3})
        self.assertEqual(self.nll("--edits", chosen), self.nll("--edits", out), "decided at the prefill, from the same text")
        ids = [self.json_of("run", "run", "demo", "--prompt-file", PROMPTS / "arithmetic.txt", "--max-new-tokens", 8, "--greedy", "--edits", script) for script in (chosen, out)]
        self.assertEqual(ids[0]["generated_ids"], ids[1]["generated_ids"])
        self.assertEqual(ids[0]["epochs"], ids[1]["epochs"])
        trace = self.folder / "t.moetrace.h5"
        self.json_of("score", "score", "demo", *self.TEXT, "--edits", chosen, "--trace", trace)
        with h5py.File(trace) as file:
            names = [name.decode() for name in file["/model/router_names"][:]]
            epoch = json.loads(file["/epochs/json"][:].tobytes())
        self.assertEqual(names, [f"layer {l['layer']}" + (f" · pass {i + 1}" if i else "") for l in found["layers"] for i in range(max(1, l["passes"]))])
        self.assertEqual(epoch["edits"], [{"kind": "layer_path", "layers": found["path"]}], "the trace says which path was run")
        self.assert_refused(4, "edits[0]: budget is 2", "run", "demo", *PYTHON, "--edits", self.edits({"kind": "layer_path", "routers": str(routers), "budget": 2}))
        self.assert_refused(3, "nowhere", "run", "demo", *PYTHON, "--edits", self.edits({"kind": "layer_path", "routers": "/nowhere/r.safetensors"}))

    def test_the_oracle_knows_the_loss_of_all_and_of_one_expert(self):
        csv = self.folder / "oracle.csv"
        found = self.json_of("calibrate_oracle", "calibrate", "oracle", "demo", *self.TEXT, "--exhaustive-layers", 0, "--beam", 1, "--csv", csv)
        self.assertFalse(found["exhaustive"])
        self.assertAlmostEqual(found["ce_all"], self.nll(), delta=1e-4)
        curve = numpy.array(found["curve"])
        self.assertEqual(len(curve), 8 * 4 + 1)
        self.assertTrue((numpy.diff(curve) <= 0).all())
        self.assertLessEqual(curve[-1], found["ce_all"])
        self.assertLessEqual(curve[8], found["ce_one"], "eight experts pay for one in each layer")
        lines = csv.read_text().splitlines()
        self.assertEqual(len(lines), 1 + len(found["tokens"]))
        for line, token in zip(lines[1:], found["tokens"]):
            self.assertEqual(float(line.split(",")[5]), token["best"][-1])
            self.assertEqual(token["experts"], sum({"-": 0, "1": 1, "k": 4}[use] for use in token["pattern"]))
            self.assertEqual(token["difficulty"], token["ce_one"] - token["best"][-1])

    def test_esft_sets_are_those_of_the_trace_and_can_be_kept_alone(self):
        trace, sets, keep, kept = (self.folder / name for name in ("run.moetrace.h5", "experts.json", "keep.json", "kept.moetrace.h5"))
        self.json_of("run", "run", "demo", *PYTHON, "--trace", trace)
        recorded = rows(trace)
        for score in ("token", "gate"):
            found = self.json_of("calibrate_esft", "calibrate", "esft", trace, "--score", score, "--threshold", "0.5", "--out", sets, "--keep-only", keep, "--force")
            for row, layer in enumerate(found["layers"]):
                ids, weights = recorded["ids"][row], recorded["weights"][row].astype(numpy.float64)
                want = (numpy.bincount(ids.ravel(), minlength=32) / ids.size if score == "token" else
                        numpy.bincount(ids.ravel(), weights=weights.ravel(), minlength=32) / len(ids))
                numpy.testing.assert_allclose(layer["scores"], want, atol=1e-12)
                rounded = [round(value, 4) for value in want]
                order, chosen = sorted(range(32), key=lambda e: (-rounded[e], e)), []
                while sum(rounded[e] for e in chosen) < 0.5:
                    chosen.append(order[len(chosen)])
                self.assertEqual(layer["experts"], chosen)
            document = json.loads(sets.read_text())
            self.assertEqual(document, {"experts": {str(l["layer"]): l["experts"] for l in found["layers"]}, "shared_experts": False, "non_expert_modules": False})
        self.json_of("run", "run", "demo", *PYTHON, "--edits", keep, "--trace", kept)
        for row, layer in enumerate(found["layers"]):
            self.assertEqual(set(rows(kept)["ids"][row].ravel().tolist()) - set(layer["experts"]) - {255}, set())
        self.assert_refused(5, "exists", "calibrate", "esft", trace, "--out", sets)


class Score(CliTest):
    def test_loss_of_every_prompt_equals_transformers(self):
        for name, prompt in EXPECTED.items():
            for backend, tolerance in built((("cpu", 1e-3), ("reference", 1e-5))):
                done = self.json_of("score", "score", "demo", "--text-file", PROMPTS / f"{name}.txt", "--backend", backend)
                self.assertEqual(done["tokens"], len(prompt["ids"]) - 1)
                self.assertAlmostEqual(done["nll"], prompt["mean_nll"], delta=tolerance)

    def test_no_edits_is_no_effect(self):
        done = self.json_of("score", "score", "demo", "--text-file", PROMPTS / "cpp.txt", "--baseline")
        self.assertEqual((done["baseline"]["kl"], done["baseline"]["dnll"], done["baseline"]["top1_flips"]), (0, 0, 0))
        self.assertEqual(done["baseline"]["routing_shift"], [1] * 8)
        self.assertEqual(done["baseline"]["nll"], done["nll"])

    def test_edit_effects_equal_those_computed_from_dumped_logits(self):
        script = self.edits({"kind": "mute", "layer": 2, "expert": [4, 9]}, {"kind": "top_k", "layer": "5-6", "k": 2, "at_token": 12})
        prompt = ("--prompt-file", PROMPTS / "cpp.txt", "--max-new-tokens", "1", "--greedy")
        logits = []
        for name, more in (("base", ()), ("edited", ("--edits", script))):
            self.assertEqual(run("run", "demo", *prompt, "--dump-logits", self.folder / f"{name}.npy", *more).returncode, 0)
            rows = numpy.load(self.folder / f"{name}.npy").astype(numpy.float64)[:-1]
            logits.append(rows - rows.max(axis=1, keepdims=True))
        log_p, log_q = (rows - numpy.log(numpy.exp(rows).sum(axis=1, keepdims=True)) for rows in logits)
        targets = EXPECTED["cpp"]["ids"][1:]
        nll = [-rows[numpy.arange(len(targets)), targets].mean() for rows in (log_p, log_q)]
        done = self.json_of("score", "score", "demo", "--text-file", PROMPTS / "cpp.txt", "--edits", script, "--baseline")
        self.assertAlmostEqual(done["nll"], nll[1], places=9)
        self.assertAlmostEqual(done["baseline"]["nll"], nll[0], places=9)
        self.assertAlmostEqual(done["baseline"]["dnll"], nll[1] - nll[0], places=9)
        self.assertAlmostEqual(done["baseline"]["kl"], (numpy.exp(log_p) * (log_p - log_q)).sum(axis=1).mean(), places=9)
        self.assertAlmostEqual(done["baseline"]["top1_flips"], (log_p.argmax(axis=1) != log_q.argmax(axis=1)).mean(), places=12)
        self.assertEqual(done["baseline"]["routing_shift"][:2], [1, 1])  # layers before the first edit
        self.assertLess(done["baseline"]["routing_shift"][2], 1)

    def test_scored_routing_equals_that_of_a_run_under_the_same_script(self):
        script = self.edits({"kind": "bias", "layer": "all", "expert": 3, "value": 2}, {"kind": "mute", "layer": 1, "expert": 3, "at_token": 12})
        ran, scored = self.folder / "run.moetrace.h5", self.folder / "score.moetrace.h5"
        self.json_of("run", "run", "demo", "--prompt-file", PROMPTS / "cpp.txt", "--max-new-tokens", "1", "--greedy", "--edits", script, "--trace", ran)
        self.json_of("score", "score", "demo", "--text-file", PROMPTS / "cpp.txt", "--edits", script, "--trace", scored)
        for field in ("ids", "weights", "token_id", "epoch", "position"):
            numpy.testing.assert_array_equal(rows(scored)[field], rows(ran)[field], field)

    def test_many_texts_are_one_mean_over_tokens_and_one_trace(self):
        texts = [{"text": (PROMPTS / "german.txt").read_text(), "domain": "german"}, {"token_ids": EXPECTED["json"]["ids"], "domain": "json"}]
        file = self.write("texts.jsonl", "".join(json.dumps(t) + "\n" for t in texts))
        trace = self.folder / "texts.moetrace.h5"
        done = self.json_of("score", "score", "demo", "--texts", file, "--trace", trace)
        counts = [len(EXPECTED[n]["ids"]) - 1 for n in ("german", "json")]
        self.assertEqual(done["tokens"], sum(counts))
        self.assertAlmostEqual(done["nll"], sum(c * EXPECTED[n]["mean_nll"] for c, n in zip(counts, ("german", "json"))) / sum(counts), delta=1e-3)
        self.assertEqual(done["domains"]["json"]["tokens"], counts[1])
        found = self.json_of("trace", "trace", "verify", trace)
        self.assertEqual((found["trace"]["tokens"], found["trace"]["sequences"]), (sum(counts) + 2, 2))
        numpy.testing.assert_array_equal(rows(trace)["token_id"], EXPECTED["german"]["ids"] + EXPECTED["json"]["ids"])


if __name__ == "__main__":
    unittest.main()
