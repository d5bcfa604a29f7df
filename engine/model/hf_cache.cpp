// The Hugging Face cache.
#include "engine/model/hf_cache.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string shown(const fs::path& path) {
  return printable(path.string(), 400);
}

const char* set_variable(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

bool is_word(std::string_view text) {
  return !text.empty() && text != "." && text != ".." && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

}  // namespace

bool is_repository_name(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && is_word(text.substr(0, slash)) && is_word(text.substr(slash + 1));
}

fs::path hf_cache_root() {
  if (const char* cache = set_variable("HF_HUB_CACHE")) return cache;
  if (const char* home = set_variable("HF_HOME")) return fs::path(home) / "hub";
  if (const char* cache = set_variable("XDG_CACHE_HOME")) return fs::path(cache) / "huggingface" / "hub";
  const char* home = set_variable("HOME");
  return fs::path(home ? home : "/") / ".cache" / "huggingface" / "hub";
}

std::string repository_of_cache_entry(const fs::path& folder) {
  constexpr std::string_view kPrefix = "models--";
  std::string name = folder.filename().string();
  const size_t middle = name.find("--", kPrefix.size());
  if (!name.starts_with(kPrefix) || middle == std::string::npos) return {};
  name = name.substr(kPrefix.size(), middle - kPrefix.size()) + "/" + name.substr(middle + 2);
  return is_repository_name(name) ? name : std::string();
}

Result<CachedModel> find_in_hf_cache(std::string_view repository) {
  std::string entry(repository);
  entry.replace(entry.find('/'), 1, "--");
  const fs::path folder = hf_cache_root() / ("models--" + entry);
  const std::string name(repository);
  std::error_code error;
  if (!fs::is_directory(folder, error))
    return fail(ErrorCode::kNotFound,
                fmt::format("is neither a folder nor in the Hugging Face cache ({}).", shown(folder)), name,
                fmt::format("Download it first: hf download {}", name));
  return open_cache_entry(folder, name);
}

Result<CachedModel> open_cache_entry(const fs::path& folder, const std::string& repository) {
  std::error_code error;
  SY_TRY(const Folder blobs, Folder::open(fs::exists(folder / "blobs", error) ? folder / "blobs" : folder));
  for (const std::string& name : blobs.names())
    if (name.ends_with(".incomplete"))
      return fail(ErrorCode::kNotFound,
                  fmt::format("is in the Hugging Face cache, but a download is unfinished ({}).", printable(name)),
                  repository, "Finish the download, or give the snapshot's folder itself.");

  SY_TRY(const Folder refs, Folder::open(folder / "refs"));
  SY_TRY(std::string revision, refs.read_text("main", 256));
  while (!revision.empty() && (revision.back() == '\n' || revision.back() == ' ')) revision.pop_back();
  if (!is_word(revision))
    return fail(ErrorCode::kMalformed, fmt::format("refs/main holds {}, which is no revision.", quote(revision)),
                repository);
  const fs::path snapshot = folder / "snapshots" / revision;
  if (!fs::is_directory(snapshot, error))
    return fail(ErrorCode::kNotFound, fmt::format("is in the Hugging Face cache, but revision {} is not.", revision),
                repository, fmt::format("Download it again: hf download {}", repository));
  return CachedModel{snapshot, revision};
}

}  // namespace switchyard
