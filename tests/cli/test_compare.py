"""compare: twin runs against score and against two separate traces, shadow against an independent computation."""
import json
import unittest

import h5py
import numpy as np

from support import EXPECTED, PROMPTS, CliTest, run

# The demo: 8 layers of 32 experts, top-4 of a softmax, renormalised. Edits as (bias, temperature, muted, k) per layer.
LAYERS, EXPERTS, K = 8, 32, 4
RECIPES = {
    "soft": [{"kind": "temperature", "layer": "all", "value": 1.7}, {"kind": "bias", "layer": 3, "expert": [1, 9], "value": 0.8}],
    "fewer": [{"kind": "top_k", "layer": "2-5", "k": 2}],
    "muted": [{"kind": "mute", "layer": 5, "expert": [0, 1, 2, 3]}],
    "late": [{"kind": "top_k", "layer": "all", "k": 6, "at_token": 20}],
    "native": [],
}


def edited(name, layer, token, logits):
    """float64 edited logits and k, straight from the meaning of the edits."""
    z = logits.astype(np.float64)
    if name == "soft":
        if layer == 3:
            z[[1, 9]] += np.float32(0.8)
        return z / np.float32(1.7), K
    if name == "muted" and layer == 5:
        z[:4] = -np.inf
    k = 2 if name == "fewer" and 2 <= layer <= 5 else 6 if name == "late" and token >= 20 else K
    return z, k


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def decision(z, k):
    """Probabilities and renormalised weights of the k best, ties to the lower id."""
    p = softmax(z)
    chosen = np.argsort(-z, kind="stable")[:k]
    weights = np.zeros(len(z))
    weights[chosen] = p[chosen] / p[chosen].sum()
    return p, weights


def kl(p, q):
    some = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[some] * (np.log(p[some]) - np.log(q[some]))))


def js(p, q):
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def differences(base, other):
    """[jaccard, weight_l1, kl, js, extra experts] of (p, weights) pairs."""
    a, b = base[1] > 0, other[1] > 0
    return [(a & b).sum() / (a | b).sum(), np.abs(base[1] - other[1]).sum(), kl(base[0], other[0]), js(base[0], other[0]),
            int(b.sum()) - int(a.sum())]


