// Lines of the journal: {"crc":"8 hex digits","entry":{…}}; the CRC-32 is over the text of "entry". GUI thread.
#include "app/session/journal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include <fmt/format.h>
#include <boost/crc.hpp>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

using nlohmann::json;

constexpr size_t kLargestJournal = size_t(64) << 20;

std::string crc_of(const std::string& text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  return fmt::format("{:08x}", crc.checksum());
}

std::string first_word_of(const char* file) {
  std::ifstream in(file);
  std::string word;
  in >> word;
  return word;
}

// Start time of a running process in clock ticks since boot, field 22 of /proc/PID/stat; empty: there is none, or
// it is dead and only waits to be collected (state Z or X).
std::string start_time_of(long pid) {
  std::ifstream in(fmt::format("/proc/{}/stat", pid));
  std::string stat((std::istreambuf_iterator<char>(in)), {});
  const size_t after_name = stat.rfind(')');
  if (after_name == std::string::npos) return {};
  std::istringstream fields(stat.substr(after_name + 1));
  std::string field;
  fields >> field;
  if (field == "Z" || field == "X") return {};
  for (int i = 1; i < 20; ++i) fields >> field;
  return field;
}

// Edits as the engine writes them, so that the journal and a script are one format.
json edits_as_json(const std::vector<EditCommand>& edits) {
  json out = json::array();
  for (const EditCommand& command : edits) out.push_back(json::parse(to_json(command), nullptr, false));
  return out;
}

}  // namespace

std::filesystem::path state_folder() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path base = state && *state == '/'
                                   ? std::filesystem::path(state)
                                   : std::filesystem::path(home ? home : "/tmp") / ".local" / "state";
  base /= "switchyard";
  std::error_code ignored;
  std::filesystem::create_directories(base, ignored);
  return base;
}

Journal& Journal::operator=(Journal&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(model_, other.model_);
  std::swap(recording_, other.recording_);
  std::swap(written_, other.written_);
  std::swap(written_cursor_, other.written_cursor_);
  return *this;
}

Journal::~Journal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<Journal> Journal::create(const std::filesystem::path& folder) {
  Journal journal;
  journal.file_ = folder / fmt::format("journal-{}.jsonl", ::getpid());
  journal.descriptor_ = ::open(journal.file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (journal.descriptor_ < 0)
    return fail(ErrorCode::kOutput, std::string("The journal cannot be written: ") + std::strerror(errno) + ".",
                journal.file_.string(), "Edits will not survive a crash.");
  journal.append(json{{"process", ::getpid()},
                      {"started", start_time_of(::getpid())},
                      {"boot", first_word_of("/proc/sys/kernel/random/boot_id")}}
                     .dump());
  return journal;
}

void Journal::append(const std::string& payload) {
  if (descriptor_ < 0) return;
  const std::string line = fmt::format("{{\"crc\":\"{}\",\"entry\":{}}}\n", crc_of(payload), payload);
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t wrote = ::write(descriptor_, line.data() + done, line.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;  // a full disk costs the journal, not the run
    done += size_t(wrote);
  }
}

void Journal::model_opened(const std::string& model) {
  model_ = model;
  written_.clear();
  written_cursor_ = 0;
  append(json{{"model", model}}.dump(-1, ' ', true, json::error_handler_t::replace));
}

void Journal::prompt_used(const std::string& prompt) {
  append(json{{"prompt", prompt}}.dump(-1, ' ', true, json::error_handler_t::replace));
}

void Journal::history_changed(const std::vector<HistoryEntry>& history, size_t cursor) {
  size_t keep = 0;
  while (keep < written_.size() && keep < history.size() && written_[keep] == history[keep].edits) ++keep;
  if (keep == history.size() && keep == written_.size() && cursor == written_cursor_) return;
  written_.resize(keep);
  json added = json::array();
  for (size_t i = keep; i < history.size(); ++i) {
    added.push_back({{"author", history[i].author}, {"edits", edits_as_json(history[i].edits)}});
    written_.push_back(history[i].edits);
  }
  written_cursor_ = cursor;
  append(json{{"keep", keep}, {"add", added}, {"cursor", cursor}}.dump(-1, ' ', true, json::error_handler_t::replace));
}

void Journal::recording_to(const std::filesystem::path& trace) {
  if (trace.string() == recording_) return;
  recording_ = trace.string();
  append(json{{"recording", recording_}}.dump(-1, ' ', true, json::error_handler_t::replace));
}

void Journal::finish() {
  abandon();
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);
}

