"""place and simulate, against specs/analyses.md and against plain computations on the rows of the same trace."""
import collections
import csv
import io
import itertools
import json
import unittest

import h5py
import numpy

from support import SOURCE, CliTest, run

CHECKS = json.loads((SOURCE / "tests/data/analyses/checks.json").read_text())["checks"]


def checks_of(analysis):
    return [check for check in CHECKS if check["analysis"] == analysis and isinstance(check["input"], dict)]


class Place(CliTest):
    def test_eplb_gives_the_published_plans(self):
        cases = checks_of("eplb")
        self.assertGreater(len(cases), 6)
        for check in cases:
            loads = self.write("loads.json", json.dumps({"schema": 1, "loads": check["input"]["loads"]}))
            p, want = check["params"], check["expected"]
            got = self.json_of("place", "place", "--method", "eplb", "--loads", loads, "--replicas", p["replicas"], "--groups", p["groups"],
                               "--nodes", p["nodes"], "--gpus", p["gpus"])
            for field in ("policy", "physical_to_logical", "logical_count"):
                self.assertEqual(got[field], want[field], check["id"])
            for layer, balance in zip(got["layers"], want["balancedness"]):
                self.assertAlmostEqual(layer["balancedness"], balance, delta=1e-6)

    def test_affinity_gives_proven_cuts(self):
        cases = checks_of("placement-affinity")
        self.assertGreater(len(cases), 4)
        for check in cases:
            given = check["input"]
            transitions = self.write("t.json", json.dumps({"schema": 1, **given}))
            gpus = check["params"]["gpus"]
            got = self.json_of("place", "place", "--method", "affinity", "--transitions", transitions, "--gpus", gpus)
            self.assertEqual((got["cut"], got["contiguous_cut"], got["optimal"]), (check["expected"]["optimum_cut"], check["expected"]["contiguous_cut"], True))
            self.assertEqual(got["cut"], self.cut(given, got["placement"]))
            for layer in got["placement"]:
                self.assertEqual(set(collections.Counter(layer).values()), {given["experts"] // gpus})

    def cut(self, given, placement):
        return sum(count for l, matrix in enumerate(given["transitions"]) for i, row in enumerate(matrix) for j, count in enumerate(row)
                   if placement[l][i] != placement[l + 1][j])

    def test_annealing_says_that_nothing_is_proven_and_repeats(self):
        random = numpy.random.default_rng(3)
        given = {"layers": 6, "experts": 24, "transitions": random.integers(0, 50, (5, 24, 24)).tolist()}
        transitions = self.write("t.json", json.dumps(given))
        arguments = ("place", "--method", "affinity", "--transitions", transitions, "--gpus", 4, "--sweeps", 200, "--seed", 5)
        got = self.json_of("place", *arguments)
        self.assertFalse(got["optimal"])
        self.assertEqual(got["proof"], "none")
        self.assertEqual(got["cut"], self.cut(given, got["placement"]))
        self.assertLess(got["cut"], got["random_cut"])
        self.assertAlmostEqual(got["random_cut"], got["total"] * 0.75)
        self.assertEqual(self.json_of("place", *arguments), got)
        nodes = self.json_of("place", *arguments, "--nodes", 2)
        by_node = [[gpu // 2 for gpu in layer] for layer in nodes["placement"]]
        self.assertEqual(nodes["nodes"]["cut"], self.cut(given, by_node))

    def test_load_and_contiguous(self):
        loads = self.write("loads.json", json.dumps({"loads": [[1, 9, 4, 6], [5, 5, 5, 5]]}))
        even = self.json_of("place", "place", "--method", "load", "--loads", loads, "--gpus", 2)
        self.assertEqual(even["placement"], [[0, 0, 1, 1], [0, 1, 0, 1]])
        self.assertEqual(even["layers"][0]["gpu_load"], [10, 10])
        plain = self.json_of("place", "place", "--method", "contiguous", "--loads", loads, "--gpus", 2)
        self.assertEqual(plain["placement"], [[0, 0, 1, 1], [0, 0, 1, 1]])

    def test_refusals(self):
        loads = self.write("loads.json", json.dumps({"loads": [[1, 2, 3, 4]]}))
        ragged = self.write("ragged.json", json.dumps({"loads": [[1, 2, 3, 4], [1, 2, 3]]}))
        negative = self.write("negative.json", json.dumps({"loads": [[1, -2, 3, 4]]}))
        transitions = self.write("t.json", json.dumps({"layers": 2, "experts": 2, "transitions": [[[1, 2], [3, 4]]]}))
        few = self.write("few.json", json.dumps({"layers": 3, "experts": 2, "transitions": [[[1, 2], [3, 4]]]}))
        real = self.write("real.json", json.dumps({"layers": 2, "experts": 2, "transitions": [[[1, 2.5], [3, 4]]]}))
        eplb = ("place", "--method", "eplb")
        for code, message, arguments in [
                (2, "3 replicas cannot hold 4 experts", (*eplb, "--loads", loads, "--replicas", 3, "--gpus", 3)),
                (2, "do not divide evenly over 4 GPUs", (*eplb, "--loads", loads, "--replicas", 6, "--gpus", 4)),
                (2, "do not divide evenly over 2 nodes", (*eplb, "--loads", loads, "--replicas", 6, "--gpus", 3, "--nodes", 2)),
                (2, "into 3 groups", (*eplb, "--loads", loads, "--replicas", 4, "--gpus", 2, "--groups", 3)),
                (2, "needs loads", (*eplb, "--gpus", 2)),
                (3, "/nowhere.json", (*eplb, "--loads", "/nowhere.json", "--gpus", 2)),
                (4, "/loads/1 has 3 loads", (*eplb, "--loads", ragged, "--gpus", 2)),
                (4, "/loads/0/1", (*eplb, "--loads", negative, "--gpus", 2)),
                (2, "needs transitions", ("place", "--method", "affinity", "--gpus", 2)),
                (2, "do not divide evenly over 3 GPUs", ("place", "--method", "affinity", "--transitions", transitions, "--gpus", 3)),
                (4, "has 1 matrices, 3 layers need 2", ("place", "--method", "affinity", "--transitions", few, "--gpus", 2)),
                (4, "/transitions/0/0/1", ("place", "--method", "affinity", "--transitions", real, "--gpus", 2)),
                (2, "--load-weight needs loads", ("place", "--method", "affinity", "--transitions", transitions, "--gpus", 2, "--nodes", 1, "--load-weight", 1)),
                (2, "--method", ("place", "--method", "milp", "--gpus", 2))]:
            with self.subTest(arguments=arguments):
                self.assert_refused(code, message, *arguments)


class Trace:
    """A recorded trace of the demo, as plain lists."""
    path = None

    def __init__(self, path):
        with h5py.File(path) as file:
            self.ids = file["/routing/expert_id"][:].astype(int)  # [L, N, k]
            self.offset = file["/sequences/offset"][:].tolist()
            self.experts = int(file.attrs["E"])
        self.layers, self.tokens, self.k = self.ids.shape
        self.sequence = [s for s, (a, b) in enumerate(zip(self.offset, self.offset[1:])) for _ in range(b - a)]


class Counts(CliTest):
    """Dumps of counts hold loads, and placements by load need no more."""
    def test_counts_are_placed_by_load(self):
        path = self.folder / "counts.moetrace.h5"
        done = run("trace", "import", SOURCE / "tests/data/foreign/sglang/made_by_us_stat.pt", "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(path) as file:
            counts = file["/agg/count"][:]
        for method in ("load", "eplb", "contiguous"):
            got = self.json_of("place", "place", "--method", method, "--trace", path, "--gpus", 2)
            self.assertEqual([sum(layer["gpu_load"]) for layer in got["layers"]], counts.sum(axis=1).tolist())
            self.assertNotIn("cut", got)
        with h5py.File(path) as file:
            passes = file["/agg/pass_count"][:].astype(float)  # [F, L, E]
        aged = self.json_of("place", "place", "--method", "eplb", "--trace", path, "--gpus", 2, "--window", 1)
        self.assertEqual(aged["window"], {"length": 1, "unit": "passes", "windows": len(passes)})
        halves = passes[1:].reshape(len(passes) - 1, passes.shape[1], 2, -1).sum(3)
        naive = [one for one in aged["staleness"] if one["policy"] == "contiguous"][0]
        numpy.testing.assert_allclose([row["balancedness"] for row in naive["windows"]], (halves.mean(2) / halves.max(2)).mean(1), atol=1e-9)
        even = self.json_of("place", "place", "--method", "load", "--trace", path, "--gpus", 2)
        for l, layer in enumerate(even["placement"]):
            self.assertEqual(even["layers"][l]["gpu_load"], [int(counts[l][numpy.array(layer) == g].sum()) for g in range(2)])
        for arguments in (("place", "--method", "affinity", "--trace", path, "--gpus", 2), ("simulate", path, "cache"), ("simulate", path, "capacity")):
            self.assert_refused(2, "holds counts only", *arguments)


class OnTrace(CliTest):
    @classmethod
    def setUpClass(cls):
        import pathlib
        import tempfile
        cls.shared = tempfile.TemporaryDirectory(prefix="switchyard-cli-")
        cls.addClassCleanup(cls.shared.cleanup)
        cls.path = pathlib.Path(cls.shared.name) / "demo.moetrace.h5"
        texts = pathlib.Path(cls.shared.name) / "texts.jsonl"
        texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in ["The router chose an expert.", "One two three four five six seven eight.", "def f(x): return x + 1"]))
        done = run("score", "demo", "--texts", texts, "--trace", cls.path)
        assert done.returncode == 0, done.stderr
        cls.rows = Trace(cls.path)

    def test_placement_counts_the_hops_of_the_trace(self):
        rows, gpus = self.rows, 2
        got = self.json_of("place", "place", "--method", "affinity", "--trace", self.path, "--gpus", gpus, "--sweeps", 300)
        place = got["placement"]
        crossing = sum(place[l][rows.ids[l, t, 0]] != place[l + 1][rows.ids[l + 1, t, 0]] for l in range(rows.layers - 1) for t in range(rows.tokens))
        self.assertEqual(got["cut"], crossing)
        self.assertEqual(got["total"], (rows.layers - 1) * rows.tokens)
        away = sum(place[l][rows.ids[l, t, 0]] != rows.sequence[t] % gpus for l in range(rows.layers) for t in range(rows.tokens))
        self.assertEqual(got["moves"]["vanilla"], 2 * away)
        home = sum(place[0][rows.ids[0, t, 0]] != rows.sequence[t] % gpus for t in range(rows.tokens))
        self.assertEqual(got["moves"]["from_home"], home)
        coherent = self.json_of("place", "place", "--method", "affinity", "--trace", self.path, "--gpus", gpus, "--sweeps", 300, "--coherent")
        self.assertEqual(coherent["objective"], coherent["cut"] + coherent["moves"]["from_home"])

    def test_eplb_takes_loads_from_the_trace(self):
        rows = self.rows
        got = self.json_of("place", "place", "--method", "eplb", "--trace", self.path, "--gpus", 2, "--replicas", rows.experts + 2)
        for l, layer in enumerate(got["layers"]):
            load = numpy.bincount(rows.ids[l].ravel(), minlength=rows.experts)
            self.assertAlmostEqual(sum(layer["gpu_load"]), float(load.sum()), places=6)
            slots = got["physical_to_logical"][l]
            share = [load[e] / got["logical_count"][l][e] for e in slots]
            self.assertAlmostEqual(layer["gpu_load"][0], sum(share[:len(share) // 2]), places=6)

    def test_plans_of_a_window_are_scored_on_the_next(self):
        rows, gpus = self.rows, 2
        window = rows.tokens // 3
        count = rows.tokens // window
        got = self.json_of("place", "place", "--method", "eplb", "--trace", self.path, "--gpus", gpus, "--window", window)
        self.assertEqual(got["window"], {"length": window, "unit": "tokens", "windows": count})
        loads = [[numpy.bincount(rows.ids[l, w * window:(w + 1) * window].ravel(), minlength=rows.experts) for l in range(rows.layers)] for w in range(count)]

        def plan(of):  # by the command itself, whose plans the published ones check
            file = self.write("window.json", json.dumps({"schema": 1, "loads": [row.tolist() for row in of]}))
            return self.json_of("place", "place", "--method", "eplb", "--loads", file, "--gpus", gpus)["physical_to_logical"]

        def balance(placed, load):
            on = numpy.asarray(load, float)[placed].reshape(gpus, -1).sum(1)  # no copies: a slot each
            return on.mean() / on.max()

        plans = [plan(of) for of in loads]
        whole = plan([sum(loads[w][l] for w in range(count)) for l in range(rows.layers)])
        naive = [list(range(rows.experts))] * rows.layers
        want = {"previous": lambda w: plans[w - 1], "own": lambda w: plans[w], "whole": lambda w: whole, "contiguous": lambda w: naive}
        self.assertEqual([one["policy"] for one in got["staleness"]], list(want))
        for one in got["staleness"]:
            values = numpy.array([[balance(want[one["policy"]](w)[l], loads[w][l]) for l in range(rows.layers)] for w in range(1, count)])
            self.assertAlmostEqual(one["balancedness"], values.mean(), places=9)
            numpy.testing.assert_allclose([row["balancedness"] for row in one["layers"]], values.mean(0), atol=1e-9)
            numpy.testing.assert_allclose([row["balancedness"] for row in one["windows"]], values.mean(1), atol=1e-9)
            self.assertEqual([row["position"] for row in one["windows"]], list(range(1, count)))
        of = ("place", "--method", "eplb", "--gpus", gpus, "--window")
        self.assert_refused(2, "two windows", *of, rows.tokens, "--trace", self.path)
        self.assert_refused(2, "--window", *of, 0, "--trace", self.path)
        self.assert_refused(2, "--window needs a trace", *of, 5, "--loads", self.folder / "window.json")

    def test_loads_weigh_in_beside_the_hops_of_the_trace(self):
        rows, gpus, weight = self.rows, 2, 3
        got = self.json_of("place", "place", "--method", "affinity", "--trace", self.path, "--gpus", gpus, "--sweeps", 300, "--load-weight", weight)
        fullest = sum(max(sum(got["placement"][l][e] == g for e in rows.ids[l].ravel()) for g in range(gpus)) for l in range(rows.layers))
        self.assertAlmostEqual(got["objective"], got["cut"] + weight * fullest)
        self.assertEqual([max(layer["gpu_load"]) for layer in got["layers"]],
                         [max(sum(got["placement"][l][e] == g for e in rows.ids[l].ravel()) for g in range(gpus)) for l in range(rows.layers)])

    def test_the_tables_hold_a_row_for_each_place(self):
        arguments = ("place", "--method", "load", "--trace", self.path, "--gpus", 4)
        placed = self.json_of("place", *arguments)["placement"]
        done = run(*arguments, "--csv", "--table", "experts")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = list(csv.DictReader(io.StringIO(done.stdout.decode())))
        self.assertEqual([int(line["gpu"]) for line in lines], [gpu for layer in placed for gpu in layer])
        self.assertEqual([int(line["contiguous_gpu"]) for line in lines[:self.rows.experts]], [e * 4 // self.rows.experts for e in range(self.rows.experts)])

    def lru_hits(self, layer, slots):
        rows, hits = self.rows, 0
        for a, b in zip(rows.offset, rows.offset[1:]):
            order = []  # least recently used first
            for t in range(a, b):
                chosen = rows.ids[layer, t].tolist()
                hits += sum(e in order for e in chosen)
                for e in chosen:
                    if e in order:
                        order.remove(e)
                    elif len(order) == slots:
                        order.remove(next(x for x in order if x not in chosen))
                    order.append(e)
        return hits

    def test_cache(self):
        rows = self.rows
        slots = [rows.k, rows.k + 1, rows.experts]
        got = self.json_of("simulate", "simulate", self.path, "cache", "--policies", "lru,belady,static,sch-4,lfu,plec", "--slots", ",".join(map(str, slots)),
                           "--expert-mb", 2, "--bandwidth-gb", 1)
        by_name = {policy["policy"]: policy["sizes"] for policy in got["policies"]}
        self.assertEqual(list(by_name), ["lru", "belady", "static", "sch-4", "lfu", "plec"])
        for size, expected in zip(by_name["lru"], slots):
            self.assertEqual(size["slots"], expected)
            self.assertEqual([layer["hits"] for layer in size["layers"]], [self.lru_hits(l, expected) for l in range(rows.layers)])
            self.assertEqual(size["demands"], rows.layers * rows.tokens * rows.k)
            self.assertAlmostEqual(size["stall_s"], (size["demands"] - size["hits"]) * 2e6 / 1e9)
        for name in ("lru", "sch-4", "lfu"):
            for size, best in zip(by_name[name], by_name["belady"]):
                self.assertLessEqual(size["hits"], best["hits"])
        for size in by_name["static"]:
            top = sum(sorted(numpy.bincount(rows.ids[0].ravel()), reverse=True)[:size["slots"]])
            self.assertEqual(size["layers"][0]["hits"], top)

    def test_cache_that_all_layers_share(self):
        got = self.json_of("simulate", "simulate", self.path, "cache", "--scope", "model", "--start", "warm", "--rule", "moe-lrc", "--policies", "lru", "--slots", "all")
        sizes = got["policies"][0]["sizes"]
        self.assertEqual(len(sizes), self.rows.layers * self.rows.experts)
        self.assertEqual([a["hits"] <= b["hits"] for a, b in itertools.pairwise(sizes)], [True] * (len(sizes) - 1))
        self.assertEqual(sizes[-1]["hit_rate"], 1.0)  # warm, and everything fits

    def test_capacity(self):
        rows = self.rows
        got = self.json_of("simulate", "simulate", self.path, "capacity", "--factors", "0.5,1", "--fill", "token-major")
        for factor in got["factors"]:
            drops = 0
            for a, b in zip(rows.offset, rows.offset[1:]):
                capacity = int(rows.k * factor["capacity_factor"] * (b - a) / rows.experts)
                for l in range(rows.layers):
                    drops += numpy.maximum(numpy.bincount(rows.ids[l, a:b].ravel(), minlength=rows.experts) - capacity, 0).sum()
            self.assertEqual(factor["drops"], drops)
            self.assertEqual(sum(factor["drops_by_position"]), drops)
            self.assertEqual(sum(factor["demands_by_position"]), rows.ids.size)

    def test_traffic_of_a_placement(self):
        rows, gpus = self.rows, 2
        placed = self.json_of("place", "place", "--method", "load", "--trace", self.path, "--gpus", gpus)
        file = self.write("placement.json", json.dumps(placed))
        got = self.json_of("simulate", "simulate", self.path, "traffic", "--gpus", gpus, "--placement", file, "--leaves", 2, "--spines", 2, "--draws", 50)
        for l, layer in enumerate(got["layers"]):
            pairs, tokens = numpy.zeros((gpus, gpus), int), numpy.zeros((gpus, gpus), int)
            for t in range(rows.tokens):
                home, to = rows.sequence[t] % gpus, [placed["placement"][l][e] for e in rows.ids[l, t]]
                for g in to:
                    pairs[home, g] += 1
                for g in set(to):
                    tokens[home, g] += 1
            self.assertEqual(layer["M"], pairs.tolist())
            self.assertEqual(layer["Md"], tokens.tolist())
        across = sum(numpy.array(layer["Md"])[[0, 1], [1, 0]] for layer in got["layers"])
        self.assertAlmostEqual(got["fabric"]["spray_max"], max(across) / 2)
        self.assertAlmostEqual(got["fabric"]["split_max"], max(across) / 2)
        self.assertGreaterEqual(got["fabric"]["ecmp_mean"], got["fabric"]["split_max"])
        copies = self.json_of("place", "place", "--method", "eplb", "--trace", self.path, "--gpus", gpus, "--replicas", rows.experts + gpus)
        spread = self.json_of("simulate", "simulate", self.path, "traffic", "--gpus", gpus, "--placement", self.write("copies.json", json.dumps(copies)))
        self.assertEqual(sum(layer["pairs"] for layer in spread["layers"]), rows.ids.size)

    def test_schedule(self):
        rows, batch = self.rows, 4
        got = self.json_of("simulate", "simulate", self.path, "schedule", "--batch", batch)
        for l, layer in enumerate(got["layers"]):
            unique = sum(len(set(rows.ids[l, t:min(t + batch, b)].ravel().tolist())) for a, b in zip(rows.offset, rows.offset[1:]) for t in range(a, b, batch))
            self.assertEqual(layer["sum_unique"], unique)
        cost = sum(len(set(rows.ids[l, t:t + batch].ravel().tolist())) for t in range(0, rows.tokens // (2 * batch) * 2 * batch, batch) for l in range(rows.layers))
        self.assertEqual(got["schedule"]["in_order_cost"], cost)
        self.assertLessEqual(got["schedule"]["scheduled_cost"], cost)
        self.assertEqual(got["schedule"]["split_exactly"], got["schedule"]["pairs_of_batches"])

    def test_csv_holds_the_same_numbers(self):
        arguments = ("simulate", self.path, "cache", "--policies", "lru", "--slots", self.rows.experts)
        document = self.json_of("simulate", *arguments)
        done = run(*arguments, "--csv", "--table", "policies.sizes")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = list(csv.DictReader(io.StringIO(done.stdout.decode())))
        self.assertEqual(len(lines), 1)
        self.assertEqual(int(lines[0]["hits"]), document["policies"][0]["sizes"][0]["hits"])

    def test_refusals(self):
        gpus = self.rows.experts + 1
        other = self.write("other.json", json.dumps({"gpus": 2, "placement": [[0, 1]]}))
        for code, message, arguments in [
                (2, "\"mru\" is no cache policy", (self.path, "cache", "--policies", "lru,mru")),
                (2, "slots are too few", (self.path, "cache", "--slots", "1")),
                (2, "--slots", (self.path, "cache", "--slots", "x")),
                (2, "--factors", (self.path, "capacity", "--factors", "0")),
                (2, "is no fill order", (self.path, "capacity", "--fill", "random")),
                (2, f"do not divide evenly over {gpus} GPUs", (self.path, "traffic", "--gpus", gpus)),
                (2, "both --leaves and --spines", (self.path, "traffic", "--gpus", 2, "--leaves", 2)),
                (2, "over 3 nodes", (self.path, "traffic", "--gpus", 2, "--nodes", 3)),
                (2, "places 1 layers", (self.path, "traffic", "--gpus", 2, "--placement", other)),
                (2, "--gpus is required", (self.path, "traffic")),
                (2, "\"cach\" is no command of simulate. Did you mean cache?", (self.path, "cach")),
                (3, "/nowhere.moetrace.h5", ("/nowhere.moetrace.h5", "cache"))]:
            with self.subTest(arguments=arguments):
                self.assert_refused(code, message, "simulate", *arguments)


if __name__ == "__main__":
    unittest.main()
