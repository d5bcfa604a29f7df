// Randomly damaged files never bring the program down: every one is opened, read, verified and recovered in
// a child process, which must end by itself, within 20 s of CPU time: other work on the machine does not count.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;

enum Outcome : int { kRefused = 10, kProblemsFound = 11, kFine = 12, kWrongAndUnnoticed = 13 };

// Everything a user can do to a file. Until a file is closed its sequences and epochs have no checksum.
int handle(const fs::path& path, const fs::path& target, const SyntheticShape& shape) {
  const auto report = verify_trace(path);
  const auto reader = TraceReader::open(path);
  if (!report || !reader) return kRefused;
  const std::string difference = synthetic_difference(**reader, shape);
  const auto recovered = recover_trace(path, target, true);
  if (!report->problems.empty() || !recovered || !recovered->problems.empty()) return kProblemsFound;
  const bool same_shape = (*reader)->info().tokens <= 60 && (*reader)->info().layers == shape.layers && (*reader)->info().experts == shape.experts;
  return difference.empty() || !same_shape ? kFine : kWrongAndUnnoticed;
}

// packaging/test.sh --full sets SWITCHYARD_FULL.
int files_to_damage() { return std::getenv("SWITCHYARD_FULL") ? 1000 : 150; }

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::map<int, int> mutate_many(const std::string& sound, const SyntheticShape& shape, int files, const std::string& name) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 random(seed);
  const Folder folder;
  std::map<int, int> outcomes;
  for (int i = 0; i < files && !::testing::Test::HasFailure(); ++i) {
    std::string bytes = sound;
    const int flips = std::uniform_int_distribution<int>(1, 6)(random);
    for (int flip = 0; flip < flips; ++flip)
      bytes[random() % bytes.size()] ^= static_cast<char>(1 << (random() % 8));
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    std::ofstream(folder / name, std::ios::binary) << bytes;
    const pid_t child = fork();
    if (child == 0) {
      alarm(300);
      const int code = handle(folder / name, folder / "out.moetrace.h5", shape);
      _exit(code);
    }
    int status = 0;
    rusage used{};
    wait4(child, &status, 0, &used);  // with what its own children used
    const auto cpu_seconds = used.ru_utime.tv_sec + used.ru_stime.tv_sec;
    if (!WIFEXITED(status) || WEXITSTATUS(status) < kRefused || WEXITSTATUS(status) > kWrongAndUnnoticed || cpu_seconds >= 20) {
      const fs::path kept = fs::temp_directory_path() / ("switchyard-mutated-" + std::to_string(getpid()) + "-" + name);
      fs::copy_file(folder / name, kept, fs::copy_options::overwrite_existing);
      ADD_FAILURE() << "file " << i << " ended the child with " << (WIFSIGNALED(status) ? "signal " : "status ")
                    << (WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)) << " after " << cpu_seconds << " s of CPU time; kept as " << kept;
    }
    ++outcomes[WIFEXITED(status) ? WEXITSTATUS(status) : -1];
  }
  std::cout << files << " files: " << outcomes[kRefused] << " refused, " << outcomes[kProblemsFound] << " with problems named, "
            << outcomes[kFine] << " with nothing of ours damaged" << std::endl;
  return outcomes;
}

TEST(Mutation, ACompleteFileDamagedAtRandomNeverBringsUsDown) {
  const SyntheticShape shape{2, 8, 2, CaptureLevel::kWeights, 30, 20};
  const Folder folder;
  RecorderOptions options;
  options.chunk_rows = 16;  // more index, less data
  record_synthetic(folder / "a.moetrace.h5", shape, 60, options);
  auto outcomes = mutate_many(content_of(folder / "a.moetrace.h5"), shape, files_to_damage(), "a.moetrace.h5");
  EXPECT_GT(outcomes[kRefused], 0);
  EXPECT_GT(outcomes[kProblemsFound], 0);
  EXPECT_EQ(outcomes[kWrongAndUnnoticed], 0) << "verify must see every wrong value of a closed file";
}

// The same for a file that was never closed, which goes through SWMR.
TEST(Mutation, AnOpenFileDamagedAtRandomNeverBringsUsDown) {
  const SyntheticShape shape{2, 8, 2, CaptureLevel::kWeights, 30, 20};
  const Folder folder;
  RecorderOptions options;
  options.chunk_rows = 16;
  options.flush_seconds = 0.01;
  auto recorder = *TraceRecorder::create(folder / "a.moetrace.h5", synthetic_header(shape), options);
  for (uint64_t token = 0; token < 60; ++token) ASSERT_TRUE(append_synthetic(*recorder, shape, token));
  while (recorder->committed_tokens() < 60) usleep(5000);
  const std::string bytes = content_of(folder / "a.moetrace.h5.part");
  ASSERT_TRUE(recorder->close());
  auto outcomes = mutate_many(bytes, shape, files_to_damage(), "a.moetrace.h5.part");
  EXPECT_GT(outcomes[kRefused] + outcomes[kProblemsFound], 0);
}

}  // namespace
}  // namespace switchyard::testing
