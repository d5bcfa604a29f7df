"""The AppImage recipe and the Flatpak manifest, as far as they can be checked without building: their grammar, and that what they name is true here."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

SOURCE = pathlib.Path(os.environ["SWITCHYARD_SOURCE"])
APPIMAGE = SOURCE / "packaging/appimage/AppImageBuilder.yml"
FLATPAK = SOURCE / "packaging/flatpak/org.switchyard.Switchyard.yml"
VERSION = re.search(r"project\(switchyard VERSION ([\d.]+)", (SOURCE / "CMakeLists.txt").read_text())[1]
LOCK = [line.split() for line in (SOURCE / "packaging/downloads.lock").read_text().splitlines() if line.strip() and not line.startswith("#")]

# The grammar of appimage-builder's version 1, as far as this recipe uses it: key: (needed, type).
GRAMMAR = {"version": (True, int), "script": (False, list), "AppImage": (False, {"arch": (True, str), "update-information": (False, str), "sign-key": (False, str)}),
           "AppDir": (True, {"path": (False, str), "app_info": (True, {k: (k in ("id", "version", "exec"), str) for k in ("id", "name", "icon", "version", "exec", "exec_args")}),
                             "apt": (False, {"arch": (True, str), "sources": (True, list), "include": (True, list), "exclude": (False, list)}),
                             "files": (False, {"include": (False, list), "exclude": (False, list)}), "runtime": (False, {"env": (False, dict)})})}


def problems(value, grammar, at=""):
    for key, (needed, kind) in grammar.items():
        if key not in value:
            if needed:
                yield f"{at}/{key} is missing"
        elif isinstance(kind, dict):
            yield from problems(value[key], kind, f"{at}/{key}")
        elif not isinstance(value[key], kind):
            yield f"{at}/{key} is {value[key]!r}"
    for key in set(value) - set(grammar):
        yield f"{at}/{key} is unknown"


class Recipes(unittest.TestCase):
    def test_appimage(self):
        recipe = yaml.safe_load(APPIMAGE.read_text())
        self.assertEqual(list(problems(recipe, GRAMMAR)), [])
        info = recipe["AppDir"]["app_info"]
        self.assertEqual((info["id"], info["version"]), ("org.switchyard.Switchyard", VERSION))
        for source in recipe["AppDir"]["apt"]["sources"]:
            self.assertEqual(set(source), {"sourceline", "key_url"})
        packages = recipe["AppDir"]["apt"]["include"]
        self.assertEqual(packages, sorted(set(packages)))
        for package in packages:
            self.assertRegex(package, r"^[a-z0-9][a-z0-9+.-]+$")

    def test_flatpak(self):
        manifest = yaml.safe_load(FLATPAK.read_text())
        if shutil.which("flatpak-builder"):
            with tempfile.TemporaryDirectory() as state:
                done = subprocess.run(["flatpak-builder", "--show-manifest", FLATPAK], cwd=state, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                manifest = json.loads(done.stdout)
        else:
            print("flatpak-builder is not installed: only the keys of the manifest were checked")
        for key in ("id", "runtime", "runtime-version", "sdk", "command", "modules", "finish-args"):
            self.assertIn(key, manifest)
        self.assertNotIn("--share=network", manifest["finish-args"])
        for module in manifest["modules"]:
            for source in module["sources"]:
                self.assertIn(source["type"], ("archive", "file", "dir"))
                if source["type"] == "archive":
                    self.assertRegex(source["url"], r"^https://deb\.debian\.org/debian/pool/")
                if source["type"] != "dir":
                    self.assertRegex(source["sha256"], "^[0-9a-f]{64}$")

    def test_flatpak_takes_the_files_of_the_lock(self):
        own = yaml.safe_load(FLATPAK.read_text())["modules"][-1]
        hashes = {row[1]: row[2] for row in LOCK}
        files = [s for s in own["sources"] if s["type"] == "file"]
        self.assertEqual(len(files), 2)
        for source in files:
            self.assertEqual(hashes[pathlib.Path(source["path"]).name], source["sha256"])
        # And its own build line unpacks folders that fetch.py knows.
        only = re.search(r"--only (\S+)", own["build-commands"][0])[1].split(",")
        fetch = (SOURCE / "packaging/fetch.py").read_text()
        for folder in only:
            self.assertIn(f'"{folder}": (', fetch)


if __name__ == "__main__":
    unittest.main(verbosity=2)
