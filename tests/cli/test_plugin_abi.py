"""A plugin that was built for contract N in a program of contract N that only appended fields, and the other way round: the
header is copied, two fields are appended to every struct, and border and plugin are compiled on different sides of it."""
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import unittest

from support import PROGRAM, SOURCE

BUILD = pathlib.Path(PROGRAM).resolve().parent.parent
SDK = SOURCE / "plugins/sdk/include"

DRIVER = r"""
#include "engine/plugin_host/code.h"
#include <cmath>
#include <cstdio>
using namespace switchyard;
int main(int, char** argv) {
  auto code = PluginCode::open(argv[1], {}, nullptr);
  if (!code) { std::printf("%s\n", code.error().message().c_str()); return 1; }
  auto scheme = (*code)->scheme("noisy-gate.noisy_top_k");
  if (!scheme) { std::printf("%s\n", scheme.error().message().c_str()); return 1; }
  const double parameters[] = {0, 0};
  const float logits[] = {0, 2, 1, -1};
  const int32_t token = 1;
  const uint64_t position = 3;
  sy_scheme_in in{};
  in.struct_size = sizeof in, in.tokens = 1, in.experts = 4, in.k = 2, in.slots = 2, in.parameter_count = 2, in.parameters = parameters, in.logits = logits,
  in.token_ids = &token, in.positions = &position;
  uint32_t count = 0;
  int32_t ids[2];
  float weights[2];
  uint8_t flags[2] = {};
  sy_scheme_out out{};
  out.struct_size = sizeof out, out.count = &count, out.id = ids, out.weight = weights, out.flags = flags;
  CallContext ctx;
  if (!(*code)->call(PluginCall::kRoute, ctx, [&] { return scheme->route((*code)->self(), &in, &out, &ctx); })) { std::printf("%s\n", ctx.message); return 1; }
  const float expected = 1 / (1 + std::exp(-1.0f));
  std::printf("%u %d %d %zu %zu\n", count, ids[0], ids[1], sizeof(sy_plugin), sizeof in);
  return count == 2 && ids[0] == 1 && ids[1] == 2 && std::abs(weights[0] - expected) < 1e-6f ? 0 : 1;
}
"""


class Abi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = tempfile.TemporaryDirectory(prefix="switchyard-abi-")
        cls.root = pathlib.Path(cls.room.name)
        include = cls.root / "next/switchyard"
        include.mkdir(parents=True)
        header = (SDK / "switchyard/plugin.h").read_text()
        later, structs = re.subn(r"\n\} (sy_\w+);", r"\n  uint64_t later_number;\n  void (*later_function)(void);\n} \1;", header)
        assert structs >= 20, structs
        (include / "plugin.h").write_text(later)
        (include / "plugin.hpp").write_text((SDK / "switchyard/plugin.hpp").read_text())
        (cls.root / "driver.cpp").write_text(DRIVER)

    @classmethod
    def tearDownClass(cls):
        cls.room.cleanup()

    def compile(self, *arguments):
        flags = shlex.split(subprocess.run(["pkg-config", "--cflags", "--libs", "fmt"], capture_output=True, text=True).stdout)
        done = subprocess.run(["c++", "-std=c++20", "-O0", *map(str, arguments), *flags], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def host(self, include, name):
        target = self.root / name
        room = SOURCE / "engine/plugin_host"
        self.compile(f"-I{include}", f"-I{SOURCE}", self.root / "driver.cpp", *(room / f"{one}.cpp" for one in ("code", "environment", "breadcrumb")),
                     BUILD / "engine/base/libswitchyard_base.a", "-ldl", "-o", target)
        return target

    def plugin(self, include, name):
        target = self.root / f"lib{name}.so"
        self.compile(f"-I{include}", f"-I{BUILD}/tests/plugin_host", "-shared", "-fPIC", "-fvisibility=hidden", SOURCE / "plugins/examples/noisy-gate/noisy_gate.cpp", "-o", target)
        return target

    def test_both_ways(self):
        now, later = SDK, self.root / "next"
        hosts = {"now": self.host(now, "host-now"), "later": self.host(later, "host-later")}
        plugins = {"now": self.plugin(now, "now"), "later": self.plugin(later, "later")}
        said = {}
        for host, program in hosts.items():
            for plugin, library in plugins.items():
                done = subprocess.run([program, library], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, f"plugin built {plugin}, program built {host}: {done.stdout}{done.stderr}")
                said[host] = done.stdout
        self.assertNotEqual(said["now"], said["later"], "the structs did grow")


if __name__ == "__main__":
    unittest.main()
