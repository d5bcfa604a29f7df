"""Signals close the trace cleanly, a reader that leaves is quiet, progress keeps to stderr, the locale plays no part."""
import json
import signal
import subprocess
import time
import unittest

import h5py

from support import PROGRAM, PROMPTS, CliTest, run, started

ENDLESS = ("run", "demo", "--prompt-file", PROMPTS / "bible.txt", "--max-new-tokens", "1900", "--greedy", "--ignore-eos", "--threads", "1")


class Signals(CliTest):
    def interrupt(self, number, *more):
        trace = self.folder / f"{number}.moetrace.h5"
        with started(*ENDLESS, "--trace", trace, *more, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 60
            while not list(self.folder.glob("*.part")) and time.monotonic() < deadline:
                time.sleep(0.02)
            if "--json" not in more:
                process.stdout.read(1)  # the first generated text
            else:
                time.sleep(0.3)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
            return process.returncode, trace, out, err

    def check_closed(self, trace):
        self.assertEqual(list(self.folder.glob("*.part")), [])
        with h5py.File(trace) as file:
            self.assertEqual(int(file.attrs["complete"]), 1)
            tokens = int(file.attrs["n_tokens"])
        self.assertGreater(tokens, 0)
        self.assertEqual(run("trace", "verify", trace).returncode, 0)
        return tokens

    def test_int_term_and_hup_close_the_trace(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with self.subTest(signal=number):
                returned, trace, _, err = self.interrupt(number)
                self.assertEqual(returned, code, err)
                self.assertEqual(err, b"")
                self.check_closed(trace)

    def test_an_interrupted_run_still_gives_its_document(self):
        returned, trace, out, _ = self.interrupt(signal.SIGINT, "--json")
        self.assertEqual(returned, 130)
        document = json.loads(out)
        self.assertEqual(document["finish"], "stopped")
        self.assertEqual(self.check_closed(trace), len(document["prompt_ids"]) + max(0, len(document["generated_ids"]) - 1))

    def test_a_reader_that_leaves_is_quiet(self):
        trace = self.folder / "left.moetrace.h5"
        with started(*ENDLESS, "--trace", trace, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(1)
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(timeout=60), 0)
        self.check_closed(trace)
        done = subprocess.run(f"{PROGRAM} inspect demo --tensors | head -n 1", shell=True, capture_output=True, check=True)
        self.assertEqual(done.stderr, b"")


class Progress(CliTest):
    def test_json_progress_is_a_line_of_json_on_stderr(self):
        done = run(*ENDLESS[:5], "8", "--greedy", "--progress=json", "--json")
        json.loads(done.stdout)
        lines = [json.loads(line)["progress"] for line in done.stderr.splitlines()]
        self.assertTrue(lines)
        for key in ("step", "fraction", "tokens_per_s", "eta_s", "bytes", "dropped"):
            self.assertIn(key, lines[-1])

    def test_short_work_says_nothing_without_a_terminal(self):
        self.assertEqual(run(*ENDLESS[:5], "8", "--greedy").stderr, b"")


class Locales(CliTest):
    def test_four_locales_give_the_same_bytes(self):
        """Decimal commas (de_DE) and dotless i (tr_TR); the locales are compiled here, Debian ships their sources."""
        for name in ("de_DE", "tr_TR"):
            subprocess.run(["localedef", "-i", name, "-f", "UTF-8", self.folder / f"{name}.UTF-8"], check=True, capture_output=True)
        wanted = ["C", "C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8"]
        commands = [("inspect", "demo"), ("recipe", "list"), ("score", "demo", "--text-file", PROMPTS / "german.txt", "--json"),
                    ("score", "demo", "--text-file", PROMPTS / "russian.txt"), ("tokenize", "demo", "--text", "\u0130stanbul I\u0131 3,14", "--json"),
                    ("run", "demo", "--prompt", "1,5 + 2.5 =", "--max-new-tokens", "8", "--seed", "3", "--temperature", "0.7")]
        for command in commands:
            outputs = {run(*command, env={"LC_ALL": name, "LANG": name, "LOCPATH": str(self.folder)}).stdout for name in wanted}
            self.assertEqual(len(outputs), 1, command)
            self.assertNotEqual(outputs, {b""})


if __name__ == "__main__":
    unittest.main()
