// What analyses over a long trace cost: writes a trace of OLMoE's shape (16 rows, 64 experts, 8 chosen, sequences of 512
// tokens, ids and weights), then runs each analysis alone and all of A1 to A10 together. Not a test: run it by hand.
// Arguments: decisions (1e8), folder (/tmp), threads (0), keep (leaves the trace, for analyses_in_numpy.py). Times are of the wall and of the processor.
#include <sys/resource.h>
#include <time.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "engine/base/philox.h"
#include "engine/trace/walk.h"
#include "engine/trace/writer.h"

using namespace switchyard;

namespace {

constexpr int kRows = 16, kExperts = 64, kSlots = 8, kSequence = 512;

double seconds(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}

template <class T>
T checked(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "%s\n", result.error().message().c_str());
  std::exit(1);
}
void checked(Result<void> result) {
  if (!result) std::fprintf(stderr, "%s\n", result.error().message().c_str()), std::exit(1);
}

// Each row prefers some experts, each token some more: skewed loads, repeats, affinity.
void write_trace(const std::filesystem::path& path, uint64_t tokens) {
  TraceHeader header;
  for (int row = 0; row < kRows; ++row) header.moe_layers.push_back(row);
  header.experts = kExperts, header.experts_per_token = kSlots;
  header.capture = CaptureLevel::kWeights;
  header.domains = {"a", "b", "c"};
  header.model_config_json = header.edits_json = header.run_json = "{}";
  TraceWriterOptions options;
  options.chunk_rows = 32'768;
  options.overwrite = Overwrite::kAllow;
  const auto writer = checked(TraceWriter::create(path, header, options));
  uint32_t sequence = 0;
  for (uint64_t first = 0; first < tokens;) {
    if (first % kSequence == 0) {
      checked(writer->begin_sequence(kSequence, {.domain = uint16_t(sequence % 3), .source_id = sequence}));
      ++sequence;
    }
    const uint64_t count = std::min({writer->block_room(), tokens - first, kSequence - first % kSequence});
    TraceColumns columns{count, {}};
    for (const schema::Field* field : writer->fields()) {
      auto& bytes = columns.fields.emplace_back(writer->shape().rows(field->axes) * count * writer->shape().width(field->axes) * schema::bytes_of(field->stored, kExperts));
      if (field->quantity == schema::Quantity::kTokenId) {
        for (uint64_t t = 0; t < count; ++t) {
          const auto words = philox4x32({uint32_t(first + t), uint32_t((first + t) >> 32), 0, 1}, {7, 0});
          const auto id = uint32_t(std::exp(unit_interval(words[0]) * std::log(50'000.0)));  // a few ids are common
          std::memcpy(bytes.data() + 4 * t, &id, 4);
        }
      } else if (field->quantity == schema::Quantity::kExpertId) {
        for (int row = 0; row < kRows; ++row) {
          for (uint64_t t = 0; t < count; ++t) {
            uint64_t used = 0;
            const uint64_t token = first + t;
            for (uint32_t slot = 0, draw = 0; slot < kSlots; ++draw) {
              const auto words = philox4x32({uint32_t(token), uint32_t(row), draw, uint32_t(sequence)}, {9, 0});
              const auto id = uint32_t(unit_interval(words[0]) * unit_interval(words[1] % 3 == 0 ? words[2] : uint32_t(0xFFFFFFFF)) * kExperts + row * 5 + sequence % 7) % kExperts;
              if (used >> id & 1) continue;
              used |= uint64_t(1) << id;
              bytes[(size_t(row) * count + t) * kSlots + slot++] = std::byte(id);
            }
          }
        }
      } else if (field->quantity == schema::Quantity::kWeight) {
        for (size_t i = 0; i < bytes.size() / 4; ++i) {
          const float weight = 0.3f / float(1 + i % kSlots);
          std::memcpy(bytes.data() + 4 * i, &weight, 4);
        }
      }
    }
    checked(writer->write(columns));
    first += count;
  }
  checked(writer->finish(0));
}

}  // namespace

int main(int argc, char** argv) {
  const double decisions = argc > 1 ? std::atof(argv[1]) : 1e8;
  const std::filesystem::path path = std::filesystem::path(argc > 2 ? argv[2] : "/tmp") / "analysis_bench.moetrace.h5";
  const int threads = argc > 3 ? std::atoi(argv[3]) : 0;
  const auto tokens = uint64_t(decisions / (kRows * kSlots));
  double wall = seconds(CLOCK_MONOTONIC);
  write_trace(path, tokens);
  std::printf("wrote %llu tokens, %.2e decisions, %.2f GB in %.1f s\n", static_cast<unsigned long long>(tokens), decisions,
              double(std::filesystem::file_size(path)) / 1e9, seconds(CLOCK_MONOTONIC) - wall);
  wall = seconds(CLOCK_MONOTONIC);
  double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  const auto report = [&](const char* what) {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    std::printf("%-24s %7.2f s wall %7.2f s cpu   peak %.2f GB so far\n", what, seconds(CLOCK_MONOTONIC) - wall, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu,
                double(usage.ru_maxrss) / 1e6);
    std::fflush(stdout);
    wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  };
  std::vector<std::unique_ptr<TraceReader>> readers;
  readers.push_back(checked(TraceReader::open(path)));
  TraceWalk walk = checked(TraceWalk::of(std::move(readers)));
  report("open (checks every row)");
  AnalysisOptions options;
  options.windows = {4, 16, 64, 256};
  options.gpus = {4, 8};
  const char* const names[] = {"load", "entropy", "coactivation", "domain", "vocabulary", "repetition", "srp", "affinity", "next-layer-prediction"};
  std::vector<std::unique_ptr<Analysis>> all;
  std::set<std::string> fields;
  for (const char* name : names) {
    const AnalysisInfo& info = *find_analysis(name);
    std::vector<std::unique_ptr<Analysis>> one;
    one.push_back(checked(info.make(walk.shape(), options)));
    all.push_back(checked(info.make(walk.shape(), options)));
    const AnalysisInfo* const only[] = {&info};
    const std::set<std::string> needs = fields_of(only);
    fields.insert(needs.begin(), needs.end());
    walk.carry(needs);
    wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    checked(run_analyses(walk, one, threads));
    const size_t bytes = one[0]->result().dump().size();
    report((std::string(name) + " (" + std::to_string(bytes / 1000) + " kB)").c_str());
  }
  walk.carry(fields);
  wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  checked(run_analyses(walk, all, threads));
  for (const auto& analysis : all) analysis->result();
  report("A1 to A10 together");
  if (argc <= 4) std::filesystem::remove(path);
}
