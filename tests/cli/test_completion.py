"""Completion in real shells: bash and fish asked directly, zsh at a terminal. A shell that is not installed is skipped."""
import os
import pathlib
import pty
import select
import shutil
import subprocess
import time
import unittest

from support import PROGRAM, CliTest, run


def commands_of_help(*path):
    """(commands, options) as the help of a command lists them."""
    text = run(*path, "--help").stdout.decode()
    commands, options, part = set(), set(), None
    for line in text.splitlines():
        if line.endswith(":"):
            part = line
        elif line.startswith("  ") and not line.startswith("   ") and line.strip():
            if part == "Subcommands:":
                commands.add(line.split()[0])
            elif line.strip().startswith("-"):
                options.update(name for name in line.split()[0].split("{")[0].split(",") if name.startswith("--"))
    return commands, options


class Completion(CliTest):
    def script(self, shell):
        done = run("completion", shell)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.write(f"completion.{shell}", done.stdout)

    def setUp(self):
        super().setUp()
        for name in ("run.moetrace.h5", "other.txt"):
            self.write(name, "")

    def bash(self, line):
        """The offers of bash for the last word of a line; words are cut as bash cuts them."""
        words = line.replace("=", " = ").split(" ")
        call = f"source completion.bash; COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; _switchyard; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash", "--norc", "-u", "-c", call], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return {word for word in done.stdout.split("\n") if word}

    def fish(self, line):
        done = subprocess.run(["fish", "--no-config", "-c", f"source completion.fish; complete -C '{line}'"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return {word.split("\t")[0] for word in done.stdout.split("\n") if word}

    def zsh(self, line):
        """What a zsh at a terminal makes of the line and a Tab."""
        main, side = pty.openpty()
        shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=side, stdout=side, stderr=side, cwd=self.folder, start_new_session=True,
                                 env={"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(self.folder), "COLUMNS": "200", "LINES": "60"})
        os.close(side)

        def read(until, seconds=20):
            seen, deadline = "", time.monotonic() + seconds
            while until not in seen and time.monotonic() < deadline:
                if select.select([main], [], [], 0.2)[0]:
                    seen += os.read(main, 4096).decode(errors="replace")
            return seen

        try:
            os.write(main, b"PS1='READY> '; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; source ./completion.zsh 2>/dev/null; "
                           b"compdef _switchyard switchyard; zstyle ':completion:*' list-prompt ''; LISTMAX=1000; echo set''up\n")
            read("setup")
            read("READY> ", 2)
            os.write(main, line.encode() + b"\t")
            seen = read("\x00", 3)  # what comes within three seconds
            os.write(main, b"\t")
            return seen + read("\x00", 2)
        finally:
            shell.kill()
            shell.wait()
            os.close(main)

    def test_bash_offers_every_command_and_option_of_the_help(self):
        self.script("bash")
        roots, everywhere = commands_of_help()
        self.assertEqual(self.bash("switchyard "), roots)
        for command in sorted(roots):
            subs, options = commands_of_help(command)
            self.assertEqual({w for w in self.bash(f"switchyard {command} --") if w.startswith("--")}, options | everywhere | {"--help"}, command)
            for sub in subs - {"cache", "capacity", "traffic", "schedule"}:  # these come behind a trace
                self.assertIn(sub, self.bash(f"switchyard {command} {sub[:3]}"))
                self.assertTrue(commands_of_help(command, sub)[1] <= self.bash(f"switchyard {command} {sub} --"), (command, sub))

    def test_bash_knows_values_files_and_where_it_stands(self):
        self.script("bash")
        self.assertEqual(self.bash("switchyard run demo --backend c"), {"cpu", "cuda"})
        self.assertEqual(self.bash("switchyard run demo --backend=re"), {"reference"})
        self.assertEqual(self.bash("switchyard run demo --seed "), set())  # a number
        self.assertEqual(self.bash("switchyard run --seed 7 d"), {"demo"})
        self.assertEqual(self.bash("switchyard analyze run"), {"run.moetrace.h5"})
        self.assertEqual(self.bash("switchyard analyze o"), set())
        self.assertIn("load-over-time", self.bash("switchyard analyze run.moetrace.h5 load"))
        self.assertEqual(self.bash("switchyard trace export run.moetrace.h5 --to n"), {"npy"})
        self.assertEqual(self.bash("switchyard simulate run.moetrace.h5 c"), {"cache", "capacity"})
        self.assertEqual(self.bash("switchyard run --log-level w"), {"warning"})
        self.assertIn("other.txt", self.bash("switchyard score demo --text-file o"))

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish(self):
        self.script("fish")
        roots, _ = commands_of_help()
        self.assertEqual(self.fish("switchyard "), roots)
        self.assertEqual(self.fish("switchyard trace ve"), {"verify"})
        self.assertEqual(self.fish("switchyard run demo --backend c"), {"cpu", "cuda"})
        self.assertIn("--max-new-tokens", self.fish("switchyard run --max"))
        self.assertNotIn("--gpus", self.fish("switchyard run --g"))
        self.assertIn("demo", self.fish("switchyard inspect d"))

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh(self):
        self.script("zsh")
        self.assertIn("verify", self.zsh("switchyard trace ver"))
        self.assertIn("--max-new-tokens", self.zsh("switchyard run --max-n"))
        seen = self.zsh("switchyard run demo --backend ")
        for name in ("auto", "reference", "cpu", "cuda"):
            self.assertIn(name, seen)
        self.assertIn("capacity", self.zsh("switchyard simulate run.moetrace.h5 cap"))
        self.assertIn("sglang-location", self.zsh("switchyard trace export --to sgl"))

    def test_another_shell_is_refused(self):
        self.assert_refused(2, "SHELL", "completion", "tcsh")


if __name__ == "__main__":
    unittest.main(verbosity=2)
