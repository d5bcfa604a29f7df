// stdout for data, stderr for messages, see output.h.
#include "app/cli/output.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "engine/base/atomic_file.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

int data_descriptor = STDOUT_FILENO;

MessageLevel parse_level(const std::string& name) {
  if (name == "debug") return MessageLevel::kDebug;
  if (name == "warning") return MessageLevel::kWarning;
  if (name == "error") return MessageLevel::kError;
  return MessageLevel::kInfo;
}

void write_all(int descriptor, std::string_view bytes, int& error) {
  error = 0;
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written >= 0)
      bytes.remove_prefix(static_cast<size_t>(written));
    else if (errno != EINTR) {
      error = errno;
      return;
    }
  }
}

// Text of a model or a file on a terminal: line ends and tabs as they are, other controls as \xNN.
std::string terminal_safe(std::string_view text) {
  std::string out;
  size_t from = 0;
  for (size_t at = 0; at <= text.size(); ++at) {
    if (at < text.size() && text[at] != '\n' && text[at] != '\t') continue;
    out += printable(text.substr(from, at - from), text.size() + 1);
    if (at < text.size()) out += text[at];
    from = at + 1;
  }
  return out;
}

}  // namespace

double shortest(float value) {
  const std::string text = fmt::format("{}", value);
  double out = value;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

bool Output::data_to_terminal() const {
  return options.file.empty() && ::isatty(data_descriptor) == 1;
}
bool Output::messages_to_terminal() {
  return ::isatty(STDERR_FILENO) == 1;
}

bool Output::animated() {
  const char* terminal = std::getenv("TERM");
  return messages_to_terminal() && !(terminal && std::strcmp(terminal, "dumb") == 0);
}

bool Output::color() const {
  const char* no_color = std::getenv("NO_COLOR");
  return animated() && !options.no_color && !(no_color && *no_color);
}

void Output::json(const Document& document) {
  held_ = document.dump(-1, ' ', false, Document::error_handler_t::replace) + "\n";
}

// Columns that a UTF-8 text takes: its code points.
static size_t columns(std::string_view text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; }));
}

void Output::table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns(row[i]));
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      held_ += row[i];
      if (i + 1 == row.size())
        held_ += '\n';
      else if (options.plain)
        held_ += '\t';
      else
        held_.append(widths[i] - columns(row[i]) + 2, ' ');
    }
  }
}

bool Output::stream(std::string_view text) {
  if (options.json || !options.file.empty()) {
    data(text);
    return true;
  }
  if (!reader_gone_ && !stdout_error_) {
    auto written = write_stdout(data_to_terminal() ? terminal_safe(text) : std::string(text));
    if (!written) stdout_error_ = std::move(written).error();
  }
  return !reader_gone_ && !stdout_error_;
}

void Output::message(MessageLevel level, std::string_view text) {
  if (level < parse_level(options.log_level) || (options.quiet && level != MessageLevel::kError)) return;
  std::string line = std::string(text) + "\n";
  const bool colored = color();
  if (level == MessageLevel::kWarning) line = (colored ? "\033[33mwarning:\033[0m " : "warning: ") + line;
  if (level == MessageLevel::kError) line = (colored ? "\033[31merror:\033[0m " : "error: ") + line;
  write_progress(line);
}

void Output::error(const Error& error) {
  message(MessageLevel::kError, terminal_safe(error.message()));
}

void Output::write_progress(std::string_view text) {
  const std::scoped_lock lock(stderr_mutex_);
  int ignored = 0;  // nowhere left to tell
  write_all(STDERR_FILENO, text, ignored);
}

Result<void> Output::write_stdout(std::string_view bytes) {
  int error = 0;
  write_all(data_descriptor, bytes, error);
  if (error == EPIPE)
    reader_gone_ = true;
  else if (error != 0)
    return fail(ErrorCode::kOutput, std::string("could not be written: ") + std::strerror(error) + ".", "stdout");
  return {};
}

void Output::keep_stdout() {
  if (data_descriptor != STDOUT_FILENO) return;
  const int kept = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 64);
  if (kept < 0) return;
  data_descriptor = kept;
  ::dup2(STDERR_FILENO, STDOUT_FILENO);
}

Result<void> Output::check_file() const {
  std::error_code ignored;
  if (!options.force && !options.file.empty() && std::filesystem::exists(options.file, ignored))
    return fail(ErrorCode::kOutput, "exists already.", options.file,
                "Choose another name, or overwrite it with --force.");
  return {};
}

Result<void> Output::finish() {
  if (stdout_error_) return tl::unexpected<Error>(*stdout_error_);
  if (!options.file.empty())
    return write_file(options.file, held_, options.force ? Overwrite::kAllow : Overwrite::kRefuse);
  if (reader_gone_ || held_.empty()) return {};
  return write_stdout(held_);
}

}  // namespace switchyard