void Journal::abandon() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

namespace {

// Applies one verified entry; false: it does not fit what came before.
bool take_entry(const json& entry, JournalContents& out) {
  if (entry.contains("model") && entry["model"].is_string()) {
    out.model = entry["model"];
    out.history.clear();
    out.cursor = 0;
    return true;
  }
  if (entry.contains("prompt") && entry["prompt"].is_string()) return out.prompt = entry["prompt"], true;
  if (entry.contains("recording") && entry["recording"].is_string())
    return out.recording = entry["recording"].get<std::string>(), true;
  if (entry.contains("process")) return true;
  if (!entry.contains("keep") || !entry["keep"].is_number_unsigned() || !entry.contains("add") ||
      !entry["add"].is_array() || !entry.contains("cursor") || !entry["cursor"].is_number_unsigned())
    return false;
  const size_t keep = entry["keep"], cursor = entry["cursor"];
  if (keep > out.history.size() || cursor > keep + entry["add"].size()) return false;
  out.history.resize(keep);
  for (const json& added : entry["add"]) {
    if (!added.is_object() || !added.contains("edits")) return false;
    out.history.push_back(
        {json{{"schema", 1}, {"edits", added["edits"]}}.dump(), added.value("author", std::string("user"))});
  }
  out.cursor = cursor;
  return true;
}

}  // namespace

Result<JournalContents> read_journal(const std::filesystem::path& file) {
  std::error_code problem;
  const auto size = std::filesystem::file_size(file, problem);
  std::ifstream in(file, std::ios::binary);
  if (problem || !in) return fail(ErrorCode::kNotFound, "The journal cannot be read.", file.string());
  if (size > kLargestJournal) return fail(ErrorCode::kMalformed, "The journal is larger than 64 MiB.", file.string());
  JournalContents out;
  out.file = file;
  for (std::string line; std::getline(in, line);) {
    const std::string head = "{\"crc\":\"", middle = "\",\"entry\":";
    const size_t begin = head.size() + 8 + middle.size();
    const bool framed = line.size() > begin + 1 && line.starts_with(head) && line.back() == '}' &&
                        line.compare(head.size() + 8, middle.size(), middle) == 0;
    const std::string payload = framed ? line.substr(begin, line.size() - begin - 1) : std::string();
    const json entry = framed && crc_of(payload) == line.substr(head.size(), 8) ? json::parse(payload, nullptr, false)
                                                                                : json(json::value_t::discarded);
    if (!entry.is_object() || !take_entry(entry, out)) {
      ++out.damaged_lines;
      break;  // later lines build on this one
    }
  }
  return out;
}

std::vector<std::filesystem::path> orphaned_journals(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> out;
  std::error_code problem;
  const std::string boot = first_word_of("/proc/sys/kernel/random/boot_id");
  for (const auto& entry : std::filesystem::directory_iterator(folder, problem)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("journal-") || !name.ends_with(".jsonl")) continue;
    std::ifstream in(entry.path());
    std::string line;
    std::getline(in, line);
    const json first = json::parse(line, nullptr, false);
    bool alive = false;
    if (first.is_object() && first.contains("entry") && first["entry"].is_object()) {
      const json& mark = first["entry"];
      alive = mark.value("boot", std::string()) == boot &&
              start_time_of(mark.value("process", 0L)) == mark.value("started", std::string("-"));
    }
    if (!alive) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    std::error_code e;
    return std::filesystem::last_write_time(a, e) < std::filesystem::last_write_time(b, e);
  });
  return out;
}

}  // namespace switchyard
