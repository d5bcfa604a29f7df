// Dumps damaged at random never bring a reader down: each is read in a child process with 2 GiB of memory to spare and 5 s
// of CPU time. 500 inputs a format; packaging/test.sh --full (SWITCHYARD_FULL) 10,000.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>

#include "engine/trace/import/sink.h"
#include "engine/trace/import/source.h"
#include "tests/trace/foreign.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;

struct Seed {
  std::string format;
  std::vector<std::pair<std::string, std::string>> files;  // name, bytes; more than one: a folder
  dumps::ImportOptions options;
};

Seed of(const std::string& format, std::initializer_list<std::string> names, dumps::ImportOptions options = {}) {
  Seed seed{format, {}, options};
  for (const std::string& name : names) seed.files.emplace_back(fs::path(name).filename().string(), bytes_of(foreign(name)));
  return seed;
}

dumps::ImportOptions shaped() {
  dumps::ImportOptions options;
  options.experts = 8, options.top_k = 2, options.layers = 5;
  return options;
}

Seed esft() {
  Seed seed{"esft", {}, shaped()};
  for (const int layer : truth().layers) {
    std::string text;
    for (int t = 0; t < 48; ++t)
      text += std::to_string(truth().ids.at(layer)[size_t(t)][0]) + "\t" + std::to_string(truth().ids.at(layer)[size_t(t)][1]) + "\t\t0.75\t0.25\n";
    seed.files.emplace_back("expert_weights_" + std::to_string(layer) + ".txt", text);
  }
  return seed;
}

Seed array(const std::string& format, const std::string& name, const std::string& shape, size_t values) {
  std::string header = "{'descr': '<i2', 'fortran_order': False, 'shape': " + shape + ", }";
  header.resize(117, ' ');
  std::string bytes = std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + '\n';
  for (size_t i = 0; i < values; ++i) bytes += std::string{char(i % 7), 0};
  return {format, {{name, bytes}}, {}};
}

Seed moe_lrc() {
  dumps::ImportOptions options;
  options.top_k = 2;
  Seed seed{"moe-lrc", {}, options};
  for (const char* name : {"toy_00.safetensors", "toy_01.safetensors"}) {
    const std::string header = R"({"c4":{"dtype":"BF16","shape":[2,8,8],"data_offsets":[0,256]}})";
    std::string bytes(8, '\0');
    bytes[0] = char(header.size());
    bytes += header;
    for (int i = 0; i < 128; ++i) bytes += std::string{char(i * 37), char(0x3F + i % 3)};
    seed.files.emplace_back(name, bytes);
  }
  return seed;
}

std::vector<Seed> seeds() {
  return {esft(),
          of("sglang", {"sglang/made_by_us_stat.pt"}),
          of("sglang", {"sglang/made_by_us_per_pass_rank0.pt", "sglang/made_by_us_per_pass_rank1.pt"}),
          of("sglang", {"sglang/made_by_us_per_token.pt"}),
          of("sglang", {"sglang/made_by_us_logical_count.json"}),
          of("vllm", {"vllm/made_by_us_completion.json"}),
          of("vllm", {"vllm/made_by_us_routed_experts.npy"}),
          of("vllm", {"vllm/moe_routes_excerpt.jsonl"}),
          {"eplb", {{"state.json", R"({"physical_to_logical_map":[[0,1,2,1]],"expert_load_window":[[[5,1,0,2]],[[0,0,0,0]],[[1,1,1,1]]]})"}}, {}},
          of("megatron", {"megatron/made_by_us_router_trace_rank0.jsonl", "megatron/logits_rank0.bin"}),
          {"olmoe", {{"c4_results.jsonl", R"({"input_ids":[5,6],"predicted_token_ids":[6,7],"exp_ids":[[[0,1],[2,3]],[[1,0],[3,2]]]})" "\n"}}, {}},
          array("exflow", "trace.npy", "(12, 4)", 48),
          moe_lrc(),
          of("imatrix", {"imatrix/made_by_us_moe.gguf"}),
          of("imatrix", {"imatrix/made_by_us_moe.dat"}),
          of("reap", {"reap/made_by_us_observer.pt"}),
          of("moe-vis", {"moe-vis/made_by_us_expert_trace.jsonl"}),
          of("moe-vis", {"moe-vis/made_by_us_activations.npz"}),
          of("moe-atlas", {"moe-routing-atlas/test_traces_combined.json"}),
          of("gpt-oss", {"gptoss-fingerprint/mmlu_test-high_school_us_history-False_True.json"}),
          of("plumb", {"plumb/mixtral-8x7b-synthetic.json"}),
          {"csv", {{"counts.csv", "layer_id,expert_id,count\n3,1,20\n5,2,7\n"}}, {}}};
}

