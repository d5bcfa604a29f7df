"""inspect, tokenize, detokenize, recipe, help, and how every command writes and refuses."""
import json
import pathlib
import shutil
import subprocess
import unittest

from support import ASSETS, EXPECTED, PROGRAM, PARQUET, PROMPTS, REFERENCE, SOURCE, CliTest, run

DEMO = SOURCE / "assets/models/demo"


class Inspect(CliTest):
    def test_describes_the_demo_from_its_headers(self):
        document = self.json_of("inspect", "inspect", "demo")
        config = json.loads((DEMO / "config.json").read_text())
        self.assertEqual(document["family"], config["model_type"])
        self.assertEqual(document["layers"], config["num_hidden_layers"])
        self.assertEqual(document["moe_layers"], list(range(8)))
        self.assertEqual(document["experts"], config["num_experts"])
        self.assertEqual(document["experts_per_token"], config["num_experts_per_tok"])
        self.assertEqual(document["router"]["score"], "softmax_all")
        self.assertEqual(document["router"]["renorm"], "sum")
        self.assertEqual(document["tokenizer"], "byte_level_bpe")
        # The model card: 15.0 M parameters as bfloat16.
        self.assertEqual(document["weight_bytes"], 2 * document["parameters"])
        for backend in ("cpu", "reference"):
            memory = document["memory"][backend]
            self.assertEqual(memory["total"], memory["weights"] + memory["kv"] + memory["workspace"])

    def test_lists_every_tensor_of_the_file(self):
        document = self.json_of("inspect", "inspect", DEMO, "--tensors")
        with open(DEMO / "model.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        self.assertEqual({t["name"]: (t["dtype"], t["shape"]) for t in document["tensors"]},
                         {name: (t["dtype"], t["shape"]) for name, t in header.items()})

    def test_text_says_the_same(self):
        text = run("inspect", "demo", "--plain").stdout.decode()
        self.assertIn("experts\t32 per layer, 4 per token\n", text)


class Tokenize(CliTest):
    def test_ids_of_every_prompt_equal_transformers(self):
        for name, prompt in EXPECTED.items():
            document = self.json_of("tokenize", "tokenize", "demo", "--text-file", PROMPTS / f"{name}.txt")
            self.assertEqual(document["ids"], prompt["ids"], name)
            self.assertEqual(len(document["pieces"]), len(document["ids"]))

    def test_stdin_is_taken_byte_for_byte(self):
        text = "a\r\nb \u00e9\n\n".encode()
        ids = run("tokenize", "demo", "--text-file", "-", stdin=text).stdout.decode().strip()
        self.assertEqual(run("detokenize", "demo", "--ids", ids).stdout, text)

    def test_detokenize_gives_the_greedy_texts(self):
        for name, prompt in EXPECTED.items():
            ids = ",".join(map(str, prompt["greedy_ids"]))
            self.assertEqual(self.json_of("detokenize", "detokenize", "demo", "--ids", ids)["text"], prompt["greedy_text"], name)

    def test_special_tokens_can_be_skipped(self):
        self.assertEqual(run("detokenize", "demo", "--ids", "0,581").stdout, b"<|endoftext|>The")
        self.assertEqual(run("detokenize", "demo", "--ids", "0,581", "--skip-special").stdout, b"The")


