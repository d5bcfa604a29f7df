// What shadow comparison costs: decode tokens per second of a session on the demo with no and with four shadow
// recipes, taken in turn. Not a test: run it by hand on a quiet machine. Arguments: turns (7), new tokens (600),
// threads (0).
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/runtime/session.h"
#include "tests/bench/token_speed.h"

using namespace switchyard;

namespace {

// Every layer differs from the run in all four.
std::vector<ShadowRecipe> four() {
  return {{"top-k 2", {{TopK{{}, 2}, {}}}},
          {"temperature", {{Temperature{{}, 1.5f}, {}}}},
          {"muted", {{Mute{{}, {0, 7, 19}}, {}}}},
          {"forced and biased", {{Force{{}, {5}}, {}}, {Bias{{}, {1, 2, 3}, 0.5f}, {}}}}};
}

Speed speed_of(Session& session, uint64_t tokens, bool shadows) {
  session.send(SetShadows{shadows ? four() : std::vector<ShadowRecipe>{}});
  std::vector<TokenId> prompt;
  for (int i = 0; i < 64; ++i) prompt.push_back(100 + 31 * i);
  session.send(Start{prompt, tokens, true});
  session.wait();
  const double before = cpu_seconds();
  session.send(Play{});
  const auto end = session.wait();
  if (end->error) std::printf("%s\n", end->error->message().c_str());
  return {end->mean_decode_tokens_per_s, (cpu_seconds() - before) * 1e6 / double(tokens)};
}

}  // namespace

int main(int argc, char** argv) {
  const int turns = argc > 1 ? std::atoi(argv[1]) : 7;
  const uint64_t tokens = argc > 2 ? uint64_t(std::atoll(argv[2])) : 600;
  const auto checkpoint = open_checkpoint("demo");
  if (!checkpoint) return std::printf("%s\n", checkpoint.error().message().c_str()), 1;
  SessionOptions options{.backend = "cpu", .threads = argc > 3 ? std::atoi(argv[3]) : 0, .ignore_eos = true};
  auto session = Session::open(*checkpoint, options);
  if (!session) return std::printf("%s\n", session.error().message().c_str()), 1;
  speed_of(**session, tokens, true);  // warm
  std::vector<double> speed[2], cpu[2], slower;
  for (int turn = 0; turn < turns; ++turn) {
    for (const bool shadows : {false, true}) {
      const Speed one = speed_of(**session, tokens, shadows);
      speed[shadows].push_back(one.tokens_per_s);
      cpu[shadows].push_back(one.cpu_us);
    }
    slower.push_back(1 - speed[1].back() / speed[0].back());
    std::printf(
        "%7.1f tokens/s without, %7.1f with four shadow recipes: %4.1f %% slower; processor %.0f and %.0f us a token\n",
        speed[0].back(), speed[1].back(), 100 * slower.back(), cpu[0].back(), cpu[1].back());
  }
  std::printf("medians: %.1f and %.1f tokens/s, %.1f %% slower; processor %.0f and %.0f us a token\n", median(speed[0]),
              median(speed[1]), 100 * median(slower), median(cpu[0]), median(cpu[1]));
  return 0;
}
