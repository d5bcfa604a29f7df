// A program for differential.py: serves one tokenizer over stdin and stdout, a line for a line.
//   E HEX: ids of a text with its template, P HEX: without; D ID,ID: text as hex, K ID,ID: without special tokens.
// An error answers "!message"; a streamed text that differs from the whole one answers "?".
#include <cstdio>
#include <iostream>
#include <sstream>

#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string to_hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char byte : bytes) {
    hex += kDigits[static_cast<unsigned char>(byte) >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

std::vector<TokenId> parse_ids(const std::string& list) {
  std::vector<TokenId> ids;
  std::stringstream stream(list);
  for (std::string id; std::getline(stream, id, ',');) ids.push_back(std::stoi(id));
  return ids;
}

std::string encoded(const Tokenizer& tokenizer, const std::string& text, bool add_special) {
  const auto ids = tokenizer.encode(text, add_special);
  if (!ids) return "!" + ids.error().message();
  std::string line;
  for (const TokenId id : *ids) line += (line.empty() ? "" : ",") + std::to_string(id);
  return line;
}

std::string decoded(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<TokenId>& ids, bool skip) {
  const std::string whole = tokenizer->decode(ids, skip);
  StreamDecoder stream(tokenizer, skip);
  std::string streamed;
  for (const TokenId id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  return streamed == whole ? to_hex(whole) : "?";
}

int serve(const std::string& folder) {
  const auto tokenizer = Tokenizer::load(folder);
  if (!tokenizer) {
    std::cerr << tokenizer.error().message() << '\n';
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const std::string argument = line.size() > 2 ? line.substr(2) : "";
    const char command = line.empty() ? ' ' : line[0];
    if (command == 'E' || command == 'P')
      std::cout << encoded(**tokenizer, from_hex(argument), command == 'E') << '\n';
    else
      std::cout << decoded(*tokenizer, parse_ids(argument), command == 'K') << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  return argc == 2 ? switchyard::serve(argv[1]) : 2;
}