class Recipe(CliTest):
    def test_every_listed_kind_has_an_example_that_fits_the_demo(self):
        kinds = self.json_of("recipe_list", "recipe", "list")["edits"]
        self.assertEqual({k["kind"] for k in kinds}, {"mute", "unmute", "force", "unforce", "bias", "select_bias", "expert_scale",
                                                      "top_k", "temperature", "router_row", "swap", "merge", "clone", "replace",
                                                      "neuron_mask", "expert_kind", "scheme", "adapters", "layer_path"})
        for kind in kinds:
            script = self.edits(kind["example"])
            self.assertEqual(self.json_of("recipe_check", "recipe", "check", script, "demo"), {"schema": 1, "ok": True, "problems": []})
            self.assertEqual(self.json_of("recipe_show", "recipe", "show", kind["kind"])["kind"], kind["kind"])
            for field in kind["fields"]:
                optional = field["meaning"].startswith(("optional", "one of four", "with rotate_towards"))
                self.assertTrue(field["name"] in kind["example"] or optional, field)

    def test_every_listed_scheme_fits_the_demo_with_its_defaults(self):
        for scheme in self.json_of("recipe_list", "recipe", "list")["schemes"]:
            with self.subTest(scheme=scheme["name"]):
                self.assertEqual(self.json_of("recipe_show", "recipe", "show", scheme["name"])["title"], scheme["title"])
                parameters = {p["name"]: p["default"] for p in scheme["parameters"] if p["type"] != "file"}
                script = self.edits({"kind": "scheme", "layer": "all", "name": scheme["name"], "parameters": parameters})
                fits = "file" not in scheme["needs"]
                document = self.json_of("recipe_check", "recipe", "check", script, "demo", code=0 if fits else 9)
                self.assertEqual(document["ok"], fits)

    def test_every_adapter_router_has_an_example_that_changes_the_text(self):
        def generated(*more):
            return self.json_of("run", "run", "demo", "--prompt", "The router", "--max-new-tokens", 24, "--greedy", *more)

        plain = generated()
        self.assertEqual(plain["adapters"], [])
        routed = len(plain["prompt_ids"]) + 23  # the last token was never routed
        for router in self.json_of("recipe_list", "recipe", "list")["adapter_routers"]:
            with self.subTest(router=router["name"]):
                script = ASSETS / f"schemes/adapters_{router['name']}.json"
                self.assertEqual(self.json_of("recipe_check", "recipe", "check", script, "demo")["problems"], [])
                self.assertIn(router["title"], run("recipe", "show", router["name"]).stdout.decode())
                document = generated("--edits", script)
                self.assertNotEqual(document["text"], plain["text"])
                rows = document["adapters"]
                self.assertEqual([row["layer"] for row in rows], list(range(8)))
                self.assertTrue(rows[3]["name"].startswith("layer 3 · ") and rows[3]["name"].endswith("_proj adapter"), rows[3]["name"])
                for row in rows:
                    self.assertEqual((row["adapter_router"], row["tokens"]), (router["name"], routed))
                    if router["name"] in ("phatgoose", "glider", "arrow", "lora_mixer"):  # two of four, shares of 1
                        self.assertAlmostEqual(sum(row["mean_weights"]), 1, places=5)
                        self.assertEqual(sum(row["chosen"]), 2 * routed)

    def test_check_names_every_problem_by_its_entry(self):
        script = self.edits({"kind": "mute", "layer": 1, "expert": 1}, {"kind": "mute", "layer": 99, "expert": 1},
                            {"kind": "bias", "layer": 1, "expert": 32, "value": 1}, {"kind": "dance", "layer": 1})
        document = self.json_of("recipe_check", "recipe", "check", script, "demo", code=9)
        self.assertFalse(document["ok"])
        self.assertEqual([p["entry"] for p in document["problems"]], [1, 2, 3])

    def test_text_form_says_what_the_script_does(self):
        script = self.edits({"kind": "mute", "layer": 3, "expert": 5, "at_token": 10})
        self.assertEqual(run("recipe", "check", script, "demo").stdout, b"Mute expert 5 in layer 3 from token 10 on\n")


class Open(CliTest):
    def test_becomes_the_window_program_beside_it_with_its_arguments(self):
        program = self.folder / "switchyard"
        shutil.copy(PROGRAM, program)
        arguments = [program, "open", "demo", "--screenshot", "a b.png", "--after-tokens", "4", "--safe-mode"]
        missing = subprocess.run(arguments, capture_output=True)
        self.assertEqual((missing.returncode, missing.stdout), (2, b""))
        self.assertIn(b"the window program is not installed", missing.stderr)
        window = self.write("switchyard-gui", '#!/bin/sh\nprintf "%s|" "$@"\nkill -TERM $$\n')
        window.chmod(0o755)
        opened = subprocess.run(arguments, capture_output=True)
        self.assertEqual(opened.stdout, b"--screenshot|a b.png|--after-tokens|4|--safe-mode|demo|")
        self.assertEqual(opened.returncode, -15, "signals reach the window as they would any program")


class LayerPath(CliTest):
    def test_inspect_counts_the_keys_and_values_of_a_path(self):
        plain = self.json_of("inspect", "inspect", "demo")
        path = self.json_of("inspect", "inspect", "demo", "--edits", self.edits({"kind": "layer_path", "layers": [0, 0, 0, 1, 3, "4-7"]}))
        self.assertEqual(path["layer_path"], [0, 0, 0, 1, 3, 4, 5, 6, 7])
        for backend in ("cpu", "reference"):
            self.assertEqual(8 * path["memory"][backend]["kv"], 9 * plain["memory"][backend]["kv"])
        self.assertNotIn("layer_path", plain)

    def test_export_says_why_a_path_cannot_be_written(self):
        self.assert_refused(2, "layer_path: a checkpoint holds each layer once", "export", "demo", "--edits",
                            self.edits({"kind": "layer_path", "layers": ["1-7"]}), "--out", self.folder / "out")


