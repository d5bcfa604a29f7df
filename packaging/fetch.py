"""Fetches the files of downloads.lock and unpacks what the build needs of them.

usage: fetch.py LOCK CACHE DEPS [--offline] [--only NAME,…]

--only unpacks these folders and no others: imgui-1.93.0,jinja-0.3.36.

Runs under a virtual environment whose pip is the one Debian 12 bundles (23.0.1): pip's own index,
proxy and certificate settings are used, one file is taken by name and SHA-256, and no build step of
a source archive runs. Everything is idempotent: a finished unpack leaves DEPS/<name>/.complete.
"""
import hashlib
import pathlib
import shutil
import sys
import tarfile
import zipfile


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def download(requirement, filename, digest, cache):
    """Fetches one file into `cache` under a temporary name and renames it once its hash is right."""
    from pip._internal.commands import create_command
    from pip._internal.network.download import Downloader

    command = create_command("download")
    options, _ = command.parse_args(["-q", "--no-deps", requirement])
    with command.main_context():
        options.cache_dir = None
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)
        project = requirement.split("==")[0]
        links = [c.link for c in finder.find_all_candidates(project) if c.link.filename == filename]
        if not links:
            sys.exit(f"{filename}: not found on the package index, or the index could not be reached; "
                     f"`pip download --no-deps {requirement}` shows which")
        part = cache / "part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        path, _ = Downloader(session, "off")(links[0], str(part))
    found = sha256(path)
    if found != digest:
        sys.exit(f"{filename}: SHA-256 is {found}, needed {digest}")
    pathlib.Path(path).rename(cache / filename)


def fetched(requirement, filename, digest, cache, offline):
    path = cache / filename
    if path.exists() and sha256(path) != digest:
        path.unlink()
    if not path.exists():
        if offline:
            sys.exit(f"offline: {filename} is missing from {cache}; run packaging/setup.sh with a network once, "
                     "or copy the file there")
        print(f"fetching {filename}", file=sys.stderr)
        download(requirement, filename, digest, cache)
    return path


def unpack_torch(files, target):
    """The CPU part of LibTorch, and the two CUDA runtime libraries libtorch_cpu.so asks for, side by side."""
    keep = ("torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/include/")
    with zipfile.ZipFile(files["torch"]) as wheel:
        for name in wheel.namelist():
            if name.startswith(keep):
                wheel.extract(name, target)
    for package, soname in (("nvidia-cuda-runtime", "libcudart.so.13"), ("nvidia-cuda-cupti", "libcupti.so.13")):
        with zipfile.ZipFile(files[package]) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith("/" + soname))
            (target / "torch/lib" / soname).write_bytes(wheel.read(name))


def unpack_licences(files, target):
    """The licences of what the packages bring along, for those who install them."""
    for package, wheel in files.items():
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if ".dist-info/licenses/" in name and not name.endswith("/"):
                    out = target / package / name.rsplit("/", 1)[1]
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(archive.read(name))


def unpack_imgui(files, target):
    wanted = ("external/imgui/imgui/", "external/implot/implot/")
    with tarfile.open(files["imgui-bundle"]) as archive:
        for member in archive:
            path = member.name.split("/", 1)[-1]
            if member.isfile() and path.startswith(wanted):
                out = target / path.split("/", 2)[2]
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(archive.extractfile(member).read())


def unpack_jinja(files, target):
    """llama.cpp's template engine, which is a small part of the archive, and its licence."""
    root = "vendor/llama.cpp/"
    wanted = (root + "common/jinja/", root + "common/json.", root + "common/unicode.", root + "LICENSE")
    with tarfile.open(files["llama-cpp-python"]) as archive:
        for member in archive:
            path = member.name.split("/", 1)[-1]
            if member.isfile() and path.startswith(wanted):
                out = target / path.removeprefix(root)
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(archive.extractfile(member).read())


def unpack_arrow(files, target):
    """Arrow and its Parquet library with their headers, and the licences."""
    with zipfile.ZipFile(files["pyarrow"]) as wheel:
        for name in wheel.namelist():
            if name.endswith("/"):
                continue
            part = name.removeprefix("pyarrow/")
            if part.startswith(("include/arrow/", "include/parquet/")):
                out = target / part
            elif part in ("libarrow.so.2600", "libparquet.so.2600"):
                out = target / "lib" / part
            elif part in ("LICENSE.txt", "NOTICE.txt") or ".dist-info/licenses/" in name:
                out = target / "licences" / name.rsplit("/", 1)[1]
            else:
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(wheel.read(name))


def unpack_cuda(files, target):
    """A CUDA compiler: what nvcc calls, its headers and the static runtime, in the folders where it looks for them."""
    for path in files.values():
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.startswith("nvidia/cu13/") and not name.endswith("/"):
                    out = target / name.removeprefix("nvidia/cu13/")
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(wheel.read(name))
                    if "bin" in out.parts:
                        out.chmod(0o755)


UNPACKED = {  # folder under DEPS: the files it comes from, and how
    "libtorch-2.11.0": (("torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"), unpack_torch),
    "libtorch-2.11.0-licences": (("torch", "nvidia-cuda-runtime", "nvidia-cuda-cupti"), unpack_licences),
    "imgui-1.93.0": (("imgui-bundle",), unpack_imgui),
    "jinja-0.3.36": (("llama-cpp-python",), unpack_jinja),
    "arrow-26.0.1": (("pyarrow",), unpack_arrow),
}
# Where the machine has no CUDA toolkit. The program builds without, and says so; nothing else may fail for it.
OPTIONAL = {
    "cuda-13.0": (("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime"), unpack_cuda),
}


def provide(folder, projects, unpack, by_project, cache, deps, offline):
    target = deps / folder
    stamp = "\n".join(by_project[p][2] for p in projects)
    complete = target / ".complete"
    if complete.exists() and complete.read_text() == stamp:
        return
    files = {p: fetched(*by_project[p], cache, offline) for p in projects}
    print(f"unpacking {folder}", file=sys.stderr)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    unpack(files, target)
    complete.write_text(stamp)


def main():
    lock, cache, deps = (pathlib.Path(p) for p in sys.argv[1:4])
    offline = "--offline" in sys.argv[4:]
    only = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv else list(UNPACKED)
    if unknown := set(only) - set(UNPACKED):
        sys.exit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(UNPACKED)}")
    rows = [line.split() for line in lock.read_text().splitlines() if line.strip() and not line.startswith("#")]
    by_project = {row[0].split("==")[0]: row for row in rows}
    cache.mkdir(parents=True, exist_ok=True)
    for folder in only:
        provide(folder, *UNPACKED[folder], by_project, cache, deps, offline)
    if set(only) != set(UNPACKED) or shutil.which("nvcc"):
        return
    for folder, (projects, unpack) in OPTIONAL.items():
        try:
            provide(folder, projects, unpack, by_project, cache, deps, offline)
        except (SystemExit, OSError) as error:
            print(f"{error}\nwithout it the program is built with no cuda backend", file=sys.stderr)


if __name__ == "__main__":
    main()
