"""A clean Debian root to install packages into, and a way to run programs in it. Needs root, a network and mount namespaces;
says what is missing otherwise."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile


class Unavailable(Exception):
    """This machine cannot make a clean root; the text says why."""


def distribution_sources():
    """The files of apt's sources that name the distribution itself."""
    places = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
    suite = re.compile(r"(?<![\w-])bookworm(?![\w-]).*\bmain\b", re.S)
    return [p for p in places if p.suffix in (".list", ".sources") and p.is_file() and suite.search(p.read_text())]


class CleanRoot:
    """A folder with the essential packages and apt, removed at the end of the `with`."""

    def __init__(self):
        if os.geteuid() != 0:
            raise Unavailable("a clean root is made by root only")
        for tool in ("mmdebstrap", "unshare", "chroot"):
            if not shutil.which(tool):
                raise Unavailable(f"{tool} is not installed")
        if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
            raise Unavailable("this machine forbids mount namespaces")
        if not distribution_sources():
            raise Unavailable("apt has no sources of Debian 12 here")

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-root-"))
        made = subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "--format=directory",
                               # No man pages and the like: they are not what is tested, and cost seconds.
                               "--dpkgopt=path-exclude=/usr/share/locale/*", "--aptopt=Acquire::Languages \"none\"",
                               "--skip=cleanup/apt", "bookworm", str(self.folder), *map(str, distribution_sources())],
                              capture_output=True, text=True)
        if made.returncode != 0:
            self.__exit__()
            raise Unavailable("mmdebstrap failed (is there a network?): " + made.stderr[-400:])
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command, check=True, **environment):
        """Runs in the root, with a /proc of its own: the program finds itself through it."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive",
               **{name: os.environ[name] for name in ("http_proxy", "https_proxy") if name in os.environ}, **environment}
        enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, self.folder, *map(str, command)],
                              env=env, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def files(self):
        """Every path but what apt and dpkg keep for themselves and what a run wrote to /tmp and /root."""
        out = set()
        for folder, folders, names in os.walk(self.folder):
            inside = os.path.relpath(folder, self.folder)
            folders[:] = [f for f in folders if os.path.normpath(os.path.join(inside, f)) not in
                          ("proc", "sys", "dev", "tmp", "root", "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log")]
            out.update(os.path.normpath(os.path.join(inside, name)) for name in [*names, *folders])
        return out