class Export(CliTest):
    def test_writes_a_model_that_runs_as_the_original_does_under_the_edits(self):
        script = self.edits({"kind": "mute", "layer": "all", "expert": [3, 17]}, {"kind": "swap", "layer": "2-4", "experts": [1, 2]})
        target = self.folder / "out"
        planned = self.json_of("export", "export", "demo", "--edits", script, "--out", target, "--dry-run")
        self.assertFalse(target.exists())
        document = self.json_of("export", "export", "demo", "--edits", script, "--out", target)
        self.assertEqual({**planned, "written": True}, document)
        self.assertEqual([row["experts"] for row in document["rows"]], [30] * 8)
        self.assertEqual(document["bytes_after"], self.json_of("inspect", "inspect", target)["weight_bytes"])
        for model, arguments in [("demo", ("--edits", script)), (target, ())]:
            done = run("run", model, "--prompt", "The router", "--greedy", "--max-new-tokens", 16, "--json", *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            ids = json.loads(done.stdout)["generated_ids"]
            expected = ids if model == "demo" else expected
            self.assertEqual(ids, expected)

    def test_refuses_by_name_and_writes_nothing(self):
        target = self.folder / "out"
        self.assert_refused(2, "force: no architecture", "export", "demo", "--out", target, "--edits", self.edits({"kind": "force", "layer": 1, "expert": 2}))
        self.assert_refused(2, "begins at token 4", "export", "demo", "--out", target, "--edits", self.edits({"kind": "mute", "layer": "all", "expert": 2, "at_token": 4}))
        self.assertFalse(target.exists())
        self.assert_refused(5, "not an empty folder", "export", "demo", "--out", self.folder, "--edits", self.edits({"kind": "mute", "layer": "all", "expert": 2}))


class Bench(CliTest):
    def test_reports_speed_and_the_share_of_the_ceiling(self):
        document = self.json_of("bench", "bench", "demo", "--prompt-tokens", "16", "--new-tokens", "8", "--repeat", "2")
        decode = document["decode"]
        self.assertLessEqual(decode["tokens_per_s"]["min"], decode["tokens_per_s"]["median"])
        share = decode["bytes_per_token"] * decode["tokens_per_s"]["median"] / (document["ceiling"]["read_gb_per_s"] * 1e9)
        self.assertAlmostEqual(decode["share_of_ceiling"], share, places=6)

    def test_measures_what_edits_cost(self):
        sizes = ("--prompt-tokens", "8", "--new-tokens", "8", "--repeat", "1")
        edits = self.edits({"kind": "top_k", "layer": "all", "k": 1})
        edited = self.json_of("bench", "bench", "demo", *sizes, "--edits", edits)["edited"]
        self.assertLessEqual(edited["cost_95"][0], edited["cost"])
        self.assertLessEqual(edited["cost"], edited["cost_95"][1])
        chain = self.edits({"kind": "scheme", "layer": "all", "name": "chain_of_experts"}, name="chain.json")
        self.assertGreater(self.json_of("bench", "bench", "demo", *sizes, "--edits", chain)["edited"]["tokens_per_s"]["min"], 0)
        late = self.edits({"kind": "mute", "layer": "all", "expert": 2, "at_token": 4})
        self.assert_refused(2, "begins after the first token", "bench", "demo", *sizes, "--edits", late)


class Refusals(CliTest):
    """Exit codes of interface.md section 12; nothing on stdout, no file left."""

    def test_usage(self):
        for arguments, message in [
                ((), "subcommand is required"),
                (("detokenise", "demo"), "Did you mean detokenize?"),
                (("run", "demo", "--promt", "x"), "Did you mean --prompt?"),
                (("trace", "verfy", "x"), "Did you mean verify?"),
                (("inspect", "demo", "more"), '"more" was not expected'),
                (("inspect",), "MODEL is required"),
                (("tokenize", "demo"), "no text given"),
                (("detokenize", "demo", "--ids", "1,two"), 'holds "two" at place 1'),
                (("run", "demo"), "no prompt given"),
                (("run", "demo", "--prompt", ""), "the prompt is empty"),
                (("run", "demo", "--prompt", "a", "--prompt-file", "b"), "excludes"),
                (("run", "demo", "--prompt", "a", "--greedy", "--top-p", "0.5"), "--greedy leaves no room"),
                (("run", "demo", "--prompt", "a", "--temperature", "0"), "needs to be above 0"),
                (("run", "demo", "--prompt", "a", "--temperature", "nan"), "needs to be above 0"),
                (("run", "demo", "--prompt", "a", "--top-p", "1.5"), "above 0 and at most 1"),
                (("run", "demo", "--prompt", "a", "--max-new-tokens", "-1"), "no whole number"),
                (("run", "demo", "--prompt", "a", "--max-new-tokens", "2048"), "do not fit into the model's context of 2048"),
                (("run", "demo", "--token-ids", "4096"), "outside the vocabulary"),
                (("run", "demo", "--prompt", "a", "--chat"), "the checkpoint has no chat template"),
                (("run", "demo", "--prompt", "a", "--taps", "out_norm"), "go into a trace"),
                (("run", "demo", "--prompt", "a", "--taps", "hidden", "--trace", self.folder / "t.moetrace.h5"), "not in"),
                (("run", "demo", "--prompt", "a", "--backend", "gpu"), "not in"),
                (("run", "demo", "--prompt", "a", "--trace", self.folder / "t.h5"), "end in .moetrace.h5"),
                (("run", "demo", "--prompt", "a", "--trace", self.folder / "t.moetrace.h5", "--capture", "off"), "--capture off"),
                (("score", "demo", "--text", "a"), "at least two tokens"),
                (("score", "demo"), "no text given"),
                (("recipe", "show", "muet"), "Did you mean mute?"),
                (("open", "demo", "--after-tokens", "4"), "requires --screenshot")]:
            with self.subTest(arguments=arguments):
                self.assert_refused(2, message, *arguments)

    def test_sound_edits_that_do_not_fit_the_model(self):
        script = self.edits({"kind": "mute", "layer": 7, "expert": list(range(32))})
        self.assert_refused(2, "edits[0]: ", "run", "demo", "--prompt", "a", "--edits", script)
        script = self.edits({"kind": "scheme", "layer": 1, "name": "stable_moe"})
        self.assert_refused(2, "edits[0]: ", "score", "demo", "--text", "a b", "--edits", script)

    def test_a_missing_device(self):
        if pathlib.Path("/dev/nvidia0").exists():
            self.skipTest("this machine has a GPU")
        self.assert_refused(7, "--backend cpu", "run", "demo", "--prompt", "a", "--backend", "cuda")

    def test_input_not_found(self):
        for arguments in [("inspect", "/nowhere"), ("run", "demo", "--prompt-file", "/nowhere/prompt.txt"), ("trace", "info", "/nowhere.moetrace.h5"),
                          ("run", "demo", "--prompt", "a", "--edits", "/nowhere.json"), ("score", "demo", "--texts", "/nowhere.jsonl"),
                          ("recipe", "check", "/nowhere.json", "demo")]:
            with self.subTest(arguments=arguments):
                self.assert_refused(3, "nowhere", *arguments)

    def test_input_malformed(self):
        broken = self.write("broken.json", "{\"schema\":1,\"edits\":[")
        unknown = self.edits({"kind": "mute", "layer": 1, "expert": 1}, {"kind": "dance"}, name="unknown.json")
        lines = self.write("texts.jsonl", '{"text":"a b"}\n{"token_ids":[1,-2]}\n')
        hdf5 = self.write("not.moetrace.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
        model = self.folder / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"")
        elsewhere = self.edits({"kind": "mute", "layer": 8, "expert": 0}, name="elsewhere.json")
        for message, *arguments in [("broken.json", "run", "demo", "--prompt", "a", "--edits", broken), ("edits[1]", "run", "demo", "--prompt", "a", "--edits", unknown),
                                    ("texts.jsonl:2", "score", "demo", "--texts", lines), ("not.moetrace.h5", "trace", "info", hdf5),
                                    ("edits[0]: there is no layer 8", "run", "demo", "--prompt", "a", "--edits", elsewhere), ("model", "inspect", model)]:
            with self.subTest(arguments=arguments):
                self.assert_refused(4, message, *arguments)

    def test_output_that_exists_or_cannot_be_written(self):
        taken = self.write("taken.moetrace.h5", "mine")
        self.assert_refused(5, "exists already", "run", "demo", "--prompt", "a", "--trace", taken)
        self.assert_refused(5, "exists already", "inspect", "demo", "-o", taken)
        self.assert_refused(5, "nowhere", "inspect", "demo", "-o", "/nowhere/out.txt")
        self.assertEqual(taken.read_text(), "mine")
        with open("/dev/full", "wb") as full:
            self.assertEqual(subprocess.run([PROGRAM, "inspect", "demo"], stdout=full, stderr=subprocess.DEVNULL).returncode, 5)


class Output(CliTest):
    def test_o_writes_the_same_bytes_as_stdout(self):
        target = self.folder / "out.json"
        self.assertEqual(run("inspect", "demo", "--json", "-o", target).stdout, b"")
        self.assertEqual(target.read_bytes(), run("inspect", "demo", "--json").stdout)
        self.assertEqual(run("tokenize", "demo", "--text", "a", "-o", target, "--force").returncode, 0)
        self.assertEqual(target.read_bytes(), run("tokenize", "demo", "--text", "a").stdout)

    def test_messages_are_plain_when_not_on_a_terminal(self):
        done = run("inspect", "/nowhere\x1b[31m")
        self.assertNotIn(b"\x1b", done.stderr)
        self.assertTrue(done.stderr.startswith(b"error: "))

    def test_help_leads_with_examples_and_goes_to_stdout(self):
        for command in ["inspect", "run", "score", "compare", "tokenize", "detokenize", "open", "bench", "recipe", "export", "trace", "adapt", "calibrate"]:
            done = run(command, "--help")
            self.assertEqual(done.returncode, 0)
            text = done.stdout.decode()
            self.assertLess(text.index(f"  switchyard {command} "), text.index("Usage:"), command)

    def test_version(self):
        """First line as ever; then what was built, and of what is absent the package that brings it."""
        lines = run("--version", env={"SWITCHYARD_REFERENCE_LIB": "/nowhere/lib.so", "SWITCHYARD_ISA": "portable"}).stdout.decode().splitlines()
        self.assertRegex(lines[0], r"^switchyard \d+\.\d+\.\d+$")
        facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:]}
        self.assertLessEqual({"commit", "build", "cpu", "reference", "cuda", "parquet", "formats", "plugins"}, set(facts))
        self.assertRegex(facts["commit"], r"^([0-9a-f]{7,40}( with changes)?|unknown)$")
        self.assertRegex(facts["cpu"], "present: .*portable")
        self.assertIn("absent: ", facts["reference"])
        self.assertIn("/nowhere/lib.so", facts["reference"])
        self.assertIn("switchyard-torch", facts["reference"])
        self.assertIn("present" if PARQUET else "absent", facts["parquet"])
        if REFERENCE:
            self.assertIn("\n  reference  backend, present", run("--version").stdout.decode())


