"""Reads a trace with h5py, without a line of our code: the values, the axes and the sums are what the schema
says. The recorder's values are functions of token, row and slot (tests/trace/synthetic.h), repeated here.

usage: check_h5py.py RECORD_SYNTHETIC     (exit 77: this Python has no h5py)
"""
import json
import pathlib
import signal
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

L, E, K, TOKENS = 3, 16, 4, 6000


def check_axes(file):
    """Every axis of every dataset has one dimension scale of its length, no scale twice in a dataset."""
    count = 0

    def visit(name, item):
        nonlocal count
        if not isinstance(item, h5py.Dataset) or item.shape == () or item.attrs.get("CLASS") == b"DIMENSION_SCALE":
            return
        scales = []
        for axis, dim in enumerate(item.dims):
            assert len(dim) == 1, f"/{name} axis {axis} has {len(dim)} scales"
            assert dim[0].shape == (item.shape[axis],), f"/{name} axis {axis}: {dim[0].name} {dim[0].shape} for {item.shape}"
            assert dim[0].parent == file["/"], f"{dim[0].name} is not in the root group"
            scales.append(dim[0].name)
        assert len(set(scales)) == len(scales), f"/{name} names a scale twice: {scales}"
        count += 1

    file.visititems(visit)
    return count


def k_of(token):
    if 5000 <= token < 5200:
        return K + 2
    return K - 1 if token % 97 == 5 else K


