"""The tutorial is true: its commands are taken from the page and run in order, in an empty folder; what stands below a block of commands stands in their output,
and what the page claims of the numbers holds."""
import json
import os
import pathlib
import re
import subprocess
import unittest

import h5py

from support import ASSETS, PROGRAM, CliTest

PAGE = (ASSETS / "help/first_hour.md").read_text()
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d+\.\d+")


def alike(wanted, found):
    """The same words; numbers with a point within 3 %, or 0.02."""
    if NUMBER.sub("#", " ".join(wanted.split())) != NUMBER.sub("#", " ".join(found.split())):
        return False
    pairs = zip(map(float, NUMBER.findall(wanted)), map(float, NUMBER.findall(found)))
    return all(abs(a - b) <= max(0.02, 0.03 * abs(a)) for a, b in pairs)


class FirstHour(CliTest):
    def shell(self, script):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.folder / "work", capture_output=True, text=True,
                              env=os.environ | {"PATH": path}, timeout=300)
        self.assertEqual(done.returncode, 0, f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def loss(self, output, domain):
        return float(re.search(rf"^  {domain} +([\d.]+) nats", output, re.M)[1])

    def test_every_command_does_what_the_page_says(self):
        (self.folder / "bin").mkdir()
        (self.folder / "bin/switchyard").symlink_to(pathlib.Path(PROGRAM).resolve())
        (self.folder / "work").mkdir()
        outputs, commands = [], 0
        for kind, text in BLOCK.findall(PAGE):
            if kind == "sh":
                commands += text.count("switchyard ")
                # Page and test agree on one ending: pipefail would punish `head` for closing early.
                outputs.append(self.shell(text.replace("| head -5", "| sed -n 1,5p")))
                continue
            for wanted in text.splitlines():
                self.assertTrue(any(alike(wanted, line) for line in outputs[-1].splitlines()), f"{wanted!r} is not in\n{outputs[-1]}")
        self.assertEqual(commands, 16)
        work = self.folder / "work"

        self.assertRegex(outputs[3], r"1001, 1000.*\n?.*1011, 1011")

        # Step 4: muting costs digits and hardly words; the list's second costs less.
        plain, muted = outputs[1], next(o for o in outputs if "unedited nll" in o)
        self.assertGreater(self.loss(muted, "digits") - self.loss(plain, "digits"), 0.1)
        self.assertLess(abs(self.loss(muted, "words") - self.loss(plain, "words")), 0.03)
        second = self.shell("echo '{\"schema\":1,\"edits\":[{\"kind\":\"mute\",\"layer\":2,\"expert\":21}]}' > second.json;"
                            "switchyard score demo --texts texts.jsonl --edits second.json")
        self.assertLess(self.loss(second, "digits") - self.loss(plain, "digits"), 0.6 * (self.loss(muted, "digits") - self.loss(plain, "digits")))

        # Step 5: not one token takes expert 9 of layer 0 before token 24, some take it from there on.
        with h5py.File(work / "back.moetrace.h5") as trace:
            ids = trace["routing/expert_id"][0]
        self.assertFalse((ids[:24] == 9).any())
        self.assertTrue((ids[24:] == 9).any())

        # Step 6: the exported model is the edited one, and a single mute is refused with nothing written.
        self.assertEqual(json.loads((work / "demo-wordy/config.json").read_text())["num_experts"], 31)
        edited, exported = re.findall(r"^nll +([\d.]+)", next(o for o in outputs if "Wrote demo-wordy" in o), re.M)
        self.assertEqual(edited, exported)
        refused = subprocess.run([PROGRAM, "export", "demo", "--edits", work / "mute.json", "--out", work / "one"], capture_output=True, text=True)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("one number of experts for all layers", refused.stderr)
        self.assertFalse((work / "one").exists())
        self.assertIn("\\toprule", (work / "load.tex").read_text())
        self.assertTrue((work / "arrays/expert_id.npy").exists())

    def test_names_only_actions_of_the_window(self):
        """Menu paths and keys of the page against the rows of the action table."""
        actions = pathlib.Path(os.environ["SWITCHYARD_SOURCE"], "app/gui/actions.cpp").read_text()
        for menu, title in re.findall(r"\*(\w+) → ([^*]+)\*", PAGE):
            self.assertRegex(actions, rf'tr\("{re.escape(title)}"\), "-?{menu}"', title)
        for keys in ("Ctrl+Z", "Ctrl+Shift+Z", "Ctrl+Shift+O", "M"):
            self.assertIn(keys, PAGE)
            self.assertRegex(actions, rf'"{re.escape(keys)}[ "]')


if __name__ == "__main__":
    unittest.main(verbosity=2)