// Flipped bits, other bytes, numbers at the edges, parts cut out, doubled or moved, a cut end.
void damage(std::string& bytes, std::mt19937& random) {
  static const std::string kNumbers[] = {"0", "-1", "1", "255", "65535", "65536", "2147483647", "-2147483648", "4294967295", "4294967296", "9007199254740993",
                                         "9223372036854775807", "18446744073709551615", "1e400", "1e-400", "null", "[]", "{}", "\"\"", "[[[[[0]]]]]"};
  const auto at = [&] { return bytes.empty() ? size_t(0) : random() % bytes.size(); };
  const int changes = int(1 + random() % 4);
  for (int change = 0; change < changes && !bytes.empty(); ++change) {
    const size_t place = at(), size = 1 + random() % 32;
    switch (random() % 7) {
      case 0: bytes[place] = char(bytes[place] ^ (1 << (random() % 8))); break;
      case 1: bytes[place] = char(random()); break;
      case 2: bytes.erase(place, size); break;
      case 3: bytes.insert(place, bytes.substr(at(), size)); break;
      case 4: {
        const uint64_t edge = uint64_t(1) << (random() % 64);
        const uint64_t value = random() % 2 ? edge - 1 : edge;
        std::memcpy(bytes.data() + place, &value, std::min<size_t>(8, bytes.size() - place));
        break;
      }
      case 5: {
        const size_t digit = bytes.find_first_of("0123456789", place);
        if (digit == std::string::npos) break;
        const size_t end = std::min(bytes.find_first_not_of("0123456789", digit), bytes.size());
        bytes.replace(digit, end - digit, kNumbers[random() % std::size(kNumbers)]);
        break;
      }
      default:
        if (random() % 4 == 0) bytes.resize(place);
        break;
    }
  }
}

std::vector<std::pair<std::string, std::string>> damaged(const Seed& seed, unsigned number, int input) {
  std::mt19937 random(number + unsigned(input) * 7919);
  auto files = seed.files;
  damage(files[random() % files.size()].second, random);
  return files;
}

struct Shared {
  std::atomic<int> input{0};
  std::atomic<int> accepted{0}, silent{0};
};

// Everything but the writing of the trace, which takes what the first pass has checked; that too, now and then.
void read_all(const Seed& seed, unsigned number, int inputs, const fs::path& folder, Shared& shared) {
  const dumps::DumpFormat& format = *dumps::find_format(seed.format);
  for (int input = shared.input; input < inputs; ++input) {
    shared.input = input;
    for (const auto& [name, bytes] : damaged(seed, number, input)) put_bytes(folder / name, bytes);
    const itimerval cpu{{}, {5, 0}};
    setitimer(ITIMER_PROF, &cpu, nullptr);
    const fs::path path = seed.files.size() > 1 ? folder : folder / seed.files[0].first;
    const auto source = dumps::DumpSource::open(path);
    if (!source) _exit(3);
    dumps::Survey survey(seed.options);
    auto done = format.read(*source, seed.options, survey);
    if (done) {
      if (const auto measured = survey.finish(source->shown()); !measured) done = tl::unexpected(measured.error());
    }
    if (!done && done.error().message().size() < 10) ++shared.silent;
    if (!done) continue;
    ++shared.accepted;
    if (shared.accepted % 50 == 1) {
      const auto whole = import_trace({seed.format, path, folder.string() + ".h5", seed.options, true});
      if (!whole && whole.error().message().size() < 10) ++shared.silent;
    }
  }
  _exit(0);
}

int inputs() { return std::getenv("SWITCHYARD_FULL") ? 10'000 : 500; }

TEST(ImportFuzz, DamagedDumpsNeverBringAReaderDown) {
  const unsigned number = std::random_device()();
  std::cout << "seed " << number << std::endl;
  auto* shared = new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
  for (const Seed& seed : seeds()) {
    const Folder folder;
    const std::string name = seed.format + " " + seed.files[0].first;
    shared->input = 0, shared->accepted = 0, shared->silent = 0;
    const fs::path place = folder / "dump";
    fs::create_directory(place);
    const pid_t child = fork();
    if (child == 0) {
      uint64_t pages = 0;
      std::ifstream("/proc/self/statm") >> pages;
      const rlim_t bytes = pages * uint64_t(sysconf(_SC_PAGESIZE)) + (uint64_t(2) << 30);
      const rlimit memory{bytes, bytes};
      setrlimit(RLIMIT_AS, &memory);
      read_all(seed, number, inputs(), place, *shared);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      const fs::path kept = fs::temp_directory_path() / ("switchyard-fuzz-" + std::to_string(getpid()) + "-" + seed.format);
      fs::create_directories(kept);
      for (const auto& [file, content] : damaged(seed, number, shared->input)) put_bytes(kept / file, content);
      ADD_FAILURE() << name << ": input " << shared->input << " ended the reader with "
                    << (WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status)) : "status " + std::to_string(WEXITSTATUS(status))) << "; kept in " << kept;
    }
    EXPECT_EQ(shared->silent, 0) << name << ": refusals without a reason";
    std::cout << name << ": " << inputs() << " inputs, " << shared->accepted << " accepted" << std::endl;
  }
}

}  // namespace
}  // namespace switchyard::testing