class Prune(CliTest):
    """calibrate prune: mutes by a criterion."""

    def texts(self, *ids):
        return self.write("texts.jsonl", "".join(json.dumps({"token_ids": list(one)}) + "\n" for one in ids))

    def test_naee_is_that_of_transformers_activations(self):
        if not REFERENCE:
            self.skipTest("the reference backend is not built")
        golden = json.loads((SOURCE / "tests/data/naee.json").read_text())
        script = self.folder / "naee.json"
        document = self.json_of("calibrate_prune", "calibrate", "prune", "demo", "--texts", self.texts(*golden["texts"]), "--keep", golden["keep"],
                                "--criterion", "naee", "--out", script,
                                env={"LSAN_OPTIONS": "use_tls=0"})  # else LeakSanitizer's tracer faults on the storage of LibTorch's threads
        for want in golden["layers"]:
            layer = next(one for one in document["layers"] if one["layer"] == want["layer"])
            self.assertEqual(layer["dropped"], want["dropped"])
            self.assertAlmostEqual(layer["loss"], want["loss"], delta=1e-3 * want["loss"])
            self.assertFalse(layer["exhaustive"])
        edits = json.loads(script.read_text())["edits"]
        self.assertEqual([(edit["kind"], edit["expert"]) for edit in edits], [("mute", layer["dropped"]) for layer in document["layers"]])
        self.json_of("score", "score", "demo", "--texts", self.folder / "texts.jsonl", "--edits", script)

    def test_scores_are_those_of_the_analysis(self):
        texts = self.texts(range(5, 45), range(100, 130))
        trace = self.folder / "t.moetrace.h5"
        self.assertEqual(run("score", "demo", "--texts", texts, "--trace", trace, "--taps", "out_norm,block_cos").returncode, 0)
        layers = self.json_of("analyze", "analyze", trace, "saliency", "--keep", 20)["layers"]
        for criterion in ("reap", "frequency", "ean_mean", "easy_ep"):
            document = self.json_of("calibrate_prune", "calibrate", "prune", "demo", "--texts", texts, "--keep", 20, "--criterion", criterion)
            self.assertEqual([one["dropped"] for one in document["layers"]], [one["pruned"][criterion] for one in layers])
            for one, other in zip(document["layers"], layers):
                for a, b in zip(one["scores"], other[criterion]):
                    self.assertAlmostEqual(a, b, places=5)

    def test_refusals(self):
        texts = self.texts(range(5, 15))
        self.assert_refused(2, "cannot stay", "calibrate", "prune", "demo", "--texts", texts, "--keep", 3)
        self.assert_refused(2, "does not run experts that were not chosen", "calibrate", "prune", "demo", "--texts", texts, "--keep", 20, "--criterion", "naee",
                            "--backend", "cpu")
        self.assert_refused(2, "not in", "calibrate", "prune", "demo", "--texts", texts, "--keep", 20, "--criterion", "size")


