"""Signals close the trace cleanly, a reader that leaves is quiet, progress keeps to stderr, the locale plays no part."""
import fcntl
import json
import os
import pty
import signal
import subprocess
import time
import unittest

import h5py
import numpy

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
                self.wait_for_rows(trace.with_suffix(".h5.part"))
            process.send_signal(number)
            out, err = process.communicate(timeout=300)
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

    def test_a_killed_run_is_recovered_row_for_row(self):
        trace, part = self.folder / "killed.moetrace.h5", self.folder / "killed.moetrace.h5.part"
        with started(*ENDLESS, "--trace", trace, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            # Nobody reads the 6 KB of text, and the pipe holds 4: the run cannot end by itself.
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
            self.wait_for_rows(part, 101)
            self.assertIsNone(process.poll(), "the run ended before it was killed")
            process.kill()
        self.assertFalse(trace.exists())
        committed = self.json_of("trace", "trace", "info", part)["committed_tokens"]
        self.assertGreater(committed, 100)
        rescued, whole = self.folder / "rescued.moetrace.h5", self.folder / "whole.moetrace.h5"
        found = self.json_of("trace", "trace", "recover", part, "-o", rescued, code=10)
        self.assertEqual(found["trace"]["tokens"], committed)
        self.assertEqual(run(*ENDLESS, "--trace", whole).returncode, 0)
        with h5py.File(rescued) as kept, h5py.File(whole) as all_rows:
            for name in ("/routing/expert_id", "/routing/weight"):
                numpy.testing.assert_array_equal(kept[name][:, :committed], all_rows[name][:, :committed])

    def test_an_interrupted_scoring_closes_its_trace(self):
        ids = ",".join(str(2 + i % 4000) for i in range(2000))
        texts = self.write("texts.jsonl", "".join(f'{{"token_ids":[{ids}]}}\n' for _ in range(20)))
        trace = self.folder / "score.moetrace.h5"
        with started("score", "demo", "--texts", texts, "--trace", trace, "--threads", "1", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.wait_for_rows(trace.with_suffix(".h5.part"))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=300)
        self.assertEqual((process.returncode, out, err), (143, b"", b""))
        self.check_closed(trace)

    def test_a_reader_that_leaves_is_quiet(self):
        trace = self.folder / "left.moetrace.h5"
        with started(*ENDLESS, "--trace", trace, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(1)
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(timeout=300), 0)
        self.check_closed(trace)
        done = subprocess.run(f"{PROGRAM} inspect demo --tensors | head -n 1", shell=True, capture_output=True, check=True)
        self.assertEqual(done.stderr, b"")


def on_terminal(*arguments, env=None):
    """What the program writes to a terminal that is its stderr; stdout goes nowhere."""
    master, slave = pty.openpty()
    with started(*arguments, stdout=subprocess.DEVNULL, stderr=slave, env=os.environ | (env or {})) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                block = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            written += block
        process.wait(timeout=300)
    os.close(master)
    return written


class Progress(CliTest):
    def test_a_terminal_gets_a_bar_that_is_wiped_at_the_end(self):
        written = on_terminal(*ENDLESS[:4], "--max-new-tokens", "600", "--greedy", "--ignore-eos", "--json", env={"TERM": "xterm"})
        self.assertRegex(written.decode(), r"\r\x1b\[K\[=* *\] +\d+ %  generate  [\d.]+ tokens/s")
        self.assertTrue(written.endswith(b"\r\x1b[K"))

    def test_a_dumb_terminal_and_quiet_get_none(self):
        for more, env in ((), {"TERM": "dumb"}), (("-q",), {"TERM": "xterm"}), (("--progress=none",), {"TERM": "xterm"}):
            self.assertEqual(on_terminal(*ENDLESS[:4], "--max-new-tokens", "20", "--greedy", "--json", *more, env=env), b"", (more, env))

    def test_errors_are_red_unless_told_otherwise(self):
        self.assertIn(b"\x1b[31merror:\x1b[0m ", on_terminal("inspect", "/nowhere", env={"TERM": "xterm", "NO_COLOR": ""}))
        for more, env in ((), {"TERM": "xterm", "NO_COLOR": "1"}), (("--no-color",), {"TERM": "xterm"}), ((), {"TERM": "dumb"}):
            self.assertTrue(on_terminal("inspect", "/nowhere", *more, env=env).startswith(b"error: "), (more, env))

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
