// Text and id arguments, see text_input.h.
#include "app/cli/text_input.h"

#include <cerrno>
#include <charconv>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

constexpr size_t kMaxText = size_t{16} << 20;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

Result<std::string> read_text(const std::string& file) {
  const bool from_stdin = file == "-";
  const std::string name = from_stdin ? "stdin" : file;
  const int descriptor = from_stdin ? STDIN_FILENO : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return fail(ErrorCode::kNotFound, fmt::format("cannot be opened: {}.", std::strerror(errno)), name);
  std::string text;
  char block[1 << 16];
  int error = 0;
  while (text.size() <= kMaxText) {
    const ssize_t got = ::read(descriptor, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) error = errno;
    if (got <= 0) break;
    text.append(block, static_cast<size_t>(got));
  }
  if (!from_stdin) ::close(descriptor);
  if (error != 0) return fail(ErrorCode::kNotFound, fmt::format("cannot be read: {}.", std::strerror(error)), name);
  if (text.size() > kMaxText) return fail(ErrorCode::kMalformed, "is longer than 16 MiB, the limit for a text.", name);
  return text;
}

Result<std::vector<TokenId>> parse_ids(std::string_view list, std::string_view option) {
  std::vector<TokenId> ids;
  for (size_t from = 0; from <= list.size();) {
    const size_t comma = std::min(list.find(',', from), list.size());
    const std::string_view item = trimmed(list.substr(from, comma - from));
    TokenId id = -1;
    const auto [end, problem] = std::from_chars(item.data(), item.data() + item.size(), id);
    if (problem != std::errc() || end != item.data() + item.size() || id < 0)
      return fail(ErrorCode::kUsage,
                  fmt::format("holds {} at place {}; token ids are whole numbers from 0, joined by commas.",
                              quote(item, 40), ids.size()),
                  std::string(option));
    ids.push_back(id);
    from = comma + 1;
  }
  return ids;
}

void SequenceInput::add_options(CLI::App& app, const std::string& text_name, const std::string& file_name) {
  text_ = app.add_option(text_name, text_value_, "The text itself")->type_name("TEXT");
  file_ = app.add_option(file_name, file_value_, "A file with the text, byte for byte; - is stdin")->type_name("FILE");
  ids_ = app.add_option("--token-ids", ids_value_, "Token ids instead of a text: 1,2,3")->type_name("IDS");
  text_->excludes(file_, ids_);
  file_->excludes(ids_);
}

Result<std::vector<TokenId>> SequenceInput::ids(const Tokenizer* tokenizer, int vocab, const ChatTemplate* chat) const {
  std::vector<TokenId> ids;
  if (ids_->count() > 0) {
    if (chat) return fail(ErrorCode::kUsage, "--chat wraps a text; --token-ids gives none.");
    SY_TRY(ids, parse_ids(ids_value_, "--token-ids"));
  } else {
    if (!tokenizer)
      return fail(ErrorCode::kUsage, "the model's folder has no tokenizer.json, so it takes no text.", {},
                  "Give --token-ids.");
    std::string text = text_value_;
    if (file_->count() > 0) {
      SY_TRY(text, read_text(file_value_));
    }
    if (chat) {
      SY_TRY(text, chat->render_prompt(text));
    }
    SY_TRY(ids, tokenizer->encode(text, chat == nullptr));
  }
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] >= vocab)
      return fail(ErrorCode::kUsage,
                  fmt::format("token id {} at place {} is outside the vocabulary of {} ids.", ids[i], i, vocab));
  return ids;
}

}  // namespace switchyard