class Lens(CliTest):
    """calibrate lens against transformers' hidden states (tests/data/lens.py)."""

    def test_layers_are_those_of_transformers(self):
        if not REFERENCE:
            self.skipTest("the reference backend is not built")
        golden = json.loads((SOURCE / "tests/data/lens.json").read_text())
        ids = ",".join(map(str, golden["token_ids"]))
        document = self.json_of("calibrate_lens", "calibrate", "lens", "demo", "--token-ids", ids)
        places = [place for place in document["places"] if place["behind"] == "experts"]
        self.assertEqual([place["layer"] for place in places], list(range(8)))
        self.assertEqual([place["behind"] for place in document["places"]], ["attention", "experts"] * 8)
        for place, want in zip(places, golden["layers"]):
            self.assertEqual(place["first"], want["top1"])
            self.assertEqual(place["rank"], want["rank"])
            for name in ("kl", "probability"):
                for a, b in zip(place[name], want[name]):
                    self.assertAlmostEqual(a, b, delta=1e-4 * max(1, abs(b)))
        self.assertEqual((places[-1]["agreement"], places[-1]["first"]), (1, golden["final"]))
        self.assertAlmostEqual(places[-1]["mean_kl"], 0, places=6)
        few = self.json_of("calibrate_lens", "calibrate", "lens", "demo", "--token-ids", ids, "--last", 3)
        self.assertEqual((few["tokens"], few["first_token"]), (12, 9))
        self.assertEqual([place["rank"] for place in few["places"]], [place["rank"][-3:] for place in document["places"]])
        self.assert_refused(2, "does not show its residual stream", "calibrate", "lens", "demo", "--token-ids", ids, "--backend", "cpu")
        self.assert_refused(2, "has 0 tokens, needs at least 1", "calibrate", "lens", "demo", "--text", "")

    def test_layers_of_a_path_are_read_in_each_pass(self):
        if not REFERENCE:
            self.skipTest("the reference backend is not built")
        text = ("--token-ids", "5,6,7,8,9,10,11,12")
        routed = self.edits({"kind": "layer_path", "routers": "layer_routers.safetensors", "budget": -0.5})
        document = self.json_of("calibrate_lens", "calibrate", "lens", "demo", *text, "--edits", routed)
        path = self.json_of("calibrate_path_route", "calibrate", "path-route", "demo", *text, "--routers", "layer_routers.safetensors", "--budget", "-0.5", "--backend", "reference")["path"]
        self.assertNotEqual(path, list(range(8)))
        places = [place for place in document["places"] if place["behind"] == "experts"]
        self.assertEqual([place["layer"] for place in places], path)
        self.assertEqual([place["pass"] for place in places], [path[:i].count(layer) for i, layer in enumerate(path)])
        self.assertAlmostEqual(places[-1]["mean_kl"], 0, places=6, msg="what is left is what the model predicts under the path")
        last = self.json_of("calibrate_lens", "calibrate", "lens", "demo", *text, "--edits", self.edits({"kind": "layer_path", "layers": path}), "--last", 2)
        for some, every in zip(last["places"], document["places"]):
            for a, b in zip(some["kl"], every["kl"][-2:]):
                self.assertAlmostEqual(a, b, delta=1e-5)
        self.assert_refused(2, "knows no layer paths", "calibrate", "gradient", "demo", *text, "--edits", routed)
        self.assert_refused(2, "has 0 tokens, needs at least 2", "calibrate", "gradient", "demo", "--text", "")


if __name__ == "__main__":
    unittest.main()