class Compare(CliTest):
    FIELDS = ("jaccard", "weight_l1", "kl", "js", "extra_experts")

    def setUp(self):
        super().setUp()
        self.files = {name: self.edits(*entries, name=f"{name}.edits.json") for name, entries in RECIPES.items()}
        self.ids = ",".join(map(str, EXPECTED["python"]["ids"] + EXPECTED["python"]["greedy_ids"][:30]))

    def compare(self, mode, *names, **more):
        files = ",".join(str(self.files[name]) for name in names)
        document = self.json_of("compare", "compare", "demo", "--recipes", files, "--mode", mode, "--token-ids", self.ids, **more)
        self.assertEqual([r["name"] for r in document["recipes"]], list(names))
        self.assertEqual(document["tokens"], len(self.ids.split(",")))
        for recipe in document["recipes"]:
            self.assertEqual([layer["layer"] for layer in recipe["layers"]], list(range(LAYERS)))
        return document["recipes"]

    def trace(self, name):
        """Rows of a run of the ids as prompt, under the edits: expert ids, weights and raw logits."""
        path = self.folder / f"{name}.moetrace.h5"
        done = run("run", "demo", "--token-ids", self.ids, "--max-new-tokens", "0", "--capture", "logits", "--trace", path,
                   "--edits", self.files[name])
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        with h5py.File(path) as file:
            return [file[f"/routing/{field}"][:] for field in ("expert_id", "weight", "router_logits")]

    def assert_layers(self, recipe, expected):
        """expected: [layers, fields] means over the tokens; the program routes in float32."""
        for layer, want in zip(recipe["layers"], expected, strict=True):
            for field, value in zip(self.FIELDS, want, strict=True):
                if np.isinf(value):
                    self.assertIsNone(layer[field], (recipe["name"], layer["layer"], field))
                else:
                    self.assertAlmostEqual(layer[field], value, delta=2e-6 * max(1, abs(value)), msg=(recipe["name"], layer["layer"], field))

    def test_shadow_agrees_with_numpy_on_the_logits_of_the_unedited_trace(self):
        logits = self.trace("native")[2]
        for recipe in self.compare("shadow", *RECIPES):
            name = recipe["name"]
            expected = [np.mean([differences(decision(logits[l, t].astype(np.float64), K), decision(*edited(name, l, t, logits[l, t])))
                                 for t in range(logits.shape[1])], axis=0) for l in range(LAYERS)]
            self.assert_layers(recipe, expected)

    def test_twin_agrees_with_two_separate_runs(self):
        base = self.trace("native")

        def recorded(trace, name, layer, token):
            weights = np.zeros(EXPERTS)
            used = trace[0][layer, token] < 255
            weights[trace[0][layer, token][used]] = trace[1][layer, token][used]
            return softmax(edited(name, layer, token, trace[2][layer, token])[0]), weights

        for recipe in self.compare("twin", *RECIPES):
            name = recipe["name"]
            other = self.trace(name) if name != "native" else base
            rows = [[differences(recorded(base, "native", l, t), recorded(other, name, l, t)) for t in range(base[2].shape[1])]
                    for l in range(LAYERS)]
            self.assert_layers(recipe, np.mean(rows, axis=1))
            diverging = [l for l in range(LAYERS) if any(d[0] < 1 for d in rows[l])]
            self.assertEqual(recipe["first_diverging_layer"], diverging[0] if diverging else None, name)
            score = self.json_of("score", "score", "demo", "--token-ids", self.ids, "--edits", self.files[name], "--baseline")
            for field in ("kl", "dnll", "top1_flips"):
                self.assertEqual(recipe[field], score["baseline"][field], (name, field))

    def test_an_expert_costs_the_operations_of_its_matrices(self):
        inspected = self.json_of("inspect", "inspect", "demo", "--tensors")
        shapes = {t["name"]: t["shape"] for t in inspected["tensors"]}
        elements = sum(int(np.prod(shape)) for name, shape in shapes.items() if ".layers.2.mlp.experts.0." in name)
        recipe = self.compare("shadow", "fewer")[0]
        self.assertEqual([layer["extra_flops"] for layer in recipe["layers"]],
                         [2 * elements * layer["extra_experts"] for layer in recipe["layers"]])
        self.assertEqual(recipe["layers"][2]["extra_experts"], -2)

    def test_nothing_changes_without_edits(self):
        for mode in ("shadow", "twin"):
            for layer in self.compare(mode, "native")[0]["layers"]:
                self.assertEqual([layer[field] for field in self.FIELDS], [1, 0, 0, 0, 0])

    def test_text_says_the_same(self):
        text = run("compare", "demo", "--recipes", self.files["fewer"], "--text-file", PROMPTS / "python.txt", "--mode", "twin", "--plain")
        lines = [line.split("\t") for line in text.stdout.decode().splitlines()]
        self.assertEqual(lines[0][:3], ["recipe", "layer", "jaccard"])
        self.assertEqual(lines[3][:2], ["fewer", "layer 2"])
        self.assertEqual(lines[3][6], "-2.000")
        self.assertEqual(lines[-1][-1], "layer 2")

    def test_files_of_one_name_are_told_apart(self):
        (self.folder / "other").mkdir()
        twin = self.folder / "other" / "soft.edits.json"
        twin.write_bytes(self.files["soft"].read_bytes())
        document = self.json_of("compare", "compare", "demo", "--recipes", f"{self.files['soft']},{twin},{self.files['fewer']}", "--token-ids", "1,2,3")
        self.assertEqual([r["name"] for r in document["recipes"]], [str(self.files["soft"]), str(twin), "fewer"])

    def test_refusals(self):
        good = self.files["fewer"]
        broken = self.edits({"kind": "mute", "layer": 99, "expert": 0}, name="broken.json")
        self.assert_refused(2, "no text given", "compare", "demo", "--recipes", good)
        self.assert_refused(2, "--recipes is required", "compare", "demo", "--text", "a b")
        self.assert_refused(2, "needs at least 2", "compare", "demo", "--recipes", good, "--token-ids", "1", "--mode", "twin")
        self.assert_refused(2, "not in", "compare", "demo", "--recipes", good, "--text", "a", "--mode", "both")
        self.assert_refused(3, "nowhere.json", "compare", "demo", "--recipes", f"{good},/nowhere.json", "--text", "a")
        self.assert_refused(4, "broken.json: edits[0]", "compare", "demo", "--recipes", f"{good},{broken}", "--text", "a")


if __name__ == "__main__":
    unittest.main()
