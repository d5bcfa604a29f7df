"""The desktop's own checkers on what is installed beside the program: menu entry, store page, file types, icons."""
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["SWITCHYARD_SOURCE"])
BUILD = pathlib.Path(os.environ["SWITCHYARD_BUILD"])
DESKTOP = SOURCE / "packaging/desktop"
ID = "org.switchyard.Switchyard"


class Desktop(unittest.TestCase):
    def checked(self, tool, *arguments, **environment):
        if not shutil.which(tool):
            self.skipTest(f"{tool} is not installed")
        done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_menu_entry(self):
        self.assertEqual(self.checked("desktop-file-validate", DESKTOP / f"{ID}.desktop"), "")

    def test_store_page(self):
        self.checked("appstreamcli", "validate", "--no-net", BUILD / f"desktop/{ID}.metainfo.xml")

    def test_file_types(self):
        """A trace and a workspace get their types by name, in a database made of our file and HDF5's."""
        self.checked("xmllint", "--noout", DESKTOP / f"{ID}.mime.xml")
        with tempfile.TemporaryDirectory() as folder:
            packages = pathlib.Path(folder) / "mime/packages"
            packages.mkdir(parents=True)
            shutil.copy(DESKTOP / f"{ID}.mime.xml", packages / f"{ID}.xml")
            said = self.checked("update-mime-database", pathlib.Path(folder) / "mime", XDG_DATA_HOME=folder, XDG_DATA_DIRS=folder)
            self.assertEqual(said, "")
            globs = (pathlib.Path(folder) / "mime/globs2").read_text()
            self.assertIn("60:application/x-switchyard-trace+hdf5:*.moetrace.h5\n", globs)
            self.assertIn("60:application/x-switchyard-workspace+json:*.switchyard.json\n", globs)
            self.assertIn("application/x-switchyard-trace+hdf5 application/x-hdf5", (pathlib.Path(folder) / "mime/subclasses").read_text())

    def test_the_entry_opens_the_types_that_are_declared(self):
        entry, types = (DESKTOP / f"{ID}.desktop").read_text(), (DESKTOP / f"{ID}.mime.xml").read_text()
        offered = next(line for line in entry.splitlines() if line.startswith("MimeType=")).removeprefix("MimeType=").strip(";").split(";")
        for one in offered:
            self.assertIn(f'type="{one}"', types)
        self.assertEqual(len(offered), types.count("<mime-type "))

    def test_icons(self):
        for size in (16, 24, 32, 48, 64, 128, 256):
            head = (SOURCE / f"assets/icons/{size}.png").read_bytes()[:24]
            self.assertEqual(struct.unpack(">II", head[16:24]), (size, size))
        self.checked("xmllint", "--noout", SOURCE / "assets/icons/switchyard.svg")


if __name__ == "__main__":
    unittest.main(verbosity=2)
