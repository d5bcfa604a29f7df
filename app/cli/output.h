// Where the command line writes: data to stdout (or to -o FILE), messages to stderr, and nothing else.
// With --json, or with -o, data is held back until the command has succeeded. Main thread, except message()
// and write_progress(), which any thread may call.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace switchyard {

enum class MessageLevel { kDebug, kInfo, kWarning, kError };

using Document = nlohmann::ordered_json;  // members stay in the order they are written

double shortest(float value);  // the double that prints as the float's shortest decimal: 0.8, not 0.800000011920929

// Options that every command takes.
struct OutputOptions {
  bool json = false;
  bool plain = false;  // tables as tab-separated values
  bool quiet = false;  // errors only
  bool force = false;  // write over existing files
  bool no_color = false;
  std::string file;  // -o; empty: stdout
  std::string log_level = "info";
};

class Output {
 public:
  OutputOptions options;

  bool json() const { return options.json; }
  bool data_to_terminal() const;
  static bool messages_to_terminal();
  static bool animated();  // a terminal that can move the cursor
  bool color() const;      // for messages: NO_COLOR, TERM=dumb, --no-color and a missing terminal turn it off

  void data(std::string_view text) { held_ += text; }  // written when the command succeeds
  void json(const Document& document);                 // the one document of --json
  // "name  value" lines, names aligned; tab-separated with --plain.
  void table(const std::vector<std::vector<std::string>>& rows);
  // Written at once, for text that grows while one looks on; held back under --json or -o. On a terminal,
  // control characters are shown as \xNN. False when the reader has gone.
  bool stream(std::string_view text);

  void message(MessageLevel level, std::string_view text);
  void info(std::string_view text) { message(MessageLevel::kInfo, text); }
  void warn(std::string_view text) { message(MessageLevel::kWarning, text); }
  void error(const Error& error);
  void write_progress(std::string_view text);  // raw, to stderr

  // Before code of others runs: data goes on to what is stdout now, and whatever else is printed there goes to stderr.
  static void keep_stdout();

  // Before any work: whether -o can be written as it stands.
  Result<void> check_file() const;
  // Writes what was held back. A reader that has gone is no error.
  Result<void> finish();

 private:
  Result<void> write_stdout(std::string_view bytes);

  std::string held_;
  bool reader_gone_ = false;
  std::optional<Error> stdout_error_;
  std::mutex stderr_mutex_;
};

}  // namespace switchyard
