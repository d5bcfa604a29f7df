"""h5netcdf and xarray open what we write, recorded, packed and imported, without a phony dimension, and read the values
that h5py reads."""
import json

import h5py
import numpy as np

from support import SOURCE, CliTest, run

try:
    import h5netcdf
    import xarray
except ImportError as missing:
    import sys
    print(f"skipped: {missing}")
    sys.exit(77)

FOREIGN = SOURCE / "tests/data/foreign"


def plain(values):
    """Strings as bytes: the readers differ in whether they decode them."""
    values = np.asarray(values)
    return [v.encode() if isinstance(v, str) else v for v in values.flat] if values.dtype.kind in "OUS" else values


class Readers(CliTest):
    def made(self, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)

    def check(self, path):
        """Every dataset of every group, by both readers."""
        compared = 0
        with h5py.File(path) as ours, h5netcdf.File(path, "r") as netcdf:
            self.assertEqual([name for name in netcdf.dimensions if "phony" in name], [])
            for group, content in ours.items():
                if not isinstance(content, h5py.Group):
                    continue
                for name, values in netcdf[group].variables.items():
                    np.testing.assert_array_equal(plain(values[...]), plain(content[name][...]))
                with xarray.open_dataset(path, engine="h5netcdf", group=group, mask_and_scale=False, decode_cf=False) as dataset:
                    for name, values in dataset.variables.items():
                        self.assertFalse([dim for dim in values.dims if "phony" in dim], name)
                        np.testing.assert_array_equal(plain(values.values), plain(content[name][...]))
                        compared += 1
        return compared

    def test_a_recorded_run_and_the_same_packed(self):
        path, packed = self.folder / "run.moetrace.h5", self.folder / "packed.moetrace.h5"
        edits = self.edits({"kind": "scheme", "name": "chain_of_experts", "layer": 3, "at_token": 5})
        self.made("run", "demo", "--prompt", "def f(x):", "--max-new-tokens", 24, "--capture", "logits", "--edits", edits, "--trace", path)
        self.made("trace", "pack", path, "-o", packed, "--half")
        for file in (path, packed):
            self.assertGreater(self.check(file), 20)
        with xarray.open_dataset(path, engine="h5netcdf", group="routing") as routing:
            self.assertEqual(routing["expert_id"].dims, ("layer", "token", "slot"))
            self.assertEqual(routing["router_logits"].dims, ("layer", "token", "expert"))
            self.assertGreaterEqual(routing.sizes["layer"], 8)

    def test_texts_with_domains(self):
        path = self.folder / "texts.moetrace.h5"
        texts = self.write("texts.jsonl", "\n".join(json.dumps({"text": text, "domain": domain}) for text, domain in (("x = 1\n", "code"), ("Once.", "prose"))))
        self.made("score", "demo", "--texts", texts, "--trace", path)
        self.assertGreater(self.check(path), 15)
        with xarray.open_dataset(path, engine="h5netcdf", group="sequences") as sequences:
            self.assertEqual(sequences["domain"].values.tolist(), [0, 1])

    def test_imports(self):
        for name, source in (("rows", "moe-vis/made_by_us_expert_trace.jsonl"), ("counts", "reap/made_by_us_observer.pt")):
            path = self.folder / f"{name}.moetrace.h5"
            self.made("trace", "import", FOREIGN / source, "-o", path)
            self.assertGreaterEqual(self.check(path), 5)


if __name__ == "__main__":
    import unittest
    unittest.main()
