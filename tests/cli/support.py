"""What the command line tests share: running the built program, its JSON schemas, the shipped prompts."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import jsonschema

SOURCE = pathlib.Path(os.environ["SWITCHYARD_SOURCE"])
PROGRAM = os.environ["SWITCHYARD_PROGRAM"]
REFERENCE = os.environ.get("SWITCHYARD_REFERENCE", "1") == "1"  # whether that engine is built
PARQUET = os.environ.get("SWITCHYARD_PARQUET", "1") == "1"  # whether its module is built
SCHEMAS = SOURCE / "tests/cli/schemas"
ASSETS = SOURCE / "assets"
PROMPTS = ASSETS / "prompts"
os.environ.setdefault("LSAN_OPTIONS", f"suppressions={SOURCE}/tests/support/foreign_leaks.supp:print_suppressions=0")  # of a sanitized program
EXPECTED = json.loads((SOURCE / "assets/models/demo/expected.json").read_text())["prompts"]


def run(*arguments, stdin=b"", env=None, timeout=600):
    """The finished process; stdout and stderr as bytes."""
    return subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout,
                          env=None if env is None else os.environ | env)


def built(cases, backend=lambda case: case[0]):
    """The cases whose engine is built."""
    return [case for case in cases if REFERENCE or backend(case) != "reference"]


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def json_of(self, schema, *arguments, code=0, stdin=b"", env=None):
        """Runs with --json and gives the one document on stdout, checked against its schema."""
        done = run(*arguments, "--json", stdin=stdin, env=env)
        self.assertEqual(done.returncode, code, done.stderr.decode())
        self.assertTrue(done.stdout.endswith(b"\n") and done.stdout.count(b"\n") == 1, "one line, one newline at its end")
        document = json.loads(done.stdout, parse_constant=self.refuse_constant)
        jsonschema.validate(document, json.loads((SCHEMAS / f"{schema}.schema.json").read_text()))
        return document

    def refuse_constant(self, name):
        self.fail(f"{name} in JSON")

    def assert_refused(self, code, message, *arguments, stdin=b"", env=None):
        """Exit code, a message that holds `message`, nothing on stdout, no new file in the folder."""
        before = sorted(self.folder.iterdir())
        done = run(*arguments, stdin=stdin, env=env)
        self.assertEqual(done.returncode, code, (arguments, done.stderr))
        self.assertIn(message, done.stderr.decode())
        self.assertEqual(done.stdout, b"")
        self.assertEqual(sorted(self.folder.iterdir()), before, "an output file is left")

    def wait_for_rows(self, part, rows=1, seconds=60):
        """Until a recording has committed so many tokens; how many there are."""
        committed, deadline = 0, time.monotonic() + seconds
        while committed < rows and time.monotonic() < deadline:
            time.sleep(0.1)
            done = run("trace", "info", part, "--json")
            committed = json.loads(done.stdout)["committed_tokens"] if done.returncode == 0 else 0
        return committed

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def edits(self, *entries, name="edits.json"):
        return self.write(name, json.dumps({"schema": 1, "edits": list(entries)}))


@contextlib.contextmanager
def started(*arguments, **options):
    """A running process, killed at the end if it still runs."""
    process = subprocess.Popen([PROGRAM, *map(str, arguments)], **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream:
                stream.close()
