// Progress of long work on stderr, see progress.h.
#include "app/cli/progress.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

namespace switchyard {
namespace {

constexpr auto kBarPeriod = std::chrono::milliseconds(100);
constexpr auto kJsonPeriod = std::chrono::seconds(1);
constexpr auto kLinePeriod = std::chrono::seconds(10);
constexpr int kBarWidth = 24;

std::optional<double> eta_seconds(const ProgressState& state, double seconds) {
  if (state.fraction <= 0 || state.fraction > 1) return std::nullopt;
  return seconds * (1 - state.fraction) / state.fraction;
}

std::string json_line(const ProgressState& state, double seconds) {
  const auto eta = eta_seconds(state, seconds);
  const Document fields = {{"step", state.step},
                           {"fraction", state.fraction < 0 ? Document() : Document(state.fraction)},
                           {"tokens", state.tokens},
                           {"tokens_per_s", state.tokens_per_s},
                           {"eta_s", eta ? Document(*eta) : Document()},
                           {"bytes", state.bytes ? Document(*state.bytes) : Document()},
                           {"dropped", state.dropped}};
  return Document{{"progress", fields}}.dump() + "\n";
}

// "[=====     ] 52 %  generate  31.4 tokens/s  ETA 3 s"
std::string progress_line(const ProgressState& state, double seconds, bool bar) {
  std::string line;
  if (state.fraction >= 0) {
    const double fraction = std::min(state.fraction, 1.0);
    const int filled = static_cast<int>(fraction * kBarWidth);
    if (bar) line = fmt::format("[{}{}] ", std::string(filled, '='), std::string(kBarWidth - filled, ' '));
    line += fmt::format("{:3.0f} %  ", fraction * 100);
  }
  line += state.step;
  if (state.tokens_per_s > 0) line += fmt::format("  {:.1f} tokens/s", state.tokens_per_s);
  if (state.dropped > 0) line += fmt::format("  {} dropped", state.dropped);
  if (const auto eta = eta_seconds(state, seconds)) line += fmt::format("  ETA {:.0f} s", *eta);
  return line;
}

}  // namespace

std::optional<ProgressMode> parse_progress_mode(const std::string& name) {
  if (name == "auto") return ProgressMode::kAuto;
  if (name == "plain") return ProgressMode::kPlain;
  if (name == "json") return ProgressMode::kJson;
  if (name == "none") return ProgressMode::kNone;
  return std::nullopt;
}

Progress::Progress(Output& output, ProgressMode mode, std::function<ProgressState()> poll, bool silent_terminal)
    : output_(output), mode_(mode), poll_(std::move(poll)) {
  if (output.options.quiet && mode_ != ProgressMode::kJson) mode_ = ProgressMode::kNone;
  if (mode_ == ProgressMode::kAuto) {
    bar_ = Output::animated();
    if (silent_terminal && Output::messages_to_terminal()) mode_ = ProgressMode::kNone;
  }
  if (mode_ != ProgressMode::kNone) thread_ = std::thread([this] { run(); });
}

Progress::~Progress() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (bar_) output_.write_progress("\r\033[K");
}

void Progress::run() {
  const auto start = std::chrono::steady_clock::now();
  const auto period = mode_ == ProgressMode::kJson ? std::chrono::milliseconds(kJsonPeriod)
                      : bar_                       ? kBarPeriod
                                                   : std::chrono::milliseconds(kLinePeriod);
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, period, [this] { return done_; })) {
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    show(poll_());
  }
  if (mode_ == ProgressMode::kJson) show(poll_());  // wrappers get a last word
}

void Progress::show(const ProgressState& state) {
  if (mode_ == ProgressMode::kJson)
    output_.write_progress(json_line(state, seconds_));
  else if (bar_)
    output_.write_progress("\r\033[K" + progress_line(state, seconds_, true));
  else
    output_.write_progress(progress_line(state, seconds_, false) + "\n");
}

}  // namespace switchyard
