"""The packages as a user meets them: built by CPack, installed into a clean Debian root, run there (command line, window under
Xvfb), removed. Nothing in them names the source tree, lintian has no errors, and nothing stays behind.

Where the machine cannot make a clean root, that part is skipped and says so.
"""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import yaml

from clean_root import CleanRoot, Unavailable

SOURCE = pathlib.Path(os.environ["SWITCHYARD_SOURCE"])
BUILD = pathlib.Path(os.environ["SWITCHYARD_BUILD"])
DEPS = os.environ["SWITCHYARD_DEPS"]
KEEP = os.environ.get("SWITCHYARD_PACKAGES")  # a folder to leave the packages and the picture in
RUN = ["run", "demo", "--prompt", "The king said", "--max-new-tokens", "16", "--greedy", "--json"]


def control(package, field):
    return subprocess.run(["dpkg-deb", "-f", package, field], check=True, capture_output=True, text=True).stdout.strip()


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(KEEP or tempfile.mkdtemp(prefix="switchyard-debs-"))
        if not KEEP:
            cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.started = time.monotonic()
        done = subprocess.run(["cpack", "-G", "DEB", "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip", "-B", cls.folder, "--config", BUILD / "CPackConfig.cmake"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError("cpack failed\n" + done.stdout[-3000:] + done.stderr[-3000:])
        cls.packages = {control(p, "Package"): p for p in sorted(cls.folder.glob("*.deb"))}
        cls.say(f"built {len(cls.packages)} packages")
        for name, path in cls.packages.items():
            cls.say(f"{name}: {path.stat().st_size / 1e6:.1f} MB, installed {int(control(path, 'Installed-Size')) / 1e3:.1f} MB; {control(path, 'Depends')}")

    @classmethod
    def say(cls, text):
        print(f"[{time.monotonic() - cls.started:5.1f} s] {text}", flush=True)

    def test_hold_what_they_should(self):
        listing = subprocess.run(["dpkg-deb", "-c", self.packages["switchyard"]], check=True, capture_output=True, text=True).stdout
        for path in ("bin/switchyard", "bin/switchyard-gui", "lib/switchyard/libswitchyard_imgui.so", "share/switchyard/models/demo/model.safetensors",
                     "share/switchyard/help/index.md", "share/applications/org.switchyard.Switchyard.desktop",
                     "share/metainfo/org.switchyard.Switchyard.metainfo.xml", "share/mime/packages/org.switchyard.Switchyard.xml",
                     "share/icons/hicolor/scalable/apps/switchyard.svg", "share/icons/hicolor/48x48/apps/switchyard.png",
                     "share/bash-completion/completions/switchyard", "share/zsh/vendor-completions/_switchyard",
                     "share/fish/vendor_completions.d/switchyard.fish", "share/man/man1/switchyard.1.gz", "share/doc/switchyard/copyright",
                     "share/doc/switchyard/licences/ImGui.txt"):
            self.assertIn(" ./usr/" + path + "\n", listing)
        self.assertNotIn("torch", control(self.packages["switchyard"], "Depends"))
        self.assertIn("libqt6widgets6", control(self.packages["switchyard"], "Depends"))
        self.assertIn("libhdf5", control(self.packages["switchyard"], "Depends"))

    def test_the_appimage_takes_the_same_libraries(self):
        recipe = yaml.safe_load((SOURCE / "packaging/appimage/AppImageBuilder.yml").read_text())
        depends = {d.split("(")[0].split("|")[0].strip() for d in control(self.packages["switchyard"], "Depends").split(",")}
        self.assertEqual(set(recipe["AppDir"]["apt"]["include"]), depends)

    def test_name_no_folder_of_the_machine_that_built_them(self):
        for name, package in self.packages.items():
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
                for needle in (str(SOURCE), DEPS):
                    found = subprocess.run(["grep", "-rlF", needle, folder], capture_output=True, text=True).stdout
                    self.assertEqual(found, "", f"{name}: {needle}")
                # A compiler cache with a base folder writes the same names from the build folder on.
                found = subprocess.run(["grep", "-rloaE", r"\.\./(engine|app|views|cmake)/[a-z_/]+\.(cpp|h)", folder], capture_output=True, text=True).stdout
                self.assertEqual(found, "", f"{name}: a source file by its place")

    def test_lintian_finds_no_errors(self):
        if not shutil.which("lintian"):
            self.skipTest("lintian is not installed")
        small = [p for name, p in self.packages.items() if name != "switchyard-torch"]  # minutes for LibTorch
        done = subprocess.run(["lintian", "--fail-on", "error", "--tag-display-limit", "0", *small], capture_output=True, text=True)
        self.say("lintian:\n" + (done.stdout or "nothing"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_installed_on_a_clean_root_they_run_and_leave_nothing(self):
        try:
            root = CleanRoot()
            with root:
                self.say("a clean root is made")
                self.install_run_remove(root)
        except Unavailable as why:
            self.skipTest(str(why))

    def install_run_remove(self, root):
        for package in self.packages.values():
            shutil.copy(package, root.folder / "tmp")
        deb = {name: f"/tmp/{path.name}" for name, path in self.packages.items()}
        # The libraries first, so that what remains at the end can be compared with what was there before.
        depends = [d.split("(")[0].split("|")[0].strip() for d in control(self.packages["switchyard"], "Depends").split(",")]
        compiler = ["g++", "cmake", "make"] if "switchyard-sdk" in deb else []
        root.run("apt-get", "install", "-y", "--no-install-recommends", *depends, *compiler, "libgl1-mesa-dri", "fonts-inter", "fonts-jetbrains-mono")
        before = root.files()
        self.say("its libraries are installed")

        root.run("apt-get", "install", "-y", "--no-install-recommends", deb["switchyard"])
        self.say("switchyard is installed")
        version = root.run("switchyard", "--version").stdout
        self.say(version.strip())
        self.assertIn("reference  backend, absent: ", version)
        self.assertIn("Install the package switchyard-torch", version)
        here = json.loads(subprocess.run([BUILD / "bin/switchyard", *RUN], check=True, capture_output=True).stdout)
        there = json.loads(root.run("switchyard", *RUN, "--trace", "/tmp/run.moetrace.h5").stdout)
        self.assertEqual(there["generated_ids"], here["generated_ids"])
        self.assertEqual(there["backend"], "cpu")
        self.assertIn("Load", root.run("switchyard", "analyze", "/tmp/run.moetrace.h5", "load").stdout.title())
        refused = root.run("switchyard", *RUN, "--backend", "reference", check=False)
        self.assertEqual((refused.returncode, refused.stdout), (3, ""))
        self.assertIn("switchyard-torch", refused.stderr)
        refused = root.run("switchyard", "trace", "export", "/tmp/run.moetrace.h5", "--to", "parquet", "-o", "/tmp/x.parquet", check=False)
        self.assertIn("switchyard-parquet", refused.stderr)
        self.window(root)

        if "switchyard-torch" in deb:
            root.run("apt-get", "install", "-y", "--no-install-recommends", deb["switchyard-torch"])
            judged = json.loads(root.run("switchyard", *RUN, "--backend", "reference").stdout)
            self.assertEqual((judged["backend"], judged["generated_ids"]), ("reference", here["generated_ids"]))
            self.say("the reference backend agrees")
        if "switchyard-parquet" in deb:
            root.run("apt-get", "install", "-y", "--no-install-recommends", deb["switchyard-parquet"])
            root.run("switchyard", "trace", "export", "/tmp/run.moetrace.h5", "--to", "parquet", "-o", "/tmp/x.parquet")
            self.assertEqual((root.folder / "tmp/x.parquet").read_bytes()[:4], b"PAR1")
        if "switchyard-cuda" in deb:
            root.run("apt-get", "install", "-y", "--no-install-recommends", deb["switchyard-cuda"])
            self.assertRegex(root.run("switchyard", "--version").stdout, r"\n  cuda +backend, present: ")
        if "switchyard-sdk" in deb:
            self.plugin(root, deb["switchyard-sdk"])

        root.run("apt-get", "purge", "-y", *[name for name in self.packages if root.run("dpkg", "-s", name, check=False).returncode == 0])
        self.assertEqual(root.files() - before, set(), "left behind")
        self.assertEqual(root.run("dpkg", "-l", "switchyard*", check=False).stdout.count("\nii"), 0)
        self.say("removed; nothing is left")

    def plugin(self, root, deb):
        """A stranger's afternoon: a gate from the template, built with the installed SDK, trusted, and run on the demo."""
        root.run("apt-get", "install", "-y", "--no-install-recommends", deb)
        root.run("sh", "-ec", "cd /tmp && switchyard plugin new scheme my-gate && cmake -S my-gate -B my-gate/build && cmake --build my-gate/build"
                 " && switchyard plugin check my-gate/build && mkdir -p ~/.local/share/switchyard/plugins"
                 " && cp -r my-gate/build ~/.local/share/switchyard/plugins/my-gate")
        (root.folder / "tmp/gate.json").write_text('{"schema":1,"edits":[{"kind":"scheme","layer":"all","name":"my-gate.gate"}]}')
        refused = root.run("switchyard", *RUN, "--edits", "/tmp/gate.json", check=False)
        self.assertEqual(refused.returncode, 8)
        self.assertIn("not trusted", refused.stderr)
        root.run("switchyard", "plugin", "trust", "my-gate")
        routed = json.loads(root.run("switchyard", *RUN, "--edits", "/tmp/gate.json").stdout)
        self.assertEqual(len(routed["generated_ids"]), 16)
        self.say("a plugin from the template is built with the installed SDK, trusted and run")

    def window(self, root):
        """The window draws in the clean root, on a display of this machine (reached by its abstract socket)."""
        if not shutil.which("Xvfb"):
            self.say("no Xvfb: the window was not started")
            return
        read, write = os.pipe()
        display = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x900x24", "-nolisten", "tcp", "-ac"],
                                   pass_fds=[write], stderr=subprocess.DEVNULL)
        try:
            os.close(write)
            number = os.read(read, 16).decode().strip()
            root.run("switchyard", "open", "demo", "--screenshot", "/tmp/window.png", "--after-tokens", "24",
                     DISPLAY=f":{number}", HOME="/tmp")
        finally:
            os.close(read)
            display.terminate()
            display.wait()
        picture = (root.folder / "tmp/window.png").read_bytes()
        self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
        self.assertGreater(len(picture), 100_000, "an empty window")  # with its pictures drawn it takes about 200 kB
        (self.folder / "window.png").write_bytes(picture)
        self.say(f"the window drew itself ({len(picture) / 1e3:.0f} kB)")



if __name__ == "__main__":
    unittest.main(verbosity=2)
