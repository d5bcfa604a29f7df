"""The help is complete: whatever the program lists (commands, schemes, adapter routers, edits, analyses, studies, formats, environment) stands on a page,
every page is reached from the index, and no link is dead."""
import json
import os
import re
import unittest

from support import ASSETS, SOURCE, CliTest, run

HELP = ASSETS / "help"
PAGES = {str(p.relative_to(HELP))[:-3]: p.read_text() for p in HELP.rglob("*.md")}
LINK = re.compile(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)")


def links_of(page):
    return {os.path.normpath(os.path.join(os.path.dirname(page), link))[:-3] for link in LINK.findall(PAGES[page])}


def help_of(*path):
    return run(*path, "--help").stdout.decode()


def listed(text, title):
    """First words of the lines under a heading of a help text."""
    part = text.split(f"\n{title}:\n", 1)[1].split("\n\n", 1)[0]
    return [line.split()[0] for line in part.splitlines() if re.match(r"  \S", line)]


class HelpPages(CliTest):
    def mentions(self, page, names, form="`{}`"):
        self.assertTrue(names, "nothing to look for")
        missing = [name for name in names if form.format(name) not in PAGES[page]]
        self.assertEqual(missing, [], f"not on the page {page}")

    def test_every_command(self):
        commands = []
        for command in listed(help_of(), "Subcommands"):
            text = help_of(command)
            subs = listed(text, "Subcommands") if "\nSubcommands:\n" in text else []
            commands += [f"{command} {sub}" for sub in subs] or [command]
        self.assertGreater(len(commands), 30)
        self.mentions("command_line", commands)

    def test_options_of_every_command(self):
        shared = help_of().split("\nEverywhere:\n")[1].split("\n\n")[0]
        names = [line.split()[0].split(",")[-1] for line in shared.splitlines() if line.startswith("  -")]
        for name in names:
            short = {"--output": "-o", "--quiet": "-q"}.get(name, name)
            self.assertIn(f"`{short}", PAGES["command_line"], name)
            self.assertIn(f"`{short}", PAGES["settings"], name)

    def test_schemes_adapters_and_edits(self):
        recipe = json.loads(run("recipe", "list", "--json").stdout)
        for scheme in recipe["schemes"]:
            if scheme["name"] == "native":
                continue
            page = PAGES.get("schemes/" + scheme["name"])
            self.assertIsNotNone(page, scheme["name"])
            self.assertIn(f"schemes/{scheme['name']}.md", PAGES["schemes"])
            # Pages send for names, ranges and defaults to the program's own table.
            if scheme["parameters"]:
                self.assertIn(f"`switchyard recipe show {scheme['name']}`", page, scheme["name"])
                shown = run("recipe", "show", scheme["name"]).stdout.decode()
                for parameter in scheme["parameters"]:
                    self.assertIn(parameter["name"], shown, scheme["name"])
        for router in recipe["adapter_routers"]:
            page = PAGES.get("adapters/" + router["name"])
            self.assertIsNotNone(page, router["name"])
            self.assertIn(f"adapters/{router['name']}.md", PAGES["adapters"])
        kinds = [kind["kind"] if "kind" in kind else kind["name"] for kind in recipe["edits"]]
        missing = [kind for kind in kinds if f"`{kind}`" not in PAGES["edits"]]
        self.assertEqual(missing, [])

    def test_analyses_and_studies(self):
        self.mentions("analyses", listed(help_of("analyze"), "Analyses"))
        self.mentions("placement", listed(help_of("place"), "Methods"))
        simulations = re.findall(r"^  (\w+) ", help_of("simulate").split("Subcommands:\n")[1], re.M)
        self.assertEqual(len(simulations), 4)
        for name in simulations:
            self.assertIn(name, PAGES["simulations"].lower())

    def test_options_of_analyses_and_studies(self):
        for page, commands in {"analyses": [("analyze",)], "placement": [("place",)],
                               "simulations": [("simulate", "x", s) for s in ("cache", "capacity", "traffic", "schedule")]}.items():
            for command in commands:
                options = re.findall(r"^  (--[\w-]+)", help_of(*command), re.M)
                self.assertGreater(len(options), 4)
                self.assertEqual([o for o in options if f"`{o}" not in PAGES[page]], [], command)

    def formats(self, *command, option):
        text = next(line for line in help_of(*command).splitlines() if line.startswith(f"  {option} "))
        return [name for name in text.split(": ", 1)[1].split(", ") if name != "auto"]

    def test_formats(self):
        self.mentions("trace_formats", self.formats("trace", "import", option="--from"))
        self.mentions("trace_exports", self.formats("trace", "export", option="--to"))
        for suffix in ("*.moetrace.h5", "*.moetrace.h5.part", "*.switchyard.json", "*.gguf"):
            self.assertIn(f"`{suffix}`", PAGES["files"])

    def test_environment_and_settings(self):
        """Every variable that the program reads, every key that the window keeps."""
        variables, keys = set(), set()
        for folder in ("engine", "views", "app"):
            for path in (SOURCE / folder).rglob("*.cpp"):
                text = path.read_text()
                variables.update(re.findall(r'(?:getenv|set_variable|setenv)\("(\w+)"', text))
                variables.update(re.findall(r'\.variable = "(\w+)"', text))
                if "window_settings()" in text:
                    keys.update(key.split("/")[0] for key in re.findall(r'->(?:setV|v)alue\("([\w/]+)"', text))
        self.assertLessEqual({"SWITCHYARD_ASSETS", "SWITCHYARD_ISA", "HF_HOME"}, variables)
        self.assertLessEqual({"theme", "layout", "recent"}, keys)
        self.mentions("settings", sorted(variables - {"HOME"}))
        self.mentions("settings", sorted(keys))

    def test_every_page_is_reached_from_the_index(self):
        reached, todo = {"index"}, ["index"]
        while todo:
            for page in links_of(todo.pop()):
                if page not in reached and page in PAGES:
                    reached.add(page)
                    todo.append(page)
        self.assertEqual(sorted(set(PAGES) - reached), [])

    def test_no_dead_links(self):
        for page in PAGES:
            for target in links_of(page):
                self.assertIn(target, PAGES, f"{page} links to it")
            for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGES[page]):
                self.assertTrue((HELP / os.path.dirname(page) / image).exists(), f"{page}: {image}")

    def test_every_page_begins_with_its_title(self):
        for page, text in PAGES.items():
            self.assertTrue(text.startswith("# "), page)
            self.assertGreater(len(text), 200, page)


if __name__ == "__main__":
    unittest.main(verbosity=2)