def check_values(file, n):
    t = np.arange(n)
    assert (file["tokens/token_id"][:n] == t * 5 % 50000).all()
    assert (file["tokens/position"][:n] == t % 1000).all()
    assert (file["tokens/phase"][:n] == (t % 1000 >= 20)).all()
    assert (file["tokens/recipe_epoch"][:n] == t // 300).all()
    slots = file["routing/expert_id"].shape[2]
    used = np.array([k_of(token) for token in range(n)])[:, None] > np.arange(slots)
    for row in range(L):
        ids = (t[:, None] * 7 + row * 3 + np.arange(slots)) % E
        weights = 1 / (1 + np.arange(slots, dtype=np.float32)) + ((t[:, None] + row) % 8).astype(np.float32) / 1024
        logits = ((t[:, None] * 31 + row * 17 + np.arange(E) * 13) % 257).astype(np.float32) / 16 - 8
        assert (file["routing/expert_id"][row, :n] == np.where(used, ids, 255)).all()
        assert (file["routing/weight"][row, :n] == np.where(used, weights.astype(np.float32), 0)).all()
        assert (file["routing/router_logits"][row, :n] == logits).all()
        assert (file["routing/slot_kind"][row, :n] == (used & (np.arange(slots) == 0) & (t[:, None] % 11 == 3))).all()
        assert (file["routing/lse"][row, :n] == (t % 4096) + 100 * row).all()


def check_closed(path):
    with h5py.File(path, "r") as file:
        attrs = file.attrs
        assert attrs["schema"] == "moe-trace" and attrs["schema_version"] == 1 and attrs["complete"] == 1
        assert attrs["n_tokens"] == TOKENS and attrs["n_sequences"] == 6 and attrs["dropped_tokens"] == 0
        assert (attrs["L"], attrs["E"], attrs["k"]) == (L, E, K) and list(attrs["moe_layer_to_model_layer"]) == [1, 3, 5]
        assert attrs["score_fn"] == "softmax" and attrs["id_order"] == "weight_desc"
        # netCDF's own words (libhdf5/nc4hdf.c), with which h5netcdf and xarray take it for a mere size.
        assert file["token"].attrs["NAME"].startswith(b"This is a netCDF dimension but not a netCDF variable.")
        datasets = check_axes(file)
        check_values(file, TOKENS)
        assert list(file["sequences/offset"]) == [0, 1000, 2000, 3000, 4000, 5000, 6000]
        assert list(file["sequences/parent"]) == [-1] * 6
        json.loads(file["meta/run"].asstr()[()])
        offset, text = file["epochs/offset"][:], file["epochs/json"][:].tobytes()
        epochs = [json.loads(text[a:b]) for a, b in zip(offset, offset[1:])]
        assert [epoch["epoch"] for epoch in epochs] == list(range(20))
        assert file["commit/tokens"][-1] == TOKENS and len(file["commit/fields"]) == file["commit/crc32c"].shape[1]

        ids = file["routing/expert_id"][:]
        one_hot = ids[..., None] == np.arange(E)  # empty slots are 255: in no column
        chosen = one_hot.any(2).astype(np.uint64)
        assert (file["agg/count"][:] == chosen.sum(1)).all()
        assert (file["agg/count_top1"][:] == one_hot[:, :, 0].sum(1)).all()
        assert (file["agg/coact"][:] == np.einsum("lni,lnj->lij", chosen, chosen)).all()
        assert (file["agg/trans_topk"][:] == np.einsum("lni,lnj->lij", chosen[:-1], chosen[1:])).all()
        first = one_hot[:, :, 0].astype(np.uint64)
        assert (file["agg/trans_top1"][:] == np.einsum("lni,lnj->lij", first[:-1], first[1:])).all()
        logits = file["routing/router_logits"][:].astype(np.float64)
        scores = np.exp(logits - logits.max(2, keepdims=True))
        assert np.allclose(file["agg/prob_sum"][:], (scores / scores.sum(2, keepdims=True)).sum(1), rtol=1e-12)
        check_sequence_sums(file, ids)
        return datasets


def check_sequence_sums(file, ids):
    """Windows of A8 and token ids of A5, counted anew."""
    offsets = file["sequences/offset"][:]
    used = (ids[..., None] == np.arange(E)).any(2)
    for m in (4, 16, 64, 256):
        histogram = np.zeros((1, L, E, m + 1), np.uint64)
        for a, b in zip(offsets, offsets[1:]):
            for row in range(L):
                sums = np.concatenate([np.zeros((1, E), int), used[row, a:b].cumsum(0)])
                counts = sums[m:] - sums[:-m]
                for e in range(E):
                    histogram[0, row, e] += np.bincount(counts[:, e], minlength=m + 1).astype(np.uint64)
        assert (file[f"agg/srp_hist_m{m}"][:] == histogram).all()
    token_ids = file["tokens/token_id"][:]
    common, occurrences = np.unique(token_ids, return_counts=True)
    common = common[occurrences >= 8]
    vocab = {name: file[f"agg/vocab/{name}"][:] for name in ("id", "indptr", "expert", "count")}
    assert (vocab["id"] == common).all() and len(vocab["indptr"]) == (L * len(common) + 1 if len(common) else 0)
    for row in range(L):
        for x, token in enumerate(common):
            counts = used[row, token_ids == token].sum(0)
            cells = slice(*vocab["indptr"][row * len(common) + x:][:2])
            assert (vocab["expert"][cells] == np.flatnonzero(counts)).all() and (vocab["count"][cells] == counts[counts > 0]).all()
    return len(common)


def check_killed(program, folder):
    """A recording that was killed opens in SWMR read mode, as its committed rows say."""
    recorder = subprocess.Popen([program, folder, "1000000000"], stdout=subprocess.PIPE)
    for _ in range(20):
        recorder.stdout.readline()
    recorder.send_signal(signal.SIGKILL)
    recorder.wait()
    recorder.stdout.close()
    with h5py.File(folder / "0.moetrace.h5.part", "r", libver="latest", swmr=True) as file:
        committed = int(file["commit/tokens"][-1])
        assert committed > 0 and file.attrs["complete"] == 0
        check_values(file, committed)
        return committed


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([program, folder, str(TOKENS), "1"], check=True, stdout=subprocess.DEVNULL)
        datasets = check_closed(folder / "0.moetrace.h5")
        (folder / "0.moetrace.h5").unlink()
        committed = check_killed(program, folder)
    print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}: {datasets} datasets with all axes named; "
          f"{TOKENS} closed and {committed} killed tokens as recorded")


main()
