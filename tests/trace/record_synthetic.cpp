// Records synthetic frames for tests that need another process: usage record_synthetic FOLDER TOKENS [FILES]
// Files 0.moetrace.h5, 1.moetrace.h5, … of TOKENS tokens each; without FILES it never ends (the kill test).
// After each growth it reports "FILE COMMITTED\n" on standard output in one write, so that a killed run
// never reports half a number.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tests/trace/synthetic.h"

using namespace switchyard;
using namespace switchyard::testing;

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return 2;
  const std::filesystem::path folder = argv[1];
  const uint64_t tokens = std::strtoull(argv[2], nullptr, 10);
  const uint64_t files = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : UINT64_MAX;
  const SyntheticShape shape;
  for (uint64_t file = 0; file < files; ++file) {
    RecorderOptions options;
    options.flush_seconds = 0.005;
    options.ring_frames = 64;
    auto recorder = TraceRecorder::create(folder / (std::to_string(file) + ".moetrace.h5"), synthetic_header(shape), options);
    if (!recorder) return 1;
    auto report = [&, last = uint64_t(0)]() mutable {
      const uint64_t committed = (*recorder)->committed_tokens();
      if (committed == last) return;
      last = committed;
      char line[64];
      const int length = std::snprintf(line, sizeof line, "%d %llu\n", int(file), static_cast<unsigned long long>(committed));
      if (write(STDOUT_FILENO, line, length) != length) std::exit(1);
    };
    for (uint64_t token = 0; token < tokens; ++token) {
      if (!append_synthetic(**recorder, shape, token)) return 1;
      report();
    }
    if (!(*recorder)->close()) return 1;
    report();
  }
}
